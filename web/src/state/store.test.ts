import { beforeEach, describe, expect, it } from "vitest";
import { parseCard, parseTask } from "../model/parse";
import type { Card, Task } from "../model/protocol";
import { boardEntries, entryOf, forgetAll, forgetUnlisted, MAX_CARDS, pendTask, putCard, putTask, settleTask, trim, truthOf } from "./store";

const task = (change: object = {}): Task => {
  const made = parseTask({ task_id: "t", utterance_id: "a", status: "open", summary: "Bring towels", ...change });
  if (!made) throw new Error("not a task");
  return made;
};
const card = (id: string, change: number, more: object = {}): Card => {
  const made = parseCard({ utterance_id: id, change, spoken_at: new Date(1e12 + change * 1000).toISOString(), ...more });
  if (!made) throw new Error("not a card");
  return made;
};
const status = (): string | undefined => entryOf("a")?.card.value.tasks[0]?.status;

beforeEach(forgetAll);

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
    for (let at = 2; at <= MAX_CARDS + 1; at++) putCard(card(`u${at}`, at), true);
    trim();
    expect(boardEntries().length).toBeLessThan(MAX_CARDS);
    expect(entryOf("a")).toBeDefined();
    expect(entryOf("u2")).toBeUndefined();
  });
});
