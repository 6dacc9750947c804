import { beforeEach, describe, expect, it } from "vitest";
import { parseCard, parseTask } from "../model/parse";
import type { Card, Task } from "../model/protocol";
import {
  boardEntries,
  boardRule,
  entryOf,
  forgetAll,
  forgetUnlisted,
  MAX_CARDS,
  pendTask,
  putCard,
  putTask,
  settleTask,
  someHidden,
  trim,
  truthOf,
} from "./store";

const task = (change: object = {}): Task => {
  const made = parseTask({ task_id: "t", utterance_id: "a", status: "open", summary: "Bring towels", ...change });
  if (!made) throw new Error("not a task");
  return made;
};
const card = (id: string, change: number, more: object = {}): Card => {
  const made = parseCard({ utterance_id: id, change, spoken_at: at(change), ...more });
  if (!made) throw new Error("not a card");
  return made;
};
const status = (): string | undefined => entryOf("a")?.card.value.tasks[0]?.status;

const at = (second: number): string => new Date(1e12 + second * 1000).toISOString();
const heard = { insights: [{ index: 0, intent: "chatter", urgency: "low" }] };
const shown = (): string[] => boardEntries().map((entry) => entry.id);

beforeEach(() => {
  forgetAll();
  boardRule.value = { recent: 200, done: 100 };
});

describe("store", () => {
  it("keeps the newer of two versions, whatever order they come in", () => {
    putCard(card("a", 5, { text: "new" }), true);
    putCard(card("a", 4, { text: "old" }), true);
    expect(entryOf("a")?.card.value.text).toBe("new");
    putTask(task({ status: "done" }), 3);
    expect(entryOf("a")?.card.value.tasks).toEqual([]);
  });

  it("shows a click at once and takes it back", () => {
    putCard(card("a", 1, { tasks: [task()] }), true);
    const takeBack = pendTask(task(), { status: "done" });
    expect(status()).toBe("done");
    // A renewed insight must not make the click flicker.
    putCard(card("a", 2, { tasks: [task()] }), true);
    expect(status()).toBe("done");
    takeBack();
    expect(status()).toBe("open");
  });

  it("lets what came live outrank the answer to an older click", () => {
    putCard(card("a", 1, { tasks: [task()] }), true);
    const seen = truthOf(task());
    if (!seen) throw new Error("no task");
    putTask(task({ status: "done" }), 7);
    settleTask(task({ status: "acknowledged" }), seen);
    expect(status()).toBe("done");
  });

  it("shows on the board only what belongs there, newest first", () => {
    putCard(card("a", 1), true);
    putCard(card("b", 2), false);
    putCard(card("c", 3), true);
    expect(boardEntries().map((entry) => entry.id)).toEqual(["c", "a"]);
    forgetUnlisted();
    expect(entryOf("b")).toBeUndefined();
  });

  it("stays small over a long shift, and never lets open work go", () => {
    putCard(card("a", 1, { tasks: [task()] }), true);
    for (let change = 2; change <= MAX_CARDS + 1; change++) putCard(card(`u${change}`, change, heard), true);
    trim();
    expect(entryOf("u2")).toBeUndefined();
    expect(entryOf("a")).toBeDefined();
    expect(shown()).toContain("a");
  });

  it("shows the newest, the last done and all work left, whatever else it knows", () => {
    boardRule.value = { recent: 2, done: 1 };
    putCard(card("open", 1, { tasks: [task({ status: "acknowledged" })] }), true);
    putCard(card("nobody-understood", 2), true);
    putCard(card("done-last", 3, { tasks: [task({ status: "done", completed_at: at(90) })] }), true);
    putCard(card("done-before", 4, { tasks: [task({ status: "done", completed_at: at(80) })] }), true);
    putCard(card("said", 5, heard), true);
    expect(someHidden.value).toBe(false);
    putCard(card("newer", 6, heard), true);
    putCard(card("newest", 7, heard), true);
    expect(shown()).toEqual(["newest", "newer", "done-last", "nobody-understood", "open"]);
    expect(someHidden.value).toBe(true);
  });

  it("hides nothing that was just clicked before the server has said when it was done", () => {
    boardRule.value = { recent: 1, done: 1 };
    putCard(card("a", 1, { tasks: [task()] }), true);
    putCard(card("b", 2, { tasks: [task({ task_id: "u", utterance_id: "b", status: "done", completed_at: at(500) })] }), true);
    pendTask(task(), { status: "done", completed_at: at(3) });
    expect(shown()).toEqual(["b", "a"]);
  });
});

describe("the answer to a click", () => {
  it("is taken of a later version, whatever came meanwhile, and not of an earlier one", () => {
    putCard(card("a", 1, { tasks: [task({ version: 3 })] }), true);
    const seen = truthOf(task());
    putCard(card("a", 2, { tasks: [task({ version: 3, rooms: ["412"] })] }), true);
    settleTask(task({ status: "done", version: 4 }), seen);
    expect(status()).toBe("done");
    settleTask(task({ status: "open", version: 3 }), seen);
    settleTask(task({ status: "open" }), seen);
    expect(status()).toBe("done");
  });
});

describe("copies", () => {
  it("stay off the board, unless a person has touched its work", () => {
    const relates_to = { kind: "copy", utterance_id: "a" };
    putCard(card("a", 1, { ...heard, copies: [{ utterance_id: "b", channel: "two" }] }), true);
    putCard(card("b", 2, { ...heard, relates_to }), true);
    expect(shown()).toEqual(["a"]);
    expect(someHidden.value).toBe(false);
    putCard(card("b", 3, { ...heard, relates_to, tasks: [task({ utterance_id: "b", status: "acknowledged" })] }), true);
    expect(shown()).toEqual(["b", "a"]);
    putCard(card("b", 4, heard), true);
    expect(shown()).toEqual(["b", "a"]);
  });
});
