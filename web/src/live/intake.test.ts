import { beforeEach, describe, expect, it, vi } from "vitest";
import { parseLive } from "../model/parse";
import * as app from "../state/app";
import { onAir, tileOf } from "../state/captions";
import { boardEntries } from "../state/store";
import { isUnconfirmed } from "../state/unconfirmed";

vi.stubGlobal("document", { hidden: false, addEventListener: () => {} });
vi.stubGlobal("requestAnimationFrame", (call: () => void) => call());
const { after, forgetEverything, take } = await import("./intake");

function say(message: object): void {
  const parsed = parseLive(JSON.stringify(message));
  if (!parsed) throw new Error("not a message");
  take(parsed, 0);
}
const hello = (change: number, reset: boolean, side = "one"): void =>
  say({ type: "hello", side, change, reset, role: "read", site: "main", conversations: [], board: { recent: 5, done: 5 } });
const card = (id: string, change: number): void =>
  say({ type: "card", card: { utterance_id: id, change, spoken_at: `2026-05-09T07:00:0${change % 10}.000Z` } });
const cards = (...named: [string, number][]): void =>
  say({ type: "cards", cards: named.map(([id, change]) => ({ utterance_id: id, change, spoken_at: `2026-05-09T07:00:0${change % 10}.000Z` })) });
const shown = (): string[] => boardEntries().map((entry) => entry.id);

describe("intake", () => {
  beforeEach(forgetEverything);

  it("shows what the server sends first when it is complete, and not before", () => {
    hello(7, true);
    cards(["a", 7], ["b", 3]);
    expect(shown()).toEqual([]);
    expect(app.caughtUp.value).toBe(false);
    say({ type: "replayed", change: 7, left_out: { low: 4, older: true } });
    expect(shown()).toEqual(["a", "b"]);
    expect(app.caughtUp.value).toBe(true);
    expect(app.leftOut.value).toMatchObject({ low: 4, critical: 0, older: true });
    expect(after()).toBe("one:7");
  });

  it("asks for all of it again where the connection broke before that", () => {
    hello(7, true);
    card("a", 7);
    expect(after()).toBeNull();
    hello(8, true);
    card("a", 7);
    card("b", 8);
    say({ type: "replayed", change: 8, left_out: null });
    expect(shown()).toEqual(["b", "a"]);
    hello(9, false);
    card("c", 9);
    expect(after()).toBe("one:8");
  });

  it("keeps the board as it was until a new one is complete", () => {
    hello(1, true);
    card("a", 1);
    say({ type: "replayed", change: 1, left_out: null });
    hello(5, true);
    card("b", 5);
    expect(shown()).toEqual(["a"]);
    say({ type: "replayed", change: 5, left_out: null });
    expect(shown()).toEqual(["b"]);
  });

  it("goes on where it was, and takes what happens at once", () => {
    hello(1, true);
    card("a", 1);
    say({ type: "replayed", change: 1, left_out: { normal: 3 } });
    hello(2, false);
    card("b", 2);
    say({ type: "replayed", change: 2, left_out: null });
    card("c", 3);
    expect(shown()).toEqual(["c", "b", "a"]);
    expect(app.leftOut.value).toMatchObject({ normal: 3 });
    expect(after()).toBe("one:3");
  });

  it("names the side whose changes it has, and counts those of another one anew", () => {
    hello(900, true);
    say({ type: "replayed", change: 900, left_out: null });
    hello(5, true, "two");
    say({ type: "cards", cards: [] });
    expect(after()).toBe("one:900");
    say({ type: "replayed", change: 5, left_out: null });
    expect(after()).toBe("two:5");
    hello(6, true, "");
    say({ type: "replayed", change: 6, left_out: null });
    expect(after()).toBe("6");
  });

  it("takes the first health for the end where an older server does not say it", () => {
    hello(1, true);
    card("a", 1);
    say({ type: "health", health: {} });
    expect(shown()).toEqual(["a"]);
    expect(after()).toBe("one:1");
  });
});

describe("another side", () => {
  beforeEach(forgetEverything);

  it("keeps what is just being said when another side shows the page, and what was said in between", () => {
    const talk = (id: string) => ({ conversation_id: id, channel: id, state: "live", change: 1 });
    const greet = (change: number, side: string, ...ids: string[]): void => {
      say({ type: "hello", side, change, reset: true, role: "read", site: "main", conversations: ids.map(talk), board: { recent: 5, done: 5 } });
      say({ type: "replayed", change, left_out: null });
    };
    const caption = (id: string, text: string, final: boolean, emergency = false): void =>
      say({ type: "caption", conversation_id: id, channel: id, speaker: 0, start_offset: 9, text, final, utterance_id: `${id}:0:9`, emergency });
    const said = (id: string): [string, boolean][] => tileOf(id)?.value.lines.map((line) => [line.text, line.final]) ?? [];
    greet(7, "one", "lobby", "over");
    caption("lobby", "a big coffee", false);
    caption("lobby", "There is a fire", false, true);
    caption("over", "thanks", true);
    greet(900, "two", "lobby");
    expect([said("lobby"), said("over"), onAir.value]).toEqual([[["There is a fire", false]], [], ["lobby"]]);
    expect(isUnconfirmed("lobby:0:9")).toBe(true);
    caption("lobby", "There is a fire in the kitchen", true);
    expect(said("lobby")).toEqual([["There is a fire in the kitchen", true]]);
  });
});
