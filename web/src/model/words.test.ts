import { describe, expect, it } from "vitest";
import { parseCard } from "./parse";
import { copiesWords } from "./words";

const heardBy = (...copies: object[]): string | null => {
  const whole = copies.map((copy, at) => Object.assign({ utterance_id: `u${at}`, conversation_id: `c${at}`, channel: "one" }, copy));
  const card = parseCard({ utterance_id: "a", conversation_id: "c", channel: "one", copies: whole });
  if (!card) throw new Error("not a card");
  return copiesWords(card);
};

describe("receivers of one transmission", () => {
  it("are named by channel, receiver or speaker", () => {
    expect(heardBy()).toBeNull();
    expect(heardBy({ channel: "pool_bar" })).toBe("Also heard on Pool bar");
    expect(heardBy({})).toBe("Also heard by another receiver");
    expect(heardBy({ conversation_id: "c", speaker: 1 })).toBe("Also heard by speaker 2");
    expect(heardBy({}, {}, { channel: "two" }, { channel: "three" })).toBe("Also heard by another receiver, on Two and on Three");
  });
});
