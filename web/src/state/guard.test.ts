import { describe, expect, it } from "vitest";
import { isAccident, UNSEEN_MS } from "./guard";

const CLICK = { x: 100, y: 100 };

describe("isAccident", () => {
  it.each([
    ["a button that came under a resting pointer just now", { at: 0, pointer: { x: 101, y: 99 } }, 120, true],
    ["the same a little later", { at: 0, pointer: { x: 101, y: 99 } }, UNSEEN_MS - 1, true],
    ["the same when there was time to see it", { at: 0, pointer: { x: 101, y: 99 } }, UNSEEN_MS, false],
    ["a pointer that went to the button afterwards", { at: 0, pointer: { x: 300, y: 99 } }, 120, false],
    ["no pointer yet", { at: 0, pointer: null }, 120, false],
    ["a button that was always there", undefined, 120, false],
  ])("%s", (_, arrival, now, ignored) => {
    expect(isAccident(arrival, CLICK, now)).toBe(ignored);
  });
});
