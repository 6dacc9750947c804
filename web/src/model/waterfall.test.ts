import { describe, expect, it } from "vitest";
import { parseHealth } from "./parse";
import { culprit, waterfall } from "./waterfall";

describe("waterfall", () => {
  const latency = { endpoint: 500, stt: 300, store: 200, total: 1000 };

  it("has each stage begin where the one before ends", () => {
    const steps = waterfall(latency, { stt: 200, store: 35 }, null);
    expect(steps.map(({ stage, start, width }) => [stage, start, width])).toEqual([
      ["endpoint", 0, 50],
      ["stt", 50, 30],
      ["store", 80, 20],
    ]);
  });

  it("names the stage that is furthest over its budget", () => {
    expect(culprit(waterfall(latency, { endpoint: 600, stt: 200, store: 35 }, null))?.stage).toBe("store");
    expect(culprit(waterfall(latency, { painted: 50 }, 60))?.stage).toBe("painted");
    expect(culprit(waterfall(latency, {}, 20))).toBeNull();
    expect(waterfall({}, {}, null)).toEqual([]);
  });
});

describe("parseHealth", () => {
  it("links only to web addresses, and takes stages that have a name", () => {
    expect(parseHealth({ trace_url: "javascript:alert(1)" }).trace_url).toBeNull();
    expect(parseHealth({ trace_url: "http://127.0.0.1:16686/trace/{trace_id}" }).trace_url).toContain("16686");
    const health = parseHealth({ budget: { stt: 200, painted: 50 }, stages: [{ stage: "stt", p95_ms: 300, breach: "Slow." }, {}] });
    expect(health.budget).toEqual({ stt: 200, painted: 50 });
    expect(health.stages).toMatchObject([{ stage: "stt", p95_ms: 300, breach: "Slow.", count: 0 }]);
  });
});
