/**
 * The edge: JSON in, typed messages out. A field that an older or newer server leaves out gets a harmless value, so that
 * one odd message never blanks the page; a message without an identity is refused (null).
 */
import type * as api from "../api/schema";
import {
  every,
  STAGES,
  type Alarm,
  type Behind,
  type BoardRule,
  type Caption,
  type Card,
  type Channel,
  type Classifier,
  type Conversation,
  type ConversationState,
  type Copy,
  type Correction,
  type Health,
  type Insight,
  type Ledger,
  type LeftOut,
  type LiveMessage,
  type Page,
  type Relation,
  type Role,
  type Session,
  type Source,
  type StageHealth,
  type Summary,
  type Task,
  type TaskStatus,
  type Understood,
  type Urgency,
  type Word,
} from "./protocol";
import { count, countOrNull, fields, list, oneOf, text, textOrNull, texts } from "./fields";
import { sidesOf } from "./waterfall";

const URGENCIES = every<Urgency>({ low: true, normal: true, high: true, critical: true });
const UNDERSTOOD = every<Understood>({ ok: true, unintelligible: true, not_english: true, low_confidence: true });
const STATUSES = every<TaskStatus>({ open: true, acknowledged: true, done: true });
const STATES = every<ConversationState>({ live: true, interrupted: true, ended: true, expired: true });
const SOURCES = every<Source>({ llm: true, local: true });
const CLASSIFIER_STATES = every<Classifier["state"]>({ up: true, degraded: true, off: true });
const HEALTHS = every<Health["status"]>({ ok: true, degraded: true });
const ROLES = every<Role>({ read: true, admin: true });
const TIMED = [...STAGES, "total"] as const;
const BUDGETED = every<keyof api.Budget>({
  endpoint: true, stt: true, publish: true, queue: true, classify: true, store: true, push: true, painted: true, total: true,
});

export const parseSource = (raw: unknown): Source => oneOf(raw, SOURCES, "local");
const parseRole = (raw: unknown): Role => oneOf(raw, ROLES, "read");

export function parseSession(raw: unknown): Session {
  const f = fields<api.Session>(raw);
  return { role: parseRole(f["role"]), site: text(f["site"]), version: text(f["version"]) };
}

/** The numbers that there are, by name. */
function numbers<Name extends string>(raw: unknown, names: readonly Name[]): Partial<Record<Name, number>> {
  const f = fields<Record<Name, number>>(raw);
  const found: Partial<Record<Name, number>> = {};
  for (const name of names) {
    const value = f[name];
    if (typeof value === "number" && Number.isFinite(value)) found[name] = value;
  }
  return found;
}

function parseWord(raw: unknown): Word | null {
  const f = fields<api.Word>(raw);
  return {
    text: text(f["text"]),
    start_offset: count(f["start_offset"]),
    end_offset: count(f["end_offset"]),
    confidence: count(f["confidence"], 1),
  };
}

function parseInsight(raw: unknown): Insight | null {
  const f = fields<api.Insight>(raw);
  const evidence = fields<api.Evidence>(f["evidence"]);
  return {
    index: count(f["index"]),
    revision: count(f["revision"], 1),
    intent: text(f["intent"], "unclear"),
    department: text(f["department"], "none"),
    urgency: oneOf(f["urgency"], URGENCIES, "normal"),
    rooms: texts(f["rooms"]),
    unverified: texts(f["unverified"]),
    items: list(f["items"], (item) => ({
      name: text(fields<api.Item>(item)["name"]),
      quantity: count(fields<api.Item>(item)["quantity"], 1),
    })),
    summary: text(f["summary"]),
    confidence: count(f["confidence"]),
    source: parseSource(f["source"]),
    degraded: f["degraded"] === true,
    prompt_version: textOrNull(f["prompt_version"]),
    model: text(f["model"]),
    evidence: { rooms: texts(evidence["rooms"]), items: texts(evidence["items"]), urgency: texts(evidence["urgency"]) },
  };
}

export function parseTask(raw: unknown): Task | null {
  const f = fields<api.Task>(raw);
  const id = textOrNull(f["task_id"]);
  const utterance = textOrNull(f["utterance_id"]);
  if (id === null || utterance === null) return null;
  return {
    task_id: id,
    utterance_id: utterance,
    insight_index: count(f["insight_index"]),
    version: countOrNull(f["version"]),
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
  const f = fields<api.Card>(raw);
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
    status: oneOf(f["status"], UNDERSTOOD, f["unintelligible"] === true ? "unintelligible" : "ok"),
    seq: count(f["seq"]),
    spoken_at: text(f["spoken_at"]),
    words: list(f["words"], parseWord),
    insights: list(f["insights"], parseInsight),
    tasks: list(f["tasks"], parseTask),
    latency_ms: numbers(f["latency_ms"], TIMED),
    sides: sidesOf(fields<api.Latency>(f["latency_ms"])["sides"]),
    trace_id: textOrNull(f["trace_id"]),
    relates_to: parseRelation(f["relates_to"]),
    copies: list(f["copies"], parseCopy),
    corrected: parseCorrection(f["corrected"]),
    change: count(f["change"]),
  };
}

/** Null also for a kind that this page does not know. */
function parseRelation(raw: unknown): Relation | null {
  const f = fields<api.Relation>(raw);
  const utterance = textOrNull(f["utterance_id"]);
  return f["kind"] === "copy" && utterance !== null ? { kind: "copy", utterance_id: utterance } : null;
}

function parseCorrection(raw: unknown): Correction | null {
  if (raw === null || raw === undefined) return null;
  const f = fields<api.Correction>(raw);
  return { by: text(f["by"]), at: text(f["at"]), heard: text(f["heard"]) };
}

function parseCopy(raw: unknown): Copy | null {
  const f = fields<api.Copy>(raw);
  const id = textOrNull(f["utterance_id"]);
  if (id === null) return null;
  return {
    utterance_id: id,
    conversation_id: text(f["conversation_id"]),
    channel: text(f["channel"]),
    speaker: count(f["speaker"]),
    spoken_at: text(f["spoken_at"]),
  };
}

function parseLedger(raw: unknown): Ledger {
  const f = fields<api.Ledger>(raw);
  return {
    received: count(f["received"]),
    speech: count(f["speech"]),
    silence: count(f["silence"]),
    gap: count(f["gap"]),
  };
}

export function parseConversation(raw: unknown): Conversation | null {
  const f = fields<api.Conversation>(raw);
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
    unreachable_since: textOrNull(f["unreachable_since"]),
    utterances: count(f["utterances"]),
    ledger: parseLedger(f["ledger"]),
    archived_at: textOrNull(f["archived_at"]),
    archived_by: textOrNull(f["archived_by"]),
    summary: parseSummary(f["summary"]),
  };
}

function parseSummary(raw: unknown): Summary | null {
  const f = fields<api.Summary>(raw);
  const words = text(f["text"]);
  return words === "" ? null : { text: words, source: parseSource(f["source"]), at: text(f["at"]) };
}

export function parseChannel(raw: unknown): Channel | null {
  const f = fields<api.Channel>(raw);
  const channel = textOrNull(f["channel"]);
  if (channel === null) return null;
  return {
    channel,
    live: count(f["live"]),
    utterances: count(f["utterances"]),
    last_utterance_at: textOrNull(f["last_utterance_at"]),
  };
}

function parseClassifier(raw: unknown): Classifier | null {
  if (typeof raw !== "object" || raw === null) return null;
  const f = fields<api.ClassifierHealth>(raw);
  return {
    model: text(f["model"]),
    source: parseSource(f["source"]),
    degraded: f["degraded"] === true,
    state: oneOf(f["state"], CLASSIFIER_STATES, "off"),
    message: text(f["message"]),
  };
}

export function parseHealth(raw: unknown, classifier?: unknown): Health {
  const f = fields<api.Health>(raw);
  return {
    status: oneOf(f["status"], HEALTHS, "ok"),
    sessions: count(f["sessions"]),
    stt_backlog_s: count(f["stt_backlog_s"]),
    alarms: list<Alarm>(f["alarms"], (alarm) => ({
      code: text(fields<api.Alarm>(alarm)["code"]),
      message: text(fields<api.Alarm>(alarm)["message"]),
      since: text(fields<api.Alarm>(alarm)["since"]),
    })),
    classifier: parseClassifier(f["classifier"] ?? classifier),
    budget: numbers(f["budget"], BUDGETED),
    stages: list(f["stages"], parseStageHealth),
    trace_url: parseTraceUrl(f["trace_url"]),
  };
}

function parseStageHealth(raw: unknown): StageHealth | null {
  const f = fields<api.StageHealth>(raw);
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
  const f = fields<api.CaptionEvent>(raw);
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
    emergency: f["emergency"] === true,
  };
}

function parseBehind(raw: unknown): Behind | null {
  const f = fields<api.BehindEvent>(raw);
  const conversation = textOrNull(f["conversation_id"]);
  if (conversation === null) return null;
  return { conversation_id: conversation, channel: text(f["channel"]), behind_ms: count(f["behind_ms"]) };
}

export function parsePage<T>(raw: unknown, each: (item: unknown) => T | null): Page<T> {
  const f = fields<Page<T>>(raw);
  return { items: list(Array.isArray(raw) ? raw : f["items"], each), next_cursor: textOrNull(f["next_cursor"]) };
}

function parseBoard(raw: unknown): BoardRule | null {
  const f = fields<api.Board>(raw);
  const [recent, done] = [count(f["recent"]), count(f["done"])];
  return recent > 0 && done > 0 ? { recent, done } : null;
}

function parseLeftOut(raw: unknown): LeftOut | null {
  if (typeof raw !== "object" || raw === null) return null;
  const f = fields<api.LeftOut>(raw);
  return {
    critical: count(f["critical"]),
    high: count(f["high"]),
    normal: count(f["normal"]),
    low: count(f["low"]),
    unclassified: count(f["unclassified"]),
    older: f["older"] === true,
  };
}

function parseHello(raw: unknown): LiveMessage {
  const f = fields<api.HelloEvent>(raw);
  return {
    type: "hello",
    version: text(f["version"]),
    site: text(f["site"]),
    role: parseRole(f["role"]),
    side: text(f["side"]),
    change: count(f["change"]),
    reset: f["reset"] === true,
    health: f["health"] === undefined ? null : parseHealth(f["health"], f["classifier"]),
    conversations: list(f["conversations"], parseConversation),
    board: parseBoard(f["board"]),
  };
}

/** Every kind of message that the server has. */
const LIVE: { readonly [Kind in api.LiveEvent["type"]]: (raw: unknown) => LiveMessage | null } = {
  hello: parseHello,
  card: (raw) => {
    const card = parseCard(fields<api.CardEvent>(raw)["card"]);
    return card && { type: "card", card };
  },
  cards: (raw) => ({ type: "cards", cards: list(fields<api.CardsEvent>(raw)["cards"], parseCard) }),
  replayed: (raw) => {
    const f = fields<api.ReplayedEvent>(raw);
    return { type: "replayed", change: count(f["change"]), left_out: parseLeftOut(f["left_out"]) };
  },
  // The hello before it says so, too.
  reset: () => null,
  caption: (raw) => {
    const caption = parseCaption(raw);
    return caption && { type: "caption", caption };
  },
  behind: (raw) => {
    const behind = parseBehind(raw);
    return behind && { type: "behind", behind };
  },
  task: (raw) => {
    const f = fields<api.TaskEvent>(raw);
    const task = parseTask(f["task"]);
    return task && { type: "task", task, change: count(f["change"]) };
  },
  conversation: (raw) => {
    const conversation = parseConversation(fields<api.ConversationEvent>(raw)["conversation"]);
    return conversation && { type: "conversation", conversation };
  },
  health: (raw) => ({ type: "health", health: parseHealth(fields<api.HealthEvent>(raw)["health"]) }),
  // About a message of ours; only an older page than the server can send one that is not understood.
  error: () => null,
};

/** One message of `WS /v1/live`, or null for one that this page does not know. */
export function parseLive(data: string): LiveMessage | null {
  let raw: unknown;
  try {
    raw = JSON.parse(data);
  } catch {
    return null;
  }
  const kind = fields<api.LiveEvent>(raw)["type"];
  return typeof kind === "string" && Object.hasOwn(LIVE, kind) ? LIVE[kind as api.LiveEvent["type"]](raw) : null;
}
