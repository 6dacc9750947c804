import { describe, expect, it } from "vitest";
import { age, duration, seconds } from "./format";

describe("format", () => {
  const now = Date.parse("2025-06-01T12:00:00Z");

  it("says how long ago in the coarsest unit that helps", () => {
    const ago = (s: number): string => age(new Date(now - s * 1000).toISOString(), now);
    expect([3, 45, 190, 7300, 200_000].map(ago)).toEqual(["now", "40 s", "3 min", "2 h", "2 d"]);
    expect(age("nonsense", now)).toBe("");
  });

  it("writes durations as they are compared", () => {
    expect([1.24, 84, 999.4, 999.6, 1240, 12_400].map(duration)).toEqual(["1.2 ms", "84 ms", "999 ms", "1.00 s", "1.24 s", "12.4 s"]);
  });

  it("counts samples in seconds at the client's rate", () => {
    expect(seconds(12_000, 8000)).toBe("1.5 s");
    expect(seconds(16_000 * 725, 16_000)).toBe("12 min 05 s");
    expect(seconds(5, 0)).toBe("0.0 s");
  });
});
