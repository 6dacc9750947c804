import { describe, expect, it } from "vitest";
import { parseCard } from "../model/parse";
import type { Card } from "../model/protocol";
import {
  AGAIN_MS,
  BURST_MS,
  MAX_RINGS,
  nextRing,
  reconnected,
  SILENT,
  step,
  TASKLESS_MS,
  unseenCriticals,
  type Ringing,
  type Unseen,
} from "./attention";

const NOW = Date.parse("2026-05-01T14:32:00Z");
const insight = (index: number, urgency: string): object => ({ index, urgency, summary: `Summary ${index}`, department: "security" });
const task = (id: string, index: number, urgency: string, status: string): object => ({
  task_id: id,
  utterance_id: "u",
  insight_index: index,
  urgency,
  status,
  summary: id,
});
const card = (id: string, insights: object[], tasks: object[], agoMs = 1_000): Card => {
  const made = parseCard({ utterance_id: id, change: 1, spoken_at: new Date(NOW - agoMs).toISOString(), insights, tasks });
  if (!made) throw new Error("not a card");
  return made;
};
const keys = (cards: Card[], seen: string[] = []): string[] => unseenCriticals(cards, new Set(seen), NOW).map((each) => each.key);

describe("which criticals are unseen", () => {
  it("are those with an open task, the oldest first, whatever else the card asks for", () => {
    const newer = card("b", [insight(0, "critical"), insight(1, "normal")], [task("t2", 0, "critical", "open"), task("t3", 1, "normal", "open")]);
    const older = card("a", [insight(0, "critical")], [task("t1", 0, "critical", "open")], 60_000);
    expect(keys([newer, older])).toEqual(["t1", "t2"]);
  });

  it.each(["acknowledged", "done"])("are none with a task that is %s", (status) => {
    expect(keys([card("a", [insight(0, "critical")], [task("t", 0, "critical", status)])])).toEqual([]);
  });

  it("are none of high urgency or below", () => {
    expect(keys([card("a", [insight(0, "high")], [task("t", 0, "high", "open")])])).toEqual([]);
  });

  it("are those without a task, until they are marked as seen or the shift is over", () => {
    const found = unseenCriticals([card("a", [insight(0, "critical")], [])], new Set(), NOW);
    expect(found.map((each) => [each.key, each.task])).toEqual([["a#0", null]]);
    expect(keys([card("a", [insight(0, "critical")], [])], ["a#0"])).toEqual([]);
    expect(keys([card("a", [insight(0, "critical")], [], TASKLESS_MS)])).toEqual([]);
  });

  it("are still those with an open task after any time", () => {
    expect(keys([card("a", [insight(0, "critical")], [task("t", 0, "critical", "open")], 10 * TASKLESS_MS)])).toEqual(["t"]);
  });
});

const live = (...names: string[]): Unseen[] => names.map((key) => ({ key, live: true }));
const found = (...names: string[]): Unseen[] => names.map((key) => ({ key, live: false }));

/** Steps through time; the times at which it rang. */
function rings(steps: [at: number, unseen: Unseen[]][], start: Ringing = SILENT): number[] {
  let ringing = start;
  const rang: number[] = [];
  for (const [at, unseen] of steps) {
    const next = step(ringing, unseen, at);
    if (next.ring) rang.push(at);
    ringing = next.ringing;
  }
  return rang;
}

describe("when to sound", () => {
  it("is at once for a new one, and never without one", () => {
    expect(rings([[0, []], [5, live("a")], [6, live("a")], [7, []]])).toEqual([5]);
  });

  it("is again every so often while nobody acknowledges, and not for ever", () => {
    const steps = Array.from({ length: 600 }, (_, at): [number, Unseen[]] => [at * 1_000, live("a")]);
    expect(rings(steps)).toEqual(Array.from({ length: MAX_RINGS }, (_, nth) => nth * AGAIN_MS));
  });

  it("is never after it was acknowledged", () => {
    expect(rings([[0, live("a")], [1_000, []], [AGAIN_MS, []], [2 * AGAIN_MS, []]])).toEqual([0]);
  });

  it("is anew for another one, even when the first has rung for the last time", () => {
    const worn: Ringing = { known: new Set(["a"]), foundRung: true, rungAt: 0, rings: MAX_RINGS, owed: false };
    expect(nextRing(worn)).toBeNull();
    expect(rings([[90_000, live("a", "b")], [90_000 + AGAIN_MS, live("a", "b")]], worn)).toEqual([90_000, 90_000 + AGAIN_MS]);
  });

  it("is twice for a burst, for the first and for the last of it", () => {
    const burst: [number, Unseen[]][] = [[0, live("a")], [500, live("a", "b")], [BURST_MS - 1, live("a", "b", "c")]];
    expect(rings([...burst, [BURST_MS, live("a", "b", "c")], [BURST_MS + AGAIN_MS - 1, live("a", "b", "c")]])).toEqual([0, BURST_MS]);
  });

  it("is not owed any more for what was acknowledged meanwhile", () => {
    expect(rings([[0, live("a")], [500, live("a", "b")], [1_000, []], [BURST_MS, []], [2 * BURST_MS, []]])).toEqual([0]);
  });

  it("is once after a load, however slowly the cards come in, and not once a card", () => {
    const slow: [number, Unseen[]][] = [[0, found("a")], [2 * BURST_MS, found("a", "b")], [4 * BURST_MS, found("a", "b", "c")]];
    expect(rings(slow)).toEqual([0]);
  });

  it("is at once for a live one among those that were there", () => {
    expect(rings([[0, found("a")], [5_000, [...found("a"), ...live("b")]]])).toEqual([0, 5_000]);
  });

  it("is once more after the connection was lost, if there is something new", () => {
    const connected = step(SILENT, found("a"), 0).ringing;
    expect(step(reconnected(connected), found("a"), 5_000).ring).toBe(false);
    const again = step(reconnected(connected), found("a", "b", "c"), 5_000);
    expect([again.ring, again.fresh]).toEqual([true, ["b", "c"]]);
    expect(step(again.ringing, found("a", "b", "c", "d"), 10_000).ring).toBe(false);
  });

  it("names those that are new, for a notification each", () => {
    const first = step(SILENT, live("a"), 0);
    expect(first.fresh).toEqual(["a"]);
    expect(step(first.ringing, live("a", "b"), 100).fresh).toEqual(["b"]);
    expect(step(first.ringing, live("a"), AGAIN_MS)).toMatchObject({ ring: true, fresh: [] });
  });
});
