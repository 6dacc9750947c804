/** What the server sends and takes. Made by `python -m tools.page.schema`; do not edit. */

export interface Alarm {
  code: string;
  message: string;
  since: string;
}

export interface Assignment {
  assignee?: string | null;
}

export interface BehindEvent {
  type: "behind";
  conversation_id: string;
  channel: string;
  behind_ms: number;
}

export interface Board {
  recent?: number;
  done?: number;
  open?: number;
}

export interface Budget {
  endpoint?: number;
  stt?: number;
  publish?: number;
  queue?: number;
  classify?: number;
  store?: number;
  push?: number;
  painted?: number;
  total?: number;
}

export interface Cap {
  cost?: number;
  tokens?: number;
  resets_at?: string | null;
}

export interface CaptionEvent {
  type: "caption";
  conversation_id: string;
  channel: string;
  speaker: number;
  start_offset: number;
  text: string;
  final: boolean;
  utterance_id: string | null;
  emergency: boolean;
  side?: string;
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
  status: "low_confidence" | "not_english" | "ok" | "unintelligible";
  seq: number;
  spoken_at: string;
  words: Word[];
  insights: Insight[];
  tasks: Task[];
  latency_ms: Latency;
  trace_id?: string | null;
  relates_to?: Relation | null;
  copies?: Copy[];
  corrected?: Correction | null;
  change: number;
}

export interface CardEvent {
  type: "card";
  card: Card;
}

export interface CardList {
  next_cursor?: string | null;
  next_after?: string | null;
  more?: boolean;
  items: Card[];
}

export interface CardsEvent {
  type: "cards";
  cards: Card[];
}

export interface Channel {
  channel: string;
  live: number;
  conversations: number;
  utterances: number;
  open_tasks: number;
  last_utterance_at: string | null;
}

export interface ChannelList {
  items: Channel[];
}

export interface ClassifierHealth {
  model?: string;
  source?: "llm" | "local";
  degraded?: boolean;
  state?: "degraded" | "off" | "up";
  message?: string;
  since?: string | null;
}

export interface ClosingOf {
  tasks?: "close" | "keep" | HandingOver;
}

export interface Conversation {
  conversation_id: string;
  channel: string;
  state: "ended" | "expired" | "interrupted" | "live";
  sample_rate: number;
  speakers: number;
  started_at: string;
  ended_at: string | null;
  unreachable_since: string | null;
  continues: string | null;
  utterances: number;
  ledger: Ledger;
  ledgers: Ledger[];
  summary: Summary | null;
  archived_at: string | null;
  archived_by: string | null;
  change: number;
}

export interface ConversationEvent {
  type: "conversation";
  conversation: Conversation;
}

export interface ConversationList {
  next_cursor?: string | null;
  next_after?: string | null;
  more?: boolean;
  items: Conversation[];
}

export interface ConversationUsage {
  conversation_id: string;
  calls?: number;
  prompt_tokens?: number;
  completion_tokens?: number;
  cost?: number;
  last_call_at: string;
}

export interface Copy {
  utterance_id: string;
  conversation_id: string;
  channel: string;
  speaker: number;
  spoken_at: string;
}

export interface CorrectedText {
  text: string;
}

export interface Correction {
  by: string;
  at: string;
  heard: string;
}

export interface Counted {
  name: string;
  requests: number;
  done: number;
}

export interface DayUsage {
  day: string;
  calls?: number;
  prompt_tokens?: number;
  completion_tokens?: number;
  cost?: number;
}

export interface DefinedStep {
  name: string;
  module: string;
  stays: string;
}

export interface Difference {
  at_ns: number;
  by: string;
  conversation_id: string;
  utterance_id: string;
  fields: string[];
}

export interface Emergency {
  task: Task;
  seen_after_s: number | null;
}

export interface Erased {
  store: string;
  what: string;
  count: number;
  gone?: string;
}

export interface ErasingOf {
  conversation?: string | null;
  name?: string | null;
  since?: string | null;
  until?: string | null;
  dry_run?: boolean;
}

export interface ErasureList {
  items: ErasureStand[];
}

export interface ErasureStand {
  erasure_id: string | null;
  kind: "again" | "conversation" | "name" | "time";
  by: string;
  status: "compensated" | "compensating" | "done" | "found" | "parked" | "running";
  conversations: string[];
  utterances: number;
  touched: number;
  asked_at: string;
  done_at: string | null;
  operation_id: string;
  step: string;
  why: string;
  erased: Erased[];
  copies: KeptCopy[];
}

export interface ErrorEvent {
  type: "error";
  code: string;
  message: string;
}

export interface Evidence {
  rooms?: string[];
  items?: string[];
  urgency?: string[];
}

export interface FieldAgreement {
  name: string;
  alike: number;
  of: number;
}

export interface Figure {
  name: string;
  outcome: "breach" | "pass" | "wait";
  detail?: string;
  missing?: number | null;
  in_s?: number | null;
  numbers?: FigureNumbers[];
}

export interface FigureNumbers {
  what?: string;
  outcome: "breach" | "pass" | "wait";
  unit: "count" | "ms" | "s" | "share";
  service?: FigureSide;
  monolith?: FigureSide | null;
  limit?: number | null;
  margin?: number | null;
  quantile?: number | null;
}

export interface FigureSide {
  value?: number | null;
  low?: number | null;
  high?: number | null;
  samples?: number | null;
}

export interface HandingOver {
  assignee: string;
}

export interface Health {
  status?: "degraded" | "ok";
  sessions?: number;
  stt_backlog_s?: number;
  alarms?: Alarm[];
  classifier?: ClassifierHealth;
  budget?: Budget;
  stages?: StageHealth[];
  trace_url?: string | null;
}

export interface HealthEvent {
  type: "health";
  health: Health;
}

export interface Hearings {
  utterances?: number;
  words?: number;
  wrong?: number;
  missed?: number;
  extra?: number;
  start_p95_ms?: number | null;
  end_p95_ms?: number | null;
  shed?: number;
  lost?: number;
  differences?: Difference[];
}

export interface HelloEvent {
  type: "hello";
  version: string;
  site: string;
  role: "admin" | "ingest" | "read";
  side: string;
  change: number;
  reset: boolean;
  classifier: ClassifierHealth;
  health: Health;
  conversations: Conversation[];
  board: Board;
}

export interface Insight {
  index: number;
  revision?: number;
  intent: string;
  department: string;
  urgency: "critical" | "high" | "low" | "normal";
  rooms?: string[];
  unverified?: string[];
  items?: Item[];
  summary: string;
  confidence: number;
  source?: "llm" | "local";
  degraded?: boolean;
  prompt_version?: string | null;
  model: string;
  evidence?: Evidence;
}

export interface Item {
  name: string;
  quantity?: number;
}

export interface KeptCopy {
  where: string;
  taken_at: string;
  kept_until?: string;
}

export interface Latency {
  endpoint?: number | null;
  stt?: number | null;
  publish?: number | null;
  queue?: number | null;
  classify?: number | null;
  store?: number | null;
  push?: number | null;
  total?: number | null;
  sides?: Record<string, string>;
}

export interface Ledger {
  received?: number;
  speech?: number;
  silence?: number;
  gap?: number;
}

export interface LeftOut {
  critical: number;
  high: number;
  normal: number;
  low: number;
  unclassified: number;
  older: boolean;
}

export interface Login {
  key: string;
}

export interface MigrationEntry {
  id?: number;
  at_ns: number;
  who: string;
  name: string;
  action: string;
  before: string;
  after: string;
  version: number;
  why?: string;
  evidence?: Figure[];
}

export interface MigrationOverride {
  kind: "channel" | "conversation" | "site";
  of: string;
  side: string;
  by?: string;
  why?: string;
  at_ns?: number;
  until_ns?: number;
}

export interface MigrationStatus {
  version: number;
  epoch: number;
  in_force: boolean;
  modules: ModuleMigration[];
  followers: Record<string, number> | null;
  behind?: string[];
  audit?: MigrationEntry[];
  notes?: string[];
}

export interface ModuleMigration {
  name: string;
  mode?: "canary" | "full" | "off" | "retired" | "shadow";
  weight?: number;
  decides?: string;
  base?: string;
  candidate?: string;
  goal?: string;
  paused?: boolean;
  auto?: boolean;
  since_ns?: number;
  why?: string;
  change?: string;
  phase?: string;
  problem?: string;
  bake_left_s?: number | null;
  gate?: "breach" | "pass" | "wait" | null;
  figures?: Figure[];
  overrides?: MigrationOverride[];
  understood?: Understandings | null;
  heard?: Hearings | null;
}

export interface Move {
  why?: string;
  force?: boolean;
}

export interface Narrative {
  text?: string;
  source?: "llm" | "local";
}

export interface OperationList {
  items: OperationStand[];
}

export interface OperationStand {
  operation_id: string;
  operation: string;
  subject: string;
  by: string;
  status: "compensated" | "compensating" | "done" | "parked" | "running";
  step: string;
  why: string;
  started_at: string;
  changed_at: string;
  results?: Record<string, unknown>;
  history: OperationStep[];
  steps: DefinedStep[];
  back: boolean;
}

export interface OperationStep {
  at: string;
  what: "compensating" | "done" | "failed" | "finished" | "kept" | "parked" | "resumed" | "started" | "undone";
  step: string;
  text: string;
}

export interface Overriding {
  kind: "channel" | "conversation" | "site";
  of: string;
  side: "monolith" | "service" | null;
  why?: string;
}

export interface Painted {
  type: "painted";
  utterance_id: string;
  revision: number;
  painted_ms: number;
}

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  instance?: string | null;
  retryable?: boolean;
}

export interface PromptComparison {
  against_id: string;
  set_id: string;
  set_name: string;
  model: string;
  candidate: PromptNumbers;
  live: PromptNumbers;
  falls_below?: string[];
}

export interface PromptEvent {
  at: string;
  by: string;
  action: "added" | "canary" | "deployed" | "evaluated" | "rolled_back";
  prompt_id: string;
  name?: string;
  against_id?: string | null;
  weight?: number;
  forced?: boolean;
  note?: string;
  evidence?: PromptComparison | null;
}

export interface PromptInForce {
  prompt: PromptInfo;
  weight: number;
  event?: PromptEvent | null;
}

export interface PromptInfo {
  id: string;
  name: string;
  note?: string;
  added_at?: string | null;
  added_by?: string;
}

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
  prompt_tokens: number;
  completion_tokens: number;
  cost: number;
}

export interface PromptsView {
  connected?: boolean;
  model?: string;
  problem?: string;
  live?: PromptInForce | null;
  canary?: PromptInForce | null;
  versions?: PromptInfo[];
  events?: PromptEvent[];
}

export interface Relation {
  kind?: "copy";
  utterance_id: string;
}

export interface ReplayedEvent {
  type: "replayed";
  change: number;
  left_out: LeftOut | null;
}

export interface ResetEvent {
  type: "reset";
}

export interface Session {
  role: "admin" | "ingest" | "read";
  site: string;
  version: string;
}

export interface ShiftReport {
  since: string;
  until: string;
  hours: number;
  generated_at: string;
  utterances: number;
  requests: number;
  by_department: Counted[];
  by_intent: Counted[];
  by_urgency: Counted[];
  done: Times;
  acknowledged: Times;
  slowest: TimedTask[];
  open_now: number;
  open: TimedTask[];
  emergencies: number;
  emergencies_unseen: number;
  emergencies_seen: Times;
  emergency: Emergency[];
  narrative?: Narrative;
}

export interface SideUnderstanding {
  side: string;
  p50_ms?: number | null;
  p95_ms?: number | null;
  samples?: number;
  served?: Spending;
  shadow?: Spending;
}

export interface Spending {
  answers?: number;
  calls?: number;
  prompt_tokens?: number;
  completion_tokens?: number;
  cost?: number;
}

export interface StageHealth {
  stage: string;
  words: string;
  count: number;
  p50_ms: number;
  p95_ms: number;
  p99_ms: number;
  budget_ms: number;
  used: number;
  breach?: string;
}

export interface Status {
  status: string;
  version: string;
}

export interface Summary {
  text: string;
  source: "llm" | "local";
  revision: number;
  at: string;
}

export interface Task {
  task_id: string;
  utterance_id: string;
  insight_index: number;
  status: "acknowledged" | "done" | "open";
  channel: string;
  intent: string;
  department: string;
  urgency: "critical" | "high" | "low" | "normal";
  rooms: string[];
  summary: string;
  assignee: string | null;
  created_at: string;
  acknowledged_at: string | null;
  completed_at: string | null;
  completed_by: string | null;
  completed_by_utterance: string | null;
  version: number;
}

export interface TaskEvent {
  type: "task";
  task: Task;
  change: number;
}

export interface TaskList {
  next_cursor?: string | null;
  next_after?: string | null;
  more?: boolean;
  items: Task[];
}

export interface TimedTask {
  task: Task;
  seconds: number;
}

export interface Times {
  count?: number;
  p50_s?: number | null;
  p95_s?: number | null;
}

export interface Understandings {
  compared?: number;
  alike?: number;
  fields?: FieldAgreement[];
  sides?: SideUnderstanding[];
  unanswered?: number;
  unserved?: number;
  degraded?: number;
  shed?: number;
  differences?: Difference[];
}

export interface UsageReport {
  state?: "below" | "near" | "none" | "off" | "reached";
  currency?: string;
  time_zone?: string;
  cap?: Cap;
  today: DayUsage;
  days?: DayUsage[];
  conversations?: ConversationUsage[];
}

export interface Watch {
  type: "watch";
  channels: string[];
}

export interface Weigh {
  percent: number;
  why?: string;
  force?: boolean;
}

export interface Word {
  text: string;
  start_offset: number;
  end_offset: number;
  confidence: number;
}

export type LiveEvent = CardEvent | CardsEvent | CaptionEvent | BehindEvent | TaskEvent | ConversationEvent | HealthEvent | ErrorEvent | HelloEvent | ResetEvent | ReplayedEvent;

export type PageMessage = Watch | Painted;
