/** The shift report and what the language model costs, as `/v1` says them; parsed as in parse.ts. */
import { count, fields, list, oneOf, parseTask, text } from "./parse";
import type { Task } from "./protocol";

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
  narrative: { text: string; source: "llm" | "local" };
}

export const CAP_STATES = ["off", "none", "below", "near", "reached"] as const;
export type CapState = (typeof CAP_STATES)[number];

export interface Spent {
  calls: number;
  prompt_tokens: number;
  completion_tokens: number;
  cost: number;
}

export interface Usage {
  state: CapState;
  currency: string;
  time_zone: string;
  cap: { cost: number; tokens: number; resets_at: string };
  today: Spent & { day: string };
  days: (Spent & { day: string })[];
  conversations: (Spent & { conversation_id: string; last_call_at: string })[];
}

const countOrNull = (raw: unknown): number | null => (typeof raw === "number" && Number.isFinite(raw) ? raw : null);

function parseCounted(raw: unknown): Counted {
  const f = fields(raw);
  return { name: text(f["name"]), requests: count(f["requests"]), done: count(f["done"]) };
}

function parseTimes(raw: unknown): Times {
  const f = fields(raw);
  return { count: count(f["count"]), p50: countOrNull(f["p50_s"]), p95: countOrNull(f["p95_s"]) };
}

const timed =
  (name: string) =>
  (raw: unknown): TimedTask | null => {
    const f = fields(raw);
    const task = parseTask(f["task"]);
    return task === null ? null : { task, seconds: countOrNull(f[name]) };
  };

export function parseShift(raw: unknown): ShiftReport {
  const f = fields(raw);
  const narrative = fields(f["narrative"]);
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
    slowest: list(f["slowest"], timed("seconds")),
    openNow: count(f["open_now"]),
    open: list(f["open"], timed("seconds")),
    emergencies: count(f["emergencies"]),
    emergenciesUnseen: count(f["emergencies_unseen"]),
    emergenciesSeen: parseTimes(f["emergencies_seen"]),
    emergency: list(f["emergency"], timed("seen_after_s")),
    narrative: { text: text(narrative["text"]), source: narrative["source"] === "llm" ? "llm" : "local" },
  };
}

function parseSpent(raw: unknown): Spent {
  const f = fields(raw);
  return {
    calls: count(f["calls"]),
    prompt_tokens: count(f["prompt_tokens"]),
    completion_tokens: count(f["completion_tokens"]),
    cost: count(f["cost"]),
  };
}

const parseDay = (raw: unknown): Spent & { day: string } => ({ ...parseSpent(raw), day: text(fields(raw)["day"]) });

export function parseUsage(raw: unknown): Usage {
  const f = fields(raw);
  const cap = fields(f["cap"]);
  return {
    state: oneOf(f["state"], CAP_STATES, "off"),
    currency: text(f["currency"]),
    time_zone: text(f["time_zone"]),
    cap: { cost: count(cap["cost"]), tokens: count(cap["tokens"]), resets_at: text(cap["resets_at"]) },
    today: parseDay(f["today"]),
    days: list(f["days"], parseDay),
    conversations: list(f["conversations"], (each) => ({
      ...parseSpent(each),
      conversation_id: text(fields(each)["conversation_id"]),
      last_call_at: text(fields(each)["last_call_at"]),
    })),
  };
}
