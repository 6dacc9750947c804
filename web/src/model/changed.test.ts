import { describe, expect, it } from "vitest";
import { changedWords, parseChanged } from "./changed";
import { clockTime } from "./format";
import { parseTask } from "./parse";

const AT = "2026-05-09T07:35:00.000Z";
const NOW = Date.parse(AT) + 60_000;
const TASK = { task_id: "t", utterance_id: "a", status: "open", summary: "Bring towels to 412", version: 1 };

function words(seen: object, now: object, by = "Ann", at = AT): string {
  const before = parseTask({ ...TASK, ...seen });
  const changed = parseChanged({ task: { ...TASK, ...now }, changed_by: by, changed_at: at });
  if (!before || !changed) throw new Error("not a task");
  return changedWords(before, changed, NOW);
}

describe("who was first", () => {
  const time = clockTime(AT, NOW, false);

  it("is said with what they did, and when", () => {
    expect(words({}, { status: "done" })).toBe(`Ann marked “Bring towels to 412” as done at ${time}, before you. It stays that way.`);
    expect(words({}, { status: "acknowledged" })).toContain(`Ann acknowledged “Bring towels to 412” at ${time}, before you.`);
    expect(words({ status: "done" }, {})).toContain("Ann reopened “Bring towels to 412” at");
    expect(words({}, { assignee: "Maria" })).toContain("Ann assigned “Bring towels to 412” to Maria at");
    expect(words({ assignee: "Maria" }, {})).toContain("Ann took “Bring towels to 412” back from Maria at");
    expect(words({ status: "done" }, { status: "done", version: 3 })).toContain("Ann changed “Bring towels to 412” at");
  });

  it("may be a voice, or nobody known", () => {
    expect(words({}, { status: "done", completed_by_utterance: "b" })).toContain(`“Bring towels to 412” was reported as done on the air at ${time}, before you.`);
    expect(words({}, { status: "done" }, "", "")).toBe("Somebody marked “Bring towels to 412” as done, before you. It stays that way.");
    expect(words({ status: "done" }, {}, "")).toContain("“Bring towels to 412” was opened again by what was said at");
    expect(parseChanged({ changed_by: "Ann" })).toBeNull();
  });
});
