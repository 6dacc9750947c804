import { describe, expect, it } from "vitest";
import { parseCard } from "../model/parse";
import type { Card, TaskStatus, Urgency } from "../model/protocol";
import { NO_FILTERS, passes, sectionOf, workload } from "./sections";

function card(insights: Urgency[], tasks: [Urgency, TaskStatus][] = [], more: object = {}): Card {
  const made = parseCard({
    utterance_id: "c:0:0",
    channel: "ops",
    insights: insights.map((urgency, index) => ({ index, urgency, department: index === 0 ? "security" : "housekeeping" })),
    tasks: tasks.map(([urgency, status], at) => ({
      task_id: `t${at}`,
      utterance_id: "c:0:0",
      insight_index: at,
      urgency,
      status,
      department: at === 0 ? "security" : "housekeeping",
    })),
    ...more,
  });
  if (!made) throw new Error("not a card");
  return made;
}

describe("sectionOf", () => {
  it.each([
    ["waits to be classified", card([]), "unclassified"],
    ["failed to be written, as an older server says it", card([], [], { unintelligible: true }), "information"],
    ["is in another language", card([], [], { status: "not_english" }), "information"],
    ["asks for nothing", card(["high"]), "information"],
    ["is danger, task or not", card(["critical"]), "critical"],
    ["has low work", card(["low"], [["low", "open"]]), "normal"],
    ["is as urgent as what is left", card(["critical", "normal"], [["critical", "done"], ["normal", "acknowledged"]]), "normal"],
    ["is over when all is done", card(["critical"], [["critical", "done"]]), "done"],
  ] as const)("a card that %s", (_, given, section) => {
    expect(sectionOf(given)).toBe(section);
  });
});

describe("filters and workload", () => {
  const both = card(["critical", "normal"], [["critical", "open"], ["normal", "done"]]);

  it("finds a card by any of its departments and any of its tasks", () => {
    expect(passes(both, NO_FILTERS)).toBe(true);
    expect(passes(both, { ...NO_FILTERS, department: "housekeeping", status: "done" })).toBe(true);
    expect(passes(both, { ...NO_FILTERS, status: "acknowledged" })).toBe(false);
    expect(passes(both, { ...NO_FILTERS, channel: "other" })).toBe(false);
  });

  it("counts what is left to do", () => {
    const load = workload([both, card(["high"], [["high", "acknowledged"]])]);
    expect(load.get("")).toEqual({ open: 2, critical: 1 });
    expect(load.get("security")).toEqual({ open: 2, critical: 1 });
    expect(load.has("housekeeping")).toBe(false);
  });
});
