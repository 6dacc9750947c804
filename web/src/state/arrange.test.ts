import { describe, expect, it } from "vitest";
import type { TaskStatus } from "../model/protocol";
import { arrange, emptyBoard, GRACE_MS, LINGER_MS, NEW_MS, unseen, type Board, type Hold, type Moment, type Region, type Truth } from "./arrange";
import type { Section } from "./sections";

const START = 1_000_000;
const FREE: Hold = { all: false, regions: new Set() };
const held = (...regions: Region[]): Hold => ({ all: false, regions: new Set(regions) });

const card = (id: string, section: Section | null, spoken: number, status: TaskStatus = "open", more: Partial<Truth<string>> = {}): Truth<string> => ({
  id,
  entry: id,
  section,
  rank: 0,
  spoken,
  seq: 0,
  raw: false,
  statuses: new Map([[`${id}-task`, status]]),
  ...more,
});

/** A board that goes on from what it showed. */
function shift() {
  let board: Board<string> = emptyBoard();
  let first = true;
  return (truths: Truth<string>[], moment: Partial<Moment> = {}): Board<string> => {
    board = arrange(board, truths, { hold: FREE, now: START, again: !first, admit: null, ...moment });
    first = false;
    return board;
  };
}
const ids = (board: Board<string>, section: Section): string[] => board.sections[section].map((item) => item.id);

describe("order", () => {
  it("is oldest first where there is work, and newest first in what is read", () => {
    const board = shift()([card("b", "high", 2), card("a", "high", 1), card("y", "information", 1), card("z", "information", 2)]);
    expect(ids(board, "high")).toEqual(["a", "b"]);
    expect(ids(board, "information")).toEqual(["z", "y"]);
  });

  it("puts danger that somebody has in hand after danger that nobody has", () => {
    const board = shift()([card("a", "critical", 1, "acknowledged", { rank: 1 }), card("b", "critical", 2)]);
    expect(ids(board, "critical")).toEqual(["b", "a"]);
  });
});

describe("newcomers", () => {
  it("come in by themselves where nobody looks, and count as new until they were in view, or for a while", () => {
    const show = shift();
    show([card("a", "normal", 1)]);
    const board = show([card("a", "normal", 1), card("b", "normal", 2)]);
    expect(ids(board, "normal")).toEqual(["a", "b"]);
    const news = (seen: string[], now: number) => unseen(board.sections.normal, new Set(seen), now).map((item) => item.id);
    expect(news([], START)).toEqual(["b"]);
    expect(news(["b"], START)).toEqual([]);
    expect(news([], START + NEW_MS)).toEqual([]);
  });

  it("are all there from the start on the first board, whoever holds it", () => {
    const board = shift()([card("a", "high", 1)], { hold: { all: true, regions: new Set() } });
    expect(ids(board, "high")).toEqual(["a"]);
  });

  it.each<[string, Hold, Section, boolean]>([
    ["in the column under the pointer", held("high"), "high", true],
    ["in another column", held("high"), "normal", false],
    ["above the columns", held("side"), "critical", true],
    ["below what is held", held("top"), "high", false],
    ["beside each other in the same column", held("side"), "done", true],
    ["anywhere while the page is scrolled", { all: true, regions: new Set() }, "normal", true],
  ])("%s", (_, hold, section, waits) => {
    const show = shift();
    show([card("a", "high", 1)]);
    const board = show([card("a", "high", 1), card("b", section, 2)], { hold });
    expect(ids(board, section).includes("b")).toBe(!waits);
    expect(board.waiting[section]).toEqual(waits ? ["b"] : []);
  });

  it("come in when they are asked for, in their section only, and when nobody holds any more", () => {
    const show = shift();
    const truths = [card("a", "high", 1), card("b", "high", 2), card("c", "critical", 3)];
    show(truths.slice(0, 1));
    show(truths, { hold: held("high") });
    const asked = show(truths, { hold: held("high"), admit: "high" });
    expect([ids(asked, "high"), asked.waiting.critical]).toEqual([["a", "b"], ["c"]]);
    expect(ids(show(truths), "critical")).toEqual(["c"]);
  });
});

describe("a card whose task changes", () => {
  it("stays where it was until its time is over, and says what can be undone", () => {
    const show = shift();
    show([card("a", "normal", 1), card("b", "normal", 2)]);
    const closed = [card("a", "done", 1, "done"), card("b", "normal", 2)];
    const stub = show(closed);
    expect(ids(stub, "normal")).toEqual(["a", "b"]);
    expect([...(stub.items.get("a")?.undo ?? [])]).toEqual(["a-task"]);
    expect(stub.due).toBe(START + LINGER_MS);
    expect(ids(show(closed, { now: START + LINGER_MS - 1 }), "normal")).toEqual(["a", "b"]);
    const later = show(closed, { now: START + LINGER_MS });
    expect([ids(later, "normal"), ids(later, "done")]).toEqual([["b"], ["a"]]);
    expect([...(later.items.get("a")?.undo ?? [])]).toEqual([]);
  });

  it("stays longer where somebody holds it, and is no news where it goes", () => {
    const show = shift();
    show([card("a", "normal", 1)]);
    const closed = [card("a", "done", 1, "done")];
    show(closed, { hold: held("normal") });
    const board = show(closed, { hold: held("normal"), now: START + 5 * LINGER_MS });
    expect(ids(board, "normal")).toEqual(["a"]);
    expect(board.waiting.done).toEqual([]);
  });

  it("keeps its place when it is taken back, and its order when it is acknowledged", () => {
    const show = shift();
    show([card("a", "critical", 1), card("b", "critical", 2)]);
    const seen = [card("a", "critical", 1, "acknowledged", { rank: 1 }), card("b", "critical", 2)];
    expect(ids(show(seen), "critical")).toEqual(["a", "b"]);
    expect(ids(show(seen, { now: START + LINGER_MS }), "critical")).toEqual(["b", "a"]);
    const back = show([card("a", "critical", 1), card("b", "critical", 2)], { now: START + LINGER_MS });
    expect(back.items.get("a")?.leaving).toBe(false);
  });

  it("is not new where it was when the page was opened", () => {
    const board = shift()([card("a", "done", 1, "done")]);
    expect([...(board.items.get("a")?.undo ?? [])]).toEqual([]);
    expect(board.due).toBe(Infinity);
  });

  it("that the filters now leave out goes when it may", () => {
    const show = shift();
    show([card("a", "normal", 1)]);
    const gone = [card("a", null, 1, "acknowledged")];
    expect(ids(show(gone), "normal")).toEqual(["a"]);
    expect(ids(show(gone, { now: START + LINGER_MS }), "normal")).toEqual([]);
  });
});

describe("a card that belongs elsewhere", () => {
  it("waits while either place is held, and is announced where it will come", () => {
    const show = shift();
    show([card("a", "normal", 1)]);
    const urgent = [card("a", "critical", 1)];
    const board = show(urgent, { hold: held("high") });
    expect([ids(board, "normal"), board.waiting.critical]).toEqual([["a"], ["a"]]);
    expect(ids(show(urgent), "critical")).toEqual(["a"]);
  });

  it("does not wait for its time when it turns out to be danger", () => {
    const show = shift();
    show([card("a", "normal", 1)]);
    show([card("a", "normal", 1, "acknowledged")]);
    expect(ids(show([card("a", "critical", 1, "acknowledged")]), "critical")).toEqual(["a"]);
  });

  it("is kept while it is held, though the page has let go of it", () => {
    const show = shift();
    show([card("a", "information", 1)]);
    expect(ids(show([], { hold: held("side") }), "information")).toEqual(["a"]);
    expect(ids(show([]), "information")).toEqual([]);
  });
});

describe("a card that waits to be classified", () => {
  it("is shown without after a moment, and at once in its section when it is classified", () => {
    const show = shift();
    const raw = card("a", "information", 1, "open", { raw: true });
    const before = show([raw]);
    expect([ids(before, "information"), before.due]).toEqual([[], START + GRACE_MS]);
    expect(ids(show([card("a", "high", 1)], { now: START + 50 }), "high")).toEqual(["a"]);
    const other = shift();
    other([raw]);
    expect(ids(other([raw], { now: START + GRACE_MS }), "information")).toEqual(["a"]);
  });
});

it("arranging again changes nothing", () => {
  const show = shift();
  show([card("a", "normal", 1), card("b", "high", 2)]);
  const truths = [card("a", "done", 1, "done"), card("b", "high", 2), card("c", "critical", 3)];
  const once = show(truths, { hold: held("normal"), now: START + 5 });
  expect(show(truths, { hold: held("normal"), now: START + 5 })).toEqual(once);
});
