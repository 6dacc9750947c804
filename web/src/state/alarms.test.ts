import { describe, expect, it } from "vitest";
import { parseHealth } from "../model/parse";
import type { Health } from "../model/protocol";
import { alarmLines } from "./alarms";

const alarm = (code: string, message = "Something technical (stage)."): object => ({ code, message, since: "2026-05-01T14:00:00Z" });
const health = (more: object = {}): Health => parseHealth({ status: "ok", ...more });
const codes = (told: Health | null, lost: string | null = null): string[] => alarmLines(told, lost, "14:32:10").map((each) => each.code);

describe("alarms", () => {
  it("are none where all is well, and none before anything is known", () => {
    expect(codes(null)).toEqual([]);
    expect(codes(health())).toEqual([]);
  });

  it("are not raised by stages over their budgets or by waiting speech: the server says whether cards come late", () => {
    const stage = { stage: "painted", count: 90, p50_ms: 90, p95_ms: 259, p99_ms: 400, budget_ms: 50, breach: "Showing it takes 259 ms." };
    expect(codes(health({ stages: [stage, { ...stage, stage: "total" }], stt_backlog_s: 9 }))).toEqual([]);
  });

  it("say in one line that cards come late, and what that means", () => {
    const [late] = alarmLines(health({ alarms: [alarm("cards.late", "Running behind: cards come about 3 s late.")] }), null, "");
    expect(late?.text).toBe("Running behind: cards come about 3 s late. Listen to the radio for what is urgent.");
    expect(late?.grave).toBe(false);
  });

  it("come the gravest first", () => {
    const told = health({ alarms: ["history.lacking", "language_model", "cards.late", "new.one", "intelligence.away", "audio.away"].map((code) => alarm(code)) });
    expect(codes(told, "Connection lost")).toEqual(["connection", "audio.away", "intelligence.away", "new.one", "cards.late", "language_model", "history.lacking"]);
  });

  it("keep the server's words for the Health panel, and show them where there are no better ones", () => {
    const [known, unknown] = alarmLines(health({ alarms: [alarm("intelligence.away"), alarm("new.one", "The lift is stuck.")] }), null, "");
    expect(known?.text).not.toContain("stage");
    expect(known?.detail).toBe("Something technical (stage).");
    expect(unknown?.text).toBe("The lift is stuck.");
  });

  it("have words for what the store and the disk can say", () => {
    for (const code of ["disk.full", "store.not_written", "bus.outbox", "bus.memory", "bus.dead_letters"]) {
      const [told] = alarmLines(health({ alarms: [alarm(code)] }), null, "");
      expect(told?.short).not.toBe("Alarm");
      expect(told?.text).not.toContain("technical");
    }
  });

  it("lead to the operations where one waits for a decision", () => {
    const [told, other] = alarmLines(health({ alarms: [alarm("operations.parked"), alarm("history.lacking")] }), null, "");
    expect([told?.code, told?.link, told?.grave]).toEqual(["operations.parked", "#/operations", false]);
    expect(other?.link).toBeNull();
  });

  it("say once that the language model is away", () => {
    const classifier = { degraded: true, state: "degraded", message: "It does not answer." };
    expect(codes(health({ classifier }))).toEqual(["classifier"]);
    expect(codes(health({ classifier, alarms: [alarm("language_model")] }))).toEqual(["language_model"]);
  });

  it("say since when what is seen is old", () => {
    expect(alarmLines(null, "This device is offline", "14:32:10")[0]?.text).toContain("This device is offline. What you see is as of 14:32:10");
  });
});
