import { describe, expect, it } from "vitest";
import { lasting, money } from "./format";
import { parseShift, parseUsage } from "./reports";

describe("reports", () => {
  it("stand even where the server says nothing", () => {
    expect(parseShift(null)).toMatchObject({ requests: 0, open: [], done: { count: 0, p50: null } });
    expect(parseUsage({ state: "odd" })).toMatchObject({ state: "off", days: [], today: { calls: 0, day: "" } });
  });

  it("keep what has not happened apart from what happened at once", () => {
    const task = { task_id: "u:0", utterance_id: "u" };
    const report = parseShift({ emergency: [{ task, seen_after_s: null }, { task, seen_after_s: 0 }, { seen_after_s: 1 }] });
    expect(report.emergency.map((each) => each.seconds)).toEqual([null, 0]);
  });

  it("say how long and how much", () => {
    expect([0.4, 59, 60, 12_000, 187_200].map(lasting)).toEqual(["0 s", "59 s", "1 min", "3 h 20 min", "2 d 4 h"]);
    expect([money(0, "USD"), money(0.00042, "USD"), money(1.5, "")]).toEqual(["0.00 USD", "0.0004 USD", "1.50"]);
  });
});
