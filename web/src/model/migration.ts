/** A migration, as `/v1/migration` says it; parsed as in parse.ts. Numbers and times as the page uses them. */
import type * as api from "../api/schema";
import { count, fields, list, oneOf, text, textOrNull, texts } from "./fields";
import { every, type Parsed, type Without } from "./protocol";

/** Of two releases, the new one has the role of the service, the other one that of the monolith. */
export type Role = "monolith" | "service";
export type Mode = NonNullable<api.ModuleMigration["mode"]>;
export type Outcome = api.Figure["outcome"];
/** Of one side; null: so few samples do not say it. */
export type FigureSide = Parsed<api.FigureSide>;
/** What a figure was decided by; `what`: the stage of a latency. */
export type Numbers = Without<api.FigureNumbers, "limit" | "margin" | "outcome" | "unit">;
export type Figure = Without<api.Figure, "numbers"> & { numbers: Numbers[] };
/** What has a side of its own, whatever its bucket. */
export type Override = Without<api.MigrationOverride, "at_ns" | "until_ns">;
/** `weight`: per cent that the service serves. `since`, `at`: milliseconds; 0: not known. */
export type Module = Without<api.ModuleMigration, "figures" | "since_ns" | "gate" | "goal" | "heard" | "overrides" | "understood"> & {
  goal: Role;
  since: number;
  gate: Outcome | null;
  figures: Figure[];
  overrides: Override[];
  understood: Understandings | null;
  heard: Hearings | null;
};
export type FieldAgreement = Parsed<api.FieldAgreement>;
export type Spending = Parsed<api.Spending>;
export type SideUnderstanding = Parsed<api.SideUnderstanding>;
export type Difference = Without<api.Difference, "at_ns"> & { at: number };
/** How both sides understood the same utterances. */
export type Understandings = Without<api.Understandings, "differences" | "fields" | "sides"> & {
  fields: FieldAgreement[];
  sides: SideUnderstanding[];
  differences: Difference[];
};
/** How both sides of audio heard the same conversations. */
export type Hearings = Without<api.Hearings, "differences"> & { differences: Difference[] };
export type Entry = Without<api.MigrationEntry, "at_ns" | "evidence"> & { at: number; evidence: Figure[] };
/** `followers`: the version that each living process follows; null: the store does not answer. */
export type Migration = Without<api.MigrationStatus, "modules" | "audit" | "epoch"> & { modules: Module[]; audit: Entry[] };

const MODES = every<Mode>({ off: true, shadow: true, canary: true, full: true, retired: true });
const KINDS = every<api.MigrationOverride["kind"]>({ channel: true, site: true, conversation: true });
const OUTCOMES = every<Outcome>({ pass: true, wait: true, breach: true });
const NS_PER_MS = 1_000_000;
/** Of these, a route gives some to the service. */
const BUCKETS_PER_CENT = 100;

/** `monolith`, `service`, or `service@RELEASE`. */
const sideOf = (raw: unknown, otherwise = "monolith"): string => textOrNull(raw) ?? otherwise;
const numberOrNull = (raw: unknown): number | null => (typeof raw === "number" && Number.isFinite(raw) ? raw : null);

function parseSide(raw: unknown): FigureSide {
  const f = fields<api.FigureSide>(raw);
  return { value: numberOrNull(f["value"]), low: numberOrNull(f["low"]), high: numberOrNull(f["high"]), samples: numberOrNull(f["samples"]) };
}

function parseNumbers(raw: unknown): Numbers {
  const f = fields<api.FigureNumbers>(raw);
  const monolith = f["monolith"];
  return {
    what: text(f["what"]),
    service: parseSide(f["service"]),
    monolith: typeof monolith === "object" && monolith !== null ? parseSide(monolith) : null,
    quantile: numberOrNull(f["quantile"]),
  };
}

function parseOverride(raw: unknown): Override | null {
  const f = fields<api.MigrationOverride>(raw);
  const of = textOrNull(f["of"]);
  if (of === null) return null;
  return { kind: oneOf(f["kind"], KINDS, "conversation"), of, side: sideOf(f["side"]), by: text(f["by"]), why: text(f["why"]) };
}

function parseFigure(raw: unknown): Figure | null {
  const f = fields<api.Figure>(raw);
  const name = textOrNull(f["name"]);
  if (name === null) return null;
  return {
    name,
    outcome: oneOf(f["outcome"], OUTCOMES, "wait"),
    detail: text(f["detail"]),
    missing: numberOrNull(f["missing"]),
    in_s: numberOrNull(f["in_s"]),
    numbers: list(f["numbers"], parseNumbers),
  };
}

function parseField(raw: unknown): FieldAgreement | null {
  const f = fields<api.FieldAgreement>(raw);
  const name = textOrNull(f["name"]);
  return name === null ? null : { name, alike: count(f["alike"]), of: count(f["of"]) };
}

function parseSpending(raw: unknown): Spending {
  const f = fields<api.Spending>(raw);
  return {
    answers: count(f["answers"]),
    calls: count(f["calls"]),
    prompt_tokens: count(f["prompt_tokens"]),
    completion_tokens: count(f["completion_tokens"]),
    cost: count(f["cost"]),
  };
}

function parseUnderstoodSide(raw: unknown): SideUnderstanding {
  const f = fields<api.SideUnderstanding>(raw);
  return {
    side: sideOf(f["side"]),
    p50_ms: numberOrNull(f["p50_ms"]),
    p95_ms: numberOrNull(f["p95_ms"]),
    samples: count(f["samples"]),
    served: parseSpending(f["served"]),
    shadow: parseSpending(f["shadow"]),
  };
}

function parseDifference(raw: unknown): Difference | null {
  const f = fields<api.Difference>(raw);
  const id = textOrNull(f["utterance_id"]);
  if (id === null) return null;
  return {
    at: count(f["at_ns"]) / NS_PER_MS,
    by: text(f["by"]),
    conversation_id: text(f["conversation_id"]),
    utterance_id: id,
    fields: texts(f["fields"]),
  };
}

function parseUnderstandings(raw: unknown): Understandings | null {
  if (typeof raw !== "object" || raw === null) return null;
  const f = fields<api.Understandings>(raw);
  return {
    compared: count(f["compared"]),
    alike: count(f["alike"]),
    fields: list(f["fields"], parseField),
    sides: list(f["sides"], parseUnderstoodSide),
    unanswered: count(f["unanswered"]),
    unserved: count(f["unserved"]),
    degraded: count(f["degraded"]),
    shed: count(f["shed"]),
    differences: list(f["differences"], parseDifference),
  };
}

function parseHearings(raw: unknown): Hearings | null {
  if (typeof raw !== "object" || raw === null) return null;
  const f = fields<api.Hearings>(raw);
  return {
    utterances: count(f["utterances"]),
    words: count(f["words"]),
    wrong: count(f["wrong"]),
    missed: count(f["missed"]),
    extra: count(f["extra"]),
    start_p95_ms: numberOrNull(f["start_p95_ms"]),
    end_p95_ms: numberOrNull(f["end_p95_ms"]),
    shed: count(f["shed"]),
    lost: count(f["lost"]),
    differences: list(f["differences"], parseDifference),
  };
}

function parseModule(raw: unknown): Module | null {
  const f = fields<api.ModuleMigration>(raw);
  const name = textOrNull(f["name"]);
  if (name === null) return null;
  const base = sideOf(f["base"]);
  const candidate = sideOf(f["candidate"], "service");
  return {
    name,
    mode: oneOf(f["mode"], MODES, "off"),
    weight: count(f["weight"]) / BUCKETS_PER_CENT,
    decides: sideOf(f["decides"], base),
    base,
    candidate,
    goal: f["goal"] === candidate ? "service" : "monolith",
    paused: f["paused"] === true,
    auto: f["auto"] === true,
    since: count(f["since_ns"]) / NS_PER_MS,
    why: text(f["why"]),
    change: text(f["change"]),
    phase: text(f["phase"]),
    problem: text(f["problem"]),
    bake_left_s: numberOrNull(f["bake_left_s"]),
    gate: typeof f["gate"] === "string" ? oneOf(f["gate"], OUTCOMES, "wait") : null,
    figures: list(f["figures"], parseFigure),
    overrides: list(f["overrides"], parseOverride),
    understood: parseUnderstandings(f["understood"]),
    heard: parseHearings(f["heard"]),
  };
}

function parseEntry(raw: unknown): Entry | null {
  const f = fields<api.MigrationEntry>(raw);
  const name = textOrNull(f["name"]);
  if (name === null) return null;
  return {
    id: count(f["id"]),
    at: count(f["at_ns"]) / NS_PER_MS,
    who: text(f["who"]),
    name,
    action: text(f["action"]),
    before: text(f["before"]),
    after: text(f["after"]),
    version: count(f["version"]),
    why: text(f["why"]),
    evidence: list(f["evidence"], parseFigure),
  };
}

function parseFollowers(raw: unknown): Record<string, number> | null {
  if (typeof raw !== "object" || raw === null) return null;
  return Object.fromEntries(Object.entries(raw).map(([name, version]): [string, number] => [name, count(version)]));
}

/** Null: no module is being moved. */
export function parseMigration(raw: unknown): Migration | null {
  const f = fields<api.MigrationStatus>(raw);
  const modules = list(f["modules"], parseModule);
  if (modules.length === 0) return null;
  return {
    version: count(f["version"]),
    in_force: f["in_force"] === true,
    modules,
    followers: parseFollowers(f["followers"]),
    behind: texts(f["behind"]),
    audit: list(f["audit"], parseEntry),
    notes: texts(f["notes"]),
  };
}
