import { describe, expect, it } from "vitest";
import { parseMigration, type Migration, type Module } from "./migration";
import { bothOf, bothOver, sampled, shareOver, takenBack, WINDOW_MS } from "./sides";
import { actionsFor, consequence, isAway, nextStep, servesWords, shareOf, spiteOf, stageName, stepOf, STEPS, withoutFlags } from "./steps";

const NOW = 1_800_000_000_000;
const ns = (before_s: number): number => (NOW - 1000 * before_s) * 1_000_000;

const parsed = (modules: unknown[], rest: object = {}): Migration => {
  const found = parseMigration({ version: 7, epoch: 1, in_force: true, followers: { edge: 7 }, ...rest, modules });
  if (found === null) throw new Error("nothing was parsed");
  return found;
};
const module = (fields: object = {}): Module => {
  const [found] = parsed([{ name: "dashboard", ...fields }]).modules;
  if (!found) throw new Error("no module was parsed");
  return found;
};
const published = (id: number, before_s: number, before: string, after: string, action = "publish") => ({
  id,
  at_ns: ns(before_s),
  who: "ada",
  name: "dashboard",
  action,
  before,
  after,
  version: id,
});

describe("parseMigration", () => {
  it("is nothing where no module is being moved", () => {
    for (const raw of [null, {}, { modules: [] }, { modules: [{ mode: "full" }, 7] }]) expect(parseMigration(raw)).toBeNull();
  });

  it("gives shares in per cent and times in milliseconds", () => {
    const found = module({ mode: "canary", weight: 2500, since_ns: ns(60), gate: "pass", goal: "service" });
    expect(found).toMatchObject({ mode: "canary", weight: 25, gate: "pass", goal: "service", paused: false, figures: [] });
    expect(Math.round(found.since)).toBe(NOW - 60_000);
  });

  it("gives harmless values for what another version says", () => {
    const found = module({ mode: "sideways", gate: "odd", figures: [{ outcome: "pass" }, { name: "errors", outcome: "odd", in_s: "9" }] });
    expect(found).toMatchObject({ mode: "off", gate: "wait", figures: [{ name: "errors", outcome: "wait", missing: null, in_s: null }] });
    const status = parsed([{ name: "audio" }], { followers: null, audit: [{ who: "x" }, published(1, 5, "off", "shadow")] });
    expect(status).toMatchObject({ followers: null, behind: [], audit: [{ who: "ada", why: "", evidence: [] }] });
  });
});

describe("overrides", () => {
  it("are those of a module, with a harmless value for what another version says", () => {
    const { overrides } = module({ overrides: [{ kind: "channel", of: "desk", side: "service", by: "ada", why: "loud" }, { of: "x", kind: "odd" }, { kind: "site" }] });
    expect(overrides).toEqual([
      { kind: "channel", of: "desk", side: "service", by: "ada", why: "loud" },
      { kind: "conversation", of: "x", side: "monolith", by: "", why: "" },
    ]);
  });
});

describe("the kill switch", () => {
  it("is one for all, and there where something is away from the monolith", () => {
    expect(actionsFor(module({ mode: "full", weight: 10_000, goal: "service" }))).not.toContain("kill");
    expect([module(), module({ mode: "shadow" }), module({ change: "start to shadow" })].map(isAway)).toEqual([false, true, true]);
    expect(parsed([{ name: "audio" }], { notes: ["canary 1 % is skipped", 7] }).notes).toEqual(["canary 1 % is skipped"]);
  });
});

describe("steps", () => {
  it("are found from mode and share, also from one between", () => {
    const at = (mode: Module["mode"], weight = 0): string | undefined => STEPS[stepOf({ mode, weight })]?.name;
    expect([at("off"), at("shadow"), at("full", 100), at("retired", 100)]).toEqual(["off", "shadow", "full", "retired"]);
    expect([1, 5, 24, 25, 80].map((weight) => at("canary", weight))).toEqual([
      "canary 1 %",
      "canary 5 %",
      "canary 5 %",
      "canary 25 %",
      "canary 50 %",
    ]);
    expect(stageName({ mode: "canary", weight: 5 })).toBe("canary 5 %");
  });

  it("have the share that the audit's words mean", () => {
    expect(["off", "shadow", "canary 25 %", "full", "full, the monolith decides", "somewhere", "canary 5 % of service@0.2.0-3f2a91"].map(shareOf)).toEqual([0, 0, 25, 100, 100, null, 5]);
  });

  it("lead to the goal and end there", () => {
    expect(nextStep(module({ mode: "shadow", goal: "service" }))).toBe(2);
    expect(nextStep(module({ mode: "shadow", goal: "monolith" }))).toBe(0);
    expect(nextStep(module({ mode: "retired", weight: 10_000, goal: "service" }))).toBeNull();
    expect(nextStep(module())).toBeNull();
  });

  it("say who serves what", () => {
    expect(servesWords(module())).toBe("The monolith serves all page sessions. There is no service.");
    expect(servesWords(module({ mode: "canary", weight: 500, goal: "service" }))).toBe(
      "The service serves 5 % of the page sessions, the monolith 95 %; the monolith decides.",
    );
    expect(servesWords(module({ name: "audio", mode: "full", weight: 10_000, decides: "service" }))).toBe(
      "The service serves all conversations.",
    );
    expect(servesWords(module({ name: "intelligence", mode: "full", weight: 10_000, decides: "service" }))).toBe(
      "The service serves all conversations; the service decides.",
    );
    const release = { name: "intelligence", base: "service", candidate: "service@0.2.0-3f2a91", goal: "service@0.2.0-3f2a91", decides: "service" };
    expect(servesWords(module({ ...release, mode: "canary", weight: 500 }))).toBe(
      "Release 0.2.0-3f2a91 serves 5 % of the conversations, the service 95 %; the service decides.",
    );
    expect(module(release).goal).toBe("service");
    expect(module({ ...release, goal: "service" }).goal).toBe("monolith");
  });
});

describe("what can be done", () => {
  it("is what applies, and no more", () => {
    expect(actionsFor(module())).toEqual(["start"]);
    expect(actionsFor(module({ paused: true }))).toEqual(["resume"]);
    const canary = { mode: "canary", weight: 500, goal: "service" };
    expect(actionsFor(module(canary))).toEqual(["step", "promote", "rollback", "pause", "auto", "return"]);
    expect(actionsFor(module({ ...canary, paused: true, auto: true }))).toEqual(["rollback", "resume", "manual", "return"]);
    expect(actionsFor(module({ mode: "full", weight: 10_000, goal: "service" }))).toEqual(["step", "rollback", "pause", "auto", "return"]);
    expect(actionsFor(module({ mode: "retired", weight: 10_000, goal: "service" }))).toEqual(["rollback", "return"]);
    expect(actionsFor(module({ ...canary, goal: "monolith" }))).toEqual(["start", "step", "rollback"]);
  });

  it("is only the way back while a change is under way, and nothing new on that way", () => {
    expect(actionsFor(module({ goal: "service", change: "start to shadow" }))).toEqual(["rollback", "pause", "auto"]);
    expect(actionsFor(module({ mode: "canary", weight: 500, change: "rollback to shadow" }))).toEqual([]);
  });

  it("says what comes of it", () => {
    expect(consequence(module({ mode: "shadow", goal: "service" }), "step")).toContain("to canary 1 %, if the gate allows it");
    expect(consequence(module({ mode: "canary", weight: 100 }), "step")).toContain("to shadow. On the way back no gate is asked");
  });

  it("goes on in spite of the gate, or of the order, only where that was the reason", () => {
    expect(spiteOf("step", "migration.gate")).toBe("Go on in spite of the gate");
    expect(spiteOf("start", "migration.refused")).toContain("order of the modules");
    expect(spiteOf("step", "migration.refused")).toBe("");
    expect(spiteOf("rollback", "bus.unavailable")).toBe("");
  });

  it("leaves out the flags of the command line", () => {
    const gate = "dashboard stays at shadow. The gate has not passed yet: queue age: 9.5 s, at most 8.0 s. Use --force to go on in spite of it.";
    expect(withoutFlags(gate)).toBe("dashboard stays at shadow. The gate has not passed yet: queue age: 9.5 s, at most 8.0 s.");
    const order = "dashboard goes before audio, and is shadow. Bring it to full first, or use: quickcomm migrate start --force";
    expect(withoutFlags(order)).toBe("dashboard goes before audio, and is shadow. Bring it to full first");
  });
});

describe("the graph", () => {
  const audit = parsed([{ name: "dashboard" }], {
    audit: [
      published(3, 60, "canary 25 %", "shadow"),
      published(2, 61, "canary 25 %", "shadow", "rollback"),
      published(1, 300, "shadow", "canary 25 %"),
    ],
  }).audit;
  const shares = (points: { at: number; share: number }[]): [number, number][] => points.map(({ at, share }) => [Math.round((NOW - at) / 1000), share]);

  it("has the time before the page was opened from the audit", () => {
    expect(shares(shareOver("dashboard", audit, [], NOW))).toEqual([
      [WINDOW_MS / 1000, 0],
      [300, 25],
      [60, 0],
    ]);
    expect(takenBack("dashboard", audit, NOW).map((entry) => entry.id)).toEqual([2]);
    expect(shareOver("audio", audit, [], NOW)).toEqual([]);
  });

  it("begins with the share that there was when the window began", () => {
    const later = NOW + WINDOW_MS - 120_000;
    expect(shareOver("dashboard", audit, [], later).map((point) => point.share)).toEqual([25, 0]);
  });

  it("has from what the page saw what the audit does not have any more", () => {
    let samples = sampled([], parsed([{ name: "audio", mode: "canary", weight: 500 }]), NOW - 30_000);
    samples = sampled(samples, parsed([{ name: "audio", mode: "canary", weight: 2500 }]), NOW - 10_000);
    expect(shareOver("audio", audit, samples, NOW).map((point) => point.share)).toEqual([5, 25]);
  });

  it("has both sides of a figure, where both are measured", () => {
    const raw = (name: string, service: number | null, monolith: number | null, more: object = {}) => ({
      name,
      outcome: "wait",
      numbers: [{ unit: "ms", outcome: "wait", service: { value: service }, monolith: monolith === null ? null : { value: monolith }, ...more }],
    });
    const both = (figure: object): object[] => module({ figures: [figure] }).figures.flatMap(bothOf);
    expect(both(raw("errors", 0.05, 0.005))).toEqual([{ name: "Errors", unit: "%", service: 5, monolith: 0.5 }]);
    expect(both(raw("errors", null, 0))).toEqual([]);
    expect(both(raw("queue age", 0.2, null))).toEqual([]);
    expect(both(raw("cpu", 8, 4))).toEqual([{ name: "CPU time of an utterance", unit: "ms", service: 8, monolith: 4 }]);
    const latency = raw("latency", 812, 700, { what: "total", quantile: 0.95 });
    expect(both(latency)).toEqual([{ name: "total, 95th percentile", unit: "ms", service: 812, monolith: 700 }]);
    expect(both({ name: "errors", outcome: "odd", numbers: [7, { service: { value: "9" } }] })).toEqual([]);
    const status = parsed([{ name: "audio", figures: [latency, raw("queue age", 0, null)] }]);
    const once = sampled([], status, NOW - 2000);
    expect(bothOver("audio", once, NOW)).toEqual([]);
    expect(bothOver("audio", sampled(once, status, NOW), NOW)).toMatchObject([{ last: { service: 812 }, values: [{}, {}] }]);
  });

  it("forgets what nobody looks at any more", () => {
    const status = parsed([{ name: "audio" }]);
    expect(sampled(sampled([], status, NOW - 3 * WINDOW_MS), status, NOW)).toHaveLength(1);
  });
});

describe("what both sides heard", () => {
  it("is read whole, and what cannot be read is left out", () => {
    const heard = { utterances: 30, words: 200, wrong: 3, missed: 1, start_p95_ms: 32, differences: [{ at_ns: ns(5), utterance_id: "c:0:1" }, {}] };
    const found = module({ heard }).heard;
    expect(found).toMatchObject({ utterances: 30, words: 200, wrong: 3, missed: 1, extra: 0, start_p95_ms: 32, end_p95_ms: null });
    expect(found?.differences).toMatchObject([{ utterance_id: "c:0:1", fields: [] }]);
  });

  it("is nothing where an older controller does not tell it", () => {
    expect([module().heard, module({ heard: null }).heard]).toEqual([null, null]);
  });
});

describe("what both sides understood", () => {
  const understood = {
    compared: 40,
    alike: 38,
    fields: [{ name: "intent", alike: 38, of: 40 }, { alike: 1 }],
    sides: [{ side: "service", p50_ms: 12, p95_ms: null, samples: 40, served: {}, shadow: { calls: 3, cost: 0.5 } }],
    shed: 2,
    differences: [{ at_ns: ns(5), by: "service", conversation_id: "c", utterance_id: "c:0:1", fields: ["intent"] }, { at_ns: 1 }],
  };

  it("is read whole, and what cannot be read is left out", () => {
    const found = module({ understood }).understood;
    expect(found).toMatchObject({ compared: 40, alike: 38, unanswered: 0, shed: 2, fields: [{ name: "intent", alike: 38, of: 40 }] });
    expect(found?.sides).toMatchObject([{ side: "service", p50_ms: 12, p95_ms: null, shadow: { calls: 3, cost: 0.5 }, served: { calls: 0 } }]);
    expect(found?.differences).toMatchObject([{ utterance_id: "c:0:1", fields: ["intent"] }]);
    expect(Math.round(found?.differences[0]?.at ?? 0)).toBe(NOW - 5000);
  });

  it("is nothing where an older controller does not tell it", () => {
    expect([module().understood, module({ understood: null }).understood]).toEqual([null, null]);
  });
});
