/**
 * The edge: JSON in, typed messages out. A field that an older or newer server leaves out gets a harmless value, so that
 * one odd message never blanks the page; a message without an identity is refused (null).
 */
import {
  PROMPT_ACTIONS,
  STAGES,
  type Alarm,
  type Budget,
  type Caption,
  type Card,
  type Channel,
  type Classifier,
  type Conversation,
  type ConversationState,
  type Health,
  type Insight,
  type Latency,
  type Ledger,
  type LiveMessage,
  type Page,
  type PromptAction,
  type PromptComparison,
  type PromptEvent,
  type PromptInForce,
  type PromptInfo,
  type PromptNumbers,
  type Prompts,
  type Role,
  type Session,
  type StageHealth,
  type Summary,
  type Task,
  type TaskStatus,
  type Urgency,
  type Word,
} from "./protocol";

export type Fields = Record<string, unknown>;

export const fields = (raw: unknown): Fields => (typeof raw === "object" && raw !== null ? (raw as Fields) : {});
export const text = (raw: unknown, fallback = ""): string => (typeof raw === "string" ? raw : fallback);
export const textOrNull = (raw: unknown): string | null => (typeof raw === "string" ? raw : null);
export const count = (raw: unknown, fallback = 0): number => (typeof raw === "number" && Number.isFinite(raw) ? raw : fallback);
export const list = <T>(raw: unknown, each: (item: unknown) => T | null): T[] =>
  Array.isArray(raw) ? raw.map(each).filter((item): item is T => item !== null) : [];
const texts = (raw: unknown): string[] => list(raw, textOrNull);
export const oneOf = <T extends string>(raw: unknown, known: readonly T[], fallback: T): T =>
  known.includes(raw as T) ? (raw as T) : fallback;

const URGENCIES: readonly Urgency[] = ["low", "normal", "high", "critical"];
const STATUSES: readonly TaskStatus[] = ["open", "acknowledged", "done"];
const STATES: readonly ConversationState[] = ["live", "interrupted", "ended", "expired"];

const parseRole = (raw: unknown): Role => oneOf<Role>(raw, ["read", "admin"], "read");

export function parseSession(raw: unknown): Session {
  const f = fields(raw);
  return { role: parseRole(f["role"]), site: text(f["site"]), version: text(f["version"]) };
}

export function parseLatency(raw: unknown): Latency {
  const f = fields(raw);
  const latency: Latency = {};
  for (const stage of [...STAGES, "total"] as const) {
    const value = f[stage];
    if (typeof value === "number" && Number.isFinite(value)) latency[stage] = value;
  }
  return latency;
}

function parseWord(raw: unknown): Word | null {
  const f = fields(raw);
  return {
    text: text(f["text"]),
    start_offset: count(f["start_offset"]),
    end_offset: count(f["end_offset"]),
    confidence: count(f["confidence"], 1),
  };
}

function parseInsight(raw: unknown): Insight | null {
  const f = fields(raw);
  const evidence = fields(f["evidence"]);
  return {
    index: count(f["index"]),
    revision: count(f["revision"], 1),
    intent: text(f["intent"], "unclear"),
    department: text(f["department"], "none"),
    urgency: oneOf(f["urgency"], URGENCIES, "normal"),
    rooms: texts(f["rooms"]),
    unverified: texts(f["unverified"]),
    items: list(f["items"], (item) => ({
      name: text(fields(item)["name"]),
      quantity: count(fields(item)["quantity"], 1),
    })),
    summary: text(f["summary"]),
    confidence: count(f["confidence"]),
    source: f["source"] === "llm" ? "llm" : "local",
    degraded: f["degraded"] === true,
    prompt_version: textOrNull(f["prompt_version"]),
    model: text(f["model"]),
    evidence: { rooms: texts(evidence["rooms"]), items: texts(evidence["items"]), urgency: texts(evidence["urgency"]) },
  };
}

export function parseTask(raw: unknown): Task | null {
  const f = fields(raw);
  const id = textOrNull(f["task_id"]);
  const utterance = textOrNull(f["utterance_id"]);
  if (id === null || utterance === null) return null;
  return {
    task_id: id,
    utterance_id: utterance,
    insight_index: count(f["insight_index"]),
    status: oneOf(f["status"], STATUSES, "open"),
    department: text(f["department"], "none"),
    urgency: oneOf(f["urgency"], URGENCIES, "normal"),
    rooms: texts(f["rooms"]),
    summary: text(f["summary"]),
    assignee: textOrNull(f["assignee"]),
    created_at: text(f["created_at"]),
    acknowledged_at: textOrNull(f["acknowledged_at"]),
    completed_at: textOrNull(f["completed_at"]),
    completed_by: textOrNull(f["completed_by"]),
    completed_by_utterance: textOrNull(f["completed_by_utterance"]),
  };
}

export function parseCard(raw: unknown): Card | null {
  const f = fields(raw);
  const id = textOrNull(f["utterance_id"]);
  if (id === null) return null;
  return {
    utterance_id: id,
    conversation_id: text(f["conversation_id"]),
    channel: text(f["channel"]),
    speaker: count(f["speaker"]),
    start_offset: count(f["start_offset"]),
    end_offset: count(f["end_offset"]),
    sample_rate: count(f["sample_rate"], 16000),
    text: text(f["text"]),
    confidence: count(f["confidence"], 1),
    unintelligible: f["unintelligible"] === true,
    seq: count(f["seq"]),
    spoken_at: text(f["spoken_at"]),
    words: list(f["words"], parseWord),
    insights: list(f["insights"], parseInsight),
    tasks: list(f["tasks"], parseTask),
    latency_ms: parseLatency(f["latency_ms"]),
    trace_id: textOrNull(f["trace_id"]),
    change: count(f["change"]),
  };
}

function parseLedger(raw: unknown): Ledger {
  const f = fields(raw);
  return {
    received: count(f["received"]),
    speech: count(f["speech"]),
    silence: count(f["silence"]),
    gap: count(f["gap"]),
  };
}

export function parseConversation(raw: unknown): Conversation | null {
  const f = fields(raw);
  const id = textOrNull(f["conversation_id"]);
  if (id === null) return null;
  return {
    conversation_id: id,
    channel: text(f["channel"]),
    state: oneOf(f["state"], STATES, "ended"),
    sample_rate: count(f["sample_rate"], 16000),
    speakers: count(f["speakers"], 1),
    started_at: text(f["started_at"]),
    ended_at: textOrNull(f["ended_at"]),
    utterances: count(f["utterances"]),
    ledger: parseLedger(f["ledger"]),
    summary: parseSummary(f["summary"]),
  };
}

function parseSummary(raw: unknown): Summary | null {
  const f = fields(raw);
  const words = text(f["text"]);
  return words === "" ? null : { text: words, source: f["source"] === "llm" ? "llm" : "local", at: text(f["at"]) };
}

export function parseChannel(raw: unknown): Channel | null {
  const f = fields(raw);
  const channel = textOrNull(f["channel"]);
  if (channel === null) return null;
  return {
    channel,
    live: count(f["live"]),
    utterances: count(f["utterances"]),
    last_spoken_at: textOrNull(f["last_spoken_at"]),
  };
}

function parseClassifier(raw: unknown): Classifier | null {
  if (typeof raw !== "object" || raw === null) return null;
  const f = fields(raw);
  return {
    model: text(f["model"]),
    source: text(f["source"]),
    degraded: f["degraded"] === true,
    state: text(f["state"]),
    message: text(f["message"]),
  };
}

export function parseHealth(raw: unknown, classifier?: unknown): Health {
  const f = fields(raw);
  return {
    status: f["status"] === "degraded" ? "degraded" : "ok",
    sessions: count(f["sessions"]),
    stt_backlog_s: count(f["stt_backlog_s"]),
    alarms: list<Alarm>(f["alarms"], (alarm) => ({
      code: text(fields(alarm)["code"]),
      message: text(fields(alarm)["message"]),
      since: text(fields(alarm)["since"]),
    })),
    classifier: parseClassifier(f["classifier"] ?? classifier),
    budget: parseBudget(f["budget"]),
    stages: list(f["stages"], parseStageHealth),
    trace_url: parseTraceUrl(f["trace_url"]),
  };
}

function parseBudget(raw: unknown): Budget {
  const painted = fields(raw)["painted"];
  const budget: Budget = parseLatency(raw);
  if (typeof painted === "number" && Number.isFinite(painted)) budget.painted = painted;
  return budget;
}

function parseStageHealth(raw: unknown): StageHealth | null {
  const f = fields(raw);
  const stage = textOrNull(f["stage"]);
  if (stage === null) return null;
  return {
    stage,
    count: count(f["count"]),
    p50_ms: count(f["p50_ms"]),
    p95_ms: count(f["p95_ms"]),
    p99_ms: count(f["p99_ms"]),
    budget_ms: count(f["budget_ms"]),
    breach: text(f["breach"]),
  };
}

/** Only what a link may point to. */
function parseTraceUrl(raw: unknown): string | null {
  const url = textOrNull(raw);
  return url !== null && /^https?:\/\//u.test(url) ? url : null;
}

function parseCaption(raw: unknown): Caption | null {
  const f = fields(raw);
  const conversation = textOrNull(f["conversation_id"]);
  if (conversation === null) return null;
  return {
    conversation_id: conversation,
    channel: text(f["channel"]),
    speaker: count(f["speaker"]),
    start_offset: count(f["start_offset"]),
    text: text(f["text"]),
    final: f["final"] === true,
    utterance_id: textOrNull(f["utterance_id"]),
  };
}

export function parsePage<T>(raw: unknown, each: (item: unknown) => T | null): Page<T> {
  const f = fields(raw);
  return { items: list(Array.isArray(raw) ? raw : f["items"], each), next_cursor: textOrNull(f["next_cursor"]) };
}

/** One message of `WS /v1/live`, or null for one that this page does not know. */
export function parseLive(data: string): LiveMessage | null {
  let raw: unknown;
  try {
    raw = JSON.parse(data);
  } catch {
    return null;
  }
  const f = fields(raw);
  switch (f["type"]) {
    case "hello":
      return {
        type: "hello",
        version: text(f["version"]),
        site: text(f["site"]),
        role: parseRole(f["role"]),
        change: count(f["change"]),
        reset: f["reset"] === true,
        health: f["health"] === undefined ? null : parseHealth(f["health"], f["classifier"]),
        conversations: list(f["conversations"], parseConversation),
      };
    case "card": {
      const card = parseCard(f["card"]);
      return card && { type: "card", card };
    }
    case "caption": {
      const caption = parseCaption(f);
      return caption && { type: "caption", caption };
    }
    case "task": {
      const task = parseTask(f["task"]);
      return task && { type: "task", task, change: count(f["change"]) };
    }
    case "conversation": {
      const conversation = parseConversation(f["conversation"]);
      return conversation && { type: "conversation", conversation };
    }
    case "health":
      return { type: "health", health: parseHealth(f["health"]) };
    default:
      return null;
  }
}

function parseNumbers(raw: unknown): PromptNumbers {
  const f = fields(raw);
  return {
    cases: count(f["cases"]),
    failed: count(f["failed"]),
    score: count(f["score"]),
    intent: count(f["intent"]),
    department: count(f["department"]),
    urgency: count(f["urgency"]),
    rooms: count(f["rooms"]),
    items: count(f["items"]),
    dangers: count(f["dangers"]),
    dangers_missed: count(f["dangers_missed"]),
    calibration_error: count(f["calibration_error"]),
    latency_p50_ms: count(f["latency_p50_ms"]),
    latency_p95_ms: count(f["latency_p95_ms"]),
    cost: count(f["cost"]),
  };
}

function parseComparison(raw: unknown): PromptComparison | null {
  const f = fields(raw);
  const against = textOrNull(f["against_id"]);
  if (against === null) return null;
  return {
    against_id: against,
    set_name: text(f["set_name"]),
    model: text(f["model"]),
    candidate: parseNumbers(f["candidate"]),
    live: parseNumbers(f["live"]),
    falls_below: texts(f["falls_below"]),
  };
}

function parsePrompt(raw: unknown): PromptInfo | null {
  const f = fields(raw);
  const id = textOrNull(f["id"]);
  return id === null ? null : { id, name: text(f["name"]), note: text(f["note"]) };
}

function parsePromptEvent(raw: unknown): PromptEvent | null {
  const f = fields(raw);
  const id = textOrNull(f["prompt_id"]);
  const at = textOrNull(f["at"]);
  if (id === null || at === null) return null;
  return {
    at,
    by: text(f["by"]),
    action: oneOf<PromptAction>(f["action"], PROMPT_ACTIONS, "added"),
    prompt_id: id,
    name: text(f["name"]),
    against_id: textOrNull(f["against_id"]),
    weight: count(f["weight"]),
    forced: f["forced"] === true,
    note: text(f["note"]),
    evidence: parseComparison(f["evidence"]),
  };
}

function parseInForce(raw: unknown): PromptInForce | null {
  const f = fields(raw);
  const prompt = parsePrompt(f["prompt"]);
  return prompt === null ? null : { prompt, weight: count(f["weight"]), event: parsePromptEvent(f["event"]) };
}

export function parsePrompts(raw: unknown): Prompts {
  const f = fields(raw);
  return {
    connected: f["connected"] === true,
    model: text(f["model"]),
    problem: text(f["problem"]),
    live: parseInForce(f["live"]),
    canary: parseInForce(f["canary"]),
    events: list(f["events"], parsePromptEvent),
  };
}
