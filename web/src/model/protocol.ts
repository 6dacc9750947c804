/** The server's messages, as `/v1` and `WS /v1/live` say them. Parsed in parse.ts; nothing else sees raw JSON. */

export type Urgency = "low" | "normal" | "high" | "critical";
export type TaskStatus = "open" | "acknowledged" | "done";
export type Role = "read" | "admin";
export type ConversationState = "live" | "interrupted" | "ended" | "expired";

export const STAGES = ["endpoint", "stt", "publish", "queue", "classify", "store", "push"] as const;
export type Stage = (typeof STAGES)[number];
/** Milliseconds; a stage that has not happened is absent. */
export type Latency = Partial<Record<Stage | "total", number>>;
/** Also how long a page may take to show a card. */
export type Budget = Latency & { painted?: number };

export interface Session {
  role: Role;
  site: string;
  version: string;
}

export interface Word {
  text: string;
  start_offset: number;
  end_offset: number;
  confidence: number;
}

export interface Item {
  name: string;
  quantity: number;
}

export interface Evidence {
  rooms: string[];
  items: string[];
  urgency: string[];
}

export interface Insight {
  index: number;
  revision: number;
  intent: string;
  department: string;
  urgency: Urgency;
  rooms: string[];
  unverified: string[];
  items: Item[];
  summary: string;
  confidence: number;
  source: "llm" | "local";
  degraded: boolean;
  prompt_version: string | null;
  model: string;
  evidence: Evidence;
}

export interface Task {
  task_id: string;
  utterance_id: string;
  insight_index: number;
  status: TaskStatus;
  department: string;
  urgency: Urgency;
  rooms: string[];
  summary: string;
  assignee: string | null;
  created_at: string;
  acknowledged_at: string | null;
  completed_at: string | null;
  completed_by: string | null;
  completed_by_utterance: string | null;
}

export interface Card {
  utterance_id: string;
  conversation_id: string;
  channel: string;
  speaker: number;
  start_offset: number;
  end_offset: number;
  sample_rate: number;
  text: string;
  confidence: number;
  unintelligible: boolean;
  seq: number;
  spoken_at: string;
  words: Word[];
  insights: Insight[];
  tasks: Task[];
  latency_ms: Latency;
  trace_id: string | null;
  change: number;
}

export interface Ledger {
  received: number;
  speech: number;
  silence: number;
  gap: number;
}

/** What a conversation was about so far, and who wrote it. */
export interface Summary {
  text: string;
  source: "llm" | "local";
  at: string;
}

export interface Conversation {
  conversation_id: string;
  channel: string;
  state: ConversationState;
  sample_rate: number;
  speakers: number;
  started_at: string;
  ended_at: string | null;
  utterances: number;
  ledger: Ledger;
  summary: Summary | null;
}

export interface Channel {
  channel: string;
  live: number;
  utterances: number;
  last_spoken_at: string | null;
}

export interface Classifier {
  model: string;
  source: string;
  degraded: boolean;
  /** `up`, `degraded`, or `off`: no language model is connected. */
  state: string;
  message: string;
}

export interface Alarm {
  code: string;
  message: string;
  since: string;
}

export interface Health {
  status: "ok" | "degraded";
  sessions: number;
  stt_backlog_s: number;
  alarms: Alarm[];
  classifier: Classifier | null;
  budget: Budget;
  /** The last minutes against it. */
  stages: StageHealth[];
  /** Where a trace can be looked at, with {trace_id} in it; null where no backend is connected. */
  trace_url: string | null;
}

export interface StageHealth {
  stage: string;
  count: number;
  p50_ms: number;
  p95_ms: number;
  p99_ms: number;
  budget_ms: number;
  /** Says in words that the budget is broken; empty where it is kept. */
  breach: string;
}

export interface Caption {
  conversation_id: string;
  channel: string;
  speaker: number;
  start_offset: number;
  text: string;
  final: boolean;
  utterance_id: string | null;
}

/** How a prompt version did on a labelled set; shares are 0 to 1. */
export interface PromptNumbers {
  cases: number;
  failed: number;
  score: number;
  intent: number;
  department: number;
  urgency: number;
  rooms: number;
  items: number;
  dangers: number;
  dangers_missed: number;
  calibration_error: number;
  latency_p50_ms: number;
  latency_p95_ms: number;
  cost: number;
}

/** A version against the one that was live then, on the same set. */
export interface PromptComparison {
  against_id: string;
  set_name: string;
  model: string;
  candidate: PromptNumbers;
  live: PromptNumbers;
  falls_below: string[];
}

export interface PromptInfo {
  id: string;
  name: string;
  note: string;
}

export const PROMPT_ACTIONS = ["added", "evaluated", "canary", "deployed", "rolled_back"] as const;
export type PromptAction = (typeof PROMPT_ACTIONS)[number];

export interface PromptEvent {
  at: string;
  by: string;
  action: PromptAction;
  prompt_id: string;
  name: string;
  against_id: string | null;
  weight: number;
  forced: boolean;
  note: string;
  evidence: PromptComparison | null;
}

/** A version that conversations have now: `weight` per cent of them. */
export interface PromptInForce {
  prompt: PromptInfo;
  weight: number;
  event: PromptEvent | null;
}

export interface Prompts {
  connected: boolean;
  model: string;
  problem: string;
  live: PromptInForce | null;
  canary: PromptInForce | null;
  events: PromptEvent[];
}

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

export type LiveMessage =
  | {
      type: "hello";
      version: string;
      site: string;
      role: Role;
      change: number;
      reset: boolean;
      health: Health | null;
      conversations: Conversation[];
    }
  | { type: "card"; card: Card }
  | { type: "caption"; caption: Caption }
  | { type: "task"; task: Task; change: number }
  | { type: "conversation"; conversation: Conversation }
  | { type: "health"; health: Health };

export type PageMessage =
  | { type: "watch"; channels: string[] }
  | { type: "painted"; utterance_id: string; revision: number; painted_ms: number };
