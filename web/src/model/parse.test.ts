import { describe, expect, it } from "vitest";
import { parseCard, parseLive, parsePage, parseTask } from "./parse";
import { parsePrompts } from "./prompts";

describe("parse", () => {
  it("knows the version of a task, or that it does not", () => {
    const version = (sent: unknown): unknown => parseTask({ task_id: "t", utterance_id: "a", version: sent })?.version;
    expect([0, 7, undefined, null, "7", 1.5].map(version)).toEqual([0, 7, null, null, null, null]);
  });

  it("gives harmless values for what an other version of the server leaves out", () => {
    const card = parseCard({ utterance_id: "c:0:0", text: "412 done", insights: [{ urgency: "apocalyptic" }], latency_ms: { stt: null } });
    expect(card).toMatchObject({ utterance_id: "c:0:0", words: [], tasks: [], sample_rate: 16000, latency_ms: {}, sides: {} });
    expect(parseCard({ utterance_id: "c:0:0", latency_ms: { stt: 90, sides: { audio: "monolith", intelligence: 7 } } })).toMatchObject({
      latency_ms: { stt: 90 },
      sides: { audio: "monolith" },
    });
    expect(card?.insights[0]).toMatchObject({ urgency: "normal", rooms: [], evidence: { rooms: [], items: [], urgency: [] } });
  });

  it("says who has corrected the words, and what was heard", () => {
    const corrected = (sent: unknown): unknown => parseCard({ utterance_id: "c:0:0", corrected: sent })?.corrected;
    expect([undefined, null, { by: "Ann", at: "t", heard: "415" }, { by: 7 }].map(corrected)).toEqual([
      null,
      null,
      { by: "Ann", at: "t", heard: "415" },
      { by: "", at: "", heard: "" },
    ]);
  });

  it("refuses what has no identity, and messages that it does not know", () => {
    expect(parseCard({ text: "who?" })).toBeNull();
    expect(parseLive("{")).toBeNull();
    expect(parseLive('{"type":"weather"}')).toBeNull();
    expect(parseLive('{"type":"card","card":{}}')).toBeNull();
    expect(parsePage({ items: [{ utterance_id: "a" }, 7] }, parseCard).items).toHaveLength(1);
  });

  it("takes the classifier from the hello where the health has none", () => {
    const hello = parseLive('{"type":"hello","role":"admin","change":3,"reset":true,"classifier":{"model":"m","source":"llm","degraded":true,"state":"degraded","message":"Away."},"health":{}}');
    expect(hello).toMatchObject({
      role: "admin",
      change: 3,
      reset: true,
      health: { classifier: { model: "m", degraded: true, state: "degraded", message: "Away." } },
    });
  });
});

describe("parsePrompts", () => {
  it("keeps what has an identity and gives harmless values for the rest", () => {
    const prompts = parsePrompts({
      connected: true,
      live: { prompt: { id: "a1", name: "mine" }, weight: 90, event: { action: "sung", at: "t", prompt_id: "a1" } },
      canary: { prompt: { name: "nobody" }, weight: 10 },
      events: [{ at: "2026-05-09T07:00:00Z", prompt_id: "a1", evidence: { against_id: "b2", candidate: { score: 0.5 } } }, { by: "x" }],
    });
    expect(prompts.live).toMatchObject({ prompt: { id: "a1", note: "" }, weight: 90, event: { action: "added", forced: false } });
    expect(prompts.canary).toBeNull();
    expect(prompts.events).toHaveLength(1);
    expect(prompts.events[0]?.evidence).toMatchObject({ against_id: "b2", candidate: { score: 0.5 }, live: { score: 0 }, falls_below: [] });
    expect(parsePrompts(null)).toMatchObject({ connected: false, live: null, events: [] });
  });
});
