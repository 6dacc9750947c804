/**
 * What the page knows of the server's messages: the server's own types (api/schema.ts), as they are once parse.ts has
 * read them. A field that the server renames, adds or takes away does not compile until it is dealt with here.
 */
import type * as api from "../api/schema";

/** Nothing is missing any more: parse.ts has put a harmless value wherever the server may leave one out. */
export type Parsed<T> = T extends readonly (infer Item)[] ? Parsed<Item>[] : T extends object ? { [K in keyof T]-?: Parsed<T[K]> } : T;
/** What the page does not look at is named. */
export type Without<T, Unused extends keyof T> = Parsed<Omit<T, Unused>>;
/** Every value of a type, in this order; one too many or too few does not compile. */
export const every = <T extends string>(values: Record<T, true>): readonly T[] => Object.keys(values) as T[];

export type Urgency = api.Task["urgency"];
export type TaskStatus = api.Task["status"];
/** A key that only sends sound has no page. */
export type Role = Exclude<api.Session["role"], "ingest">;
export type ConversationState = api.Conversation["state"];
export type Source = api.Summary["source"];

export type Stage = Exclude<keyof api.Latency, "total" | "sides">;
export const STAGES = every<Stage>({ endpoint: true, stt: true, publish: true, queue: true, classify: true, store: true, push: true });
/** Milliseconds; a stage that has not happened is absent. */
export type Latency = Partial<Record<Stage | "total", number>>;
/** By module: the side that served its stages; empty outside a migration. */
export type Sides = Record<string, string>;
/** Also how long a page may take to show a card. */
export type Budget = Partial<Record<keyof api.Budget, number>>;

export type Session = Omit<api.Session, "role"> & { role: Role };
export type Word = Parsed<api.Word>;
export type Evidence = Parsed<api.Evidence>;
export type Insight = Parsed<api.Insight>;
/** `version`: counts what was decided about it; null where an older server does not say it. */
export type Task = Omit<Without<api.Task, "channel" | "intent">, "version"> & { version: number | null };
/** Of which utterance it is a copy. */
export type Relation = Parsed<api.Relation>;
/** The same transmission through another receiver or track. */
export type Copy = Parsed<api.Copy>;
/** Who has corrected the text, and what it was as it was heard. */
export type Correction = Parsed<api.Correction>;
/** How far the words can be relied on: unless `ok`, somebody must listen. */
export type Understood = api.Card["status"];
export type Card = Without<api.Card, "tasks" | "latency_ms"> & { tasks: Task[]; latency_ms: Latency; sides: Sides };
export type Ledger = Parsed<api.Ledger>;
/** What a conversation was about so far, and who wrote it. */
export type Summary = Without<api.Summary, "revision">;
export type Conversation = Without<api.Conversation, "ledgers" | "change" | "summary" | "continues"> & { summary: Summary | null };
export type Channel = Without<api.Channel, "conversations" | "open_tasks">;
/** `off`: no language model is connected. */
export type Classifier = Without<api.ClassifierHealth, "since">;
export type Alarm = Parsed<api.Alarm>;
/** A stage over the last minutes. `breach` says in words that the budget is broken; empty where it is kept. */
export type StageHealth = Without<api.StageHealth, "words" | "used">;
/** `trace_url`: where a trace can be looked at, with {trace_id} in it; null where no backend is connected. */
export type Health = Without<api.Health, "classifier" | "budget" | "stages"> & {
  classifier: Classifier | null;
  budget: Budget;
  stages: StageHealth[];
};
export type Caption = Without<api.CaptionEvent, "type" | "side">;
/** 0 ms: it is whole again. */
export type Behind = Without<api.BehindEvent, "type">;

/** How a prompt version did on a labelled set; shares are 0 to 1. */
export type PromptNumbers = Without<api.PromptNumbers, "prompt_tokens" | "completion_tokens">;
/** A version against the one that was live then, on the same set. */
export type PromptComparison = Without<api.PromptComparison, "set_id" | "candidate" | "live"> & {
  candidate: PromptNumbers;
  live: PromptNumbers;
};
export type PromptInfo = Without<api.PromptInfo, "added_at" | "added_by">;
export type PromptAction = api.PromptEvent["action"];
export type PromptEvent = Without<api.PromptEvent, "evidence"> & { evidence: PromptComparison | null };
/** A version that conversations have now: `weight` per cent of them. */
export type PromptInForce = Without<api.PromptInForce, "prompt" | "event"> & { prompt: PromptInfo; event: PromptEvent | null };
export type Prompts = Without<api.PromptsView, "versions" | "live" | "canary" | "events"> & {
  live: PromptInForce | null;
  canary: PromptInForce | null;
  events: PromptEvent[];
};

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

/** What the board shows beside open work: the newest cards, and those of the tasks done last. */
export type BoardRule = Without<api.Board, "open">;
/** Unfinished tasks that a first state does not have, by urgency; `older`: there are older cards. */
export type LeftOut = Parsed<api.LeftOut>;

type Hello = Without<api.HelloEvent, "classifier" | "health" | "role" | "conversations" | "board"> & {
  role: Role;
  board: BoardRule | null;
  health: Health | null;
  conversations: Conversation[];
};
export type LiveMessage =
  | Hello
  | { type: "card"; card: Card }
  | { type: "cards"; cards: Card[] }
  | { type: "replayed"; change: number; left_out: LeftOut | null }
  | { type: "caption"; caption: Caption }
  | { type: "behind"; behind: Behind }
  | { type: "task"; task: Task; change: number }
  | { type: "conversation"; conversation: Conversation }
  | { type: "health"; health: Health };
export type PageMessage = api.PageMessage;
