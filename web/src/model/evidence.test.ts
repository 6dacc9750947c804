import { describe, expect, it } from "vitest";
import { pieces } from "./evidence";

const evidence = (change: object) => ({ rooms: [], items: [], urgency: [], ...change });

describe("pieces", () => {
  it("gives the text back whole, whatever is marked", () => {
    const text = "Smoke by 914 – get people out! <b>now</b> 🔥";
    const found = pieces(text, [evidence({ rooms: ["914"], urgency: ["Smoke", "get people out"] })], []);
    expect(found.map((piece) => piece.text).join("")).toBe(text);
    expect(found.filter((piece) => piece.kind === "urgency").map((piece) => piece.text)).toEqual(["Smoke", "get people out"]);
  });

  it("prefers a quotation that stands alone over one inside a longer number", () => {
    const found = pieces("not 412, 12 needs towels", [evidence({ rooms: ["12"] })], []);
    expect(found.map((piece) => [piece.text, piece.kind])).toEqual([
      ["not 412, ", null],
      ["12", "rooms"],
      [" needs towels", null],
    ]);
  });

  it("marks nothing for words that were not said", () => {
    expect(pieces("towels please", [evidence({ items: ["robe", ""] })], [])).toEqual([{ text: "towels please", kind: null, unsure: false }]);
  });

  it("shows which words were not heard clearly, in their place", () => {
    const word = (text: string, confidence: number) => ({ text, confidence, start_offset: 0, end_offset: 1 });
    const found = pieces("two to two", [], [word(" two", 0.9), word(" to", 0.9), word(" two", 0.2)]);
    expect(found).toEqual([
      { text: "two to ", kind: null, unsure: false },
      { text: "two", kind: null, unsure: true },
    ]);
  });
});
