/** The shift report and what the language model costs, as `/v1` says them; parsed as in parse.ts. */
import type * as api from "../api/schema";
import { count, fields, list, oneOf, text, textOrNull } from "./fields";
import { parseSource, parseTask } from "./parse";
import { every, type Parsed, type Source, type Task } from "./protocol";

export interface Counted {
  name: string;
  requests: number;
  done: number;
}

/** Seconds; null where nothing was counted. */
export interface Times {
  count: number;
  p50: number | null;
  p95: number | null;
}

export interface TimedTask {
  task: Task;
  /** null: it has not happened yet. */
  seconds: number | null;
}

export interface ShiftReport {
  since: string;
  until: string;
  utterances: number;
  requests: number;
  byDepartment: Counted[];
  byIntent: Counted[];
  byUrgency: Counted[];
  done: Times;
  acknowledged: Times;
  slowest: TimedTask[];
  openNow: number;
  open: TimedTask[];
  emergencies: number;
  emergenciesUnseen: number;
  emergenciesSeen: Times;
  emergency: TimedTask[];
  narrative: { text: string; source: Source };
}

export type Spent = Parsed<Omit<api.DayUsage, "day">>;
export type Usage = Parsed<api.UsageReport>;
export type CapState = Usage["state"];
const CAP_STATES = every<CapState>({ off: true, none: true, below: true, near: true, reached: true });

const countOrNull = (raw: unknown): number | null => (typeof raw === "number" && Number.isFinite(raw) ? raw : null);

function parseCounted(raw: unknown): Counted {
  const f = fields<api.Counted>(raw);
  return { name: text(f["name"]), requests: count(f["requests"]), done: count(f["done"]) };
}

function parseTimes(raw: unknown): Times {
  const f = fields<api.Times>(raw);
  return { count: count(f["count"]), p50: countOrNull(f["p50_s"]), p95: countOrNull(f["p95_s"]) };
}

const timed =
  <T extends { task: api.Task }>(name: keyof T) =>
  (raw: unknown): TimedTask | null => {
    const f = fields<T>(raw);
    const task = parseTask(f["task"]);
    return task === null ? null : { task, seconds: countOrNull(f[name]) };
  };

export function parseShift(raw: unknown): ShiftReport {
  const f = fields<api.ShiftReport>(raw);
  const narrative = fields<api.Narrative>(f["narrative"]);
  return {
    since: text(f["since"]),
    until: text(f["until"]),
    utterances: count(f["utterances"]),
    requests: count(f["requests"]),
    byDepartment: list(f["by_department"], parseCounted),
    byIntent: list(f["by_intent"], parseCounted),
    byUrgency: list(f["by_urgency"], parseCounted),
    done: parseTimes(f["done"]),
    acknowledged: parseTimes(f["acknowledged"]),
    slowest: list(f["slowest"], timed<api.TimedTask>("seconds")),
    openNow: count(f["open_now"]),
    open: list(f["open"], timed<api.TimedTask>("seconds")),
    emergencies: count(f["emergencies"]),
    emergenciesUnseen: count(f["emergencies_unseen"]),
    emergenciesSeen: parseTimes(f["emergencies_seen"]),
    emergency: list(f["emergency"], timed<api.Emergency>("seen_after_s")),
    narrative: { text: text(narrative["text"]), source: parseSource(narrative["source"]) },
  };
}

function parseSpent(raw: unknown): Spent {
  const f = fields<Spent>(raw);
  return {
    calls: count(f["calls"]),
    prompt_tokens: count(f["prompt_tokens"]),
    completion_tokens: count(f["completion_tokens"]),
    cost: count(f["cost"]),
  };
}

const parseDay = (raw: unknown): Parsed<api.DayUsage> => ({ ...parseSpent(raw), day: text(fields<api.DayUsage>(raw)["day"]) });

export function parseUsage(raw: unknown): Usage {
  const f = fields<api.UsageReport>(raw);
  const cap = fields<api.Cap>(f["cap"]);
  return {
    state: oneOf(f["state"], CAP_STATES, "off"),
    currency: text(f["currency"]),
    time_zone: text(f["time_zone"]),
    cap: { cost: count(cap["cost"]), tokens: count(cap["tokens"]), resets_at: textOrNull(cap["resets_at"]) },
    today: parseDay(f["today"]),
    days: list(f["days"], parseDay),
    conversations: list(f["conversations"], (each) => ({
      ...parseSpent(each),
      conversation_id: text(fields<api.ConversationUsage>(each)["conversation_id"]),
      last_call_at: text(fields<api.ConversationUsage>(each)["last_call_at"]),
    })),
  };
}
