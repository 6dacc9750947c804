/**
 * What the page knows: cards and conversations. Live messages and answers to queries come in, views read signals.
 * A human's click shows at once as a pending change laid over the server's truth, and falls away when answered.
 */
import { batch, computed, signal, type Signal } from "@preact/signals";
import type { BoardRule, Card, Conversation, Insight, Task } from "../model/protocol";

export interface Entry {
  readonly id: string;
  readonly card: Signal<Card>;
  /** When it was said, in ms since the epoch; cards are ordered by it. */
  readonly spoken: number;
  /** As the server last said; `card` has the pending changes laid over it. */
  truth: Card;
  /** On the board; others were only fetched for a search or a conversation. */
  listed: boolean;
  /** Receipt of the message to paint, in ms, once measured. */
  paintedMs: number | null;
}

export const MAX_CARDS = 3000;
const TRIM_TO = 2700;

/** Counts up whenever the board may look different; computed views depend on it. */
export const boardVersion = signal(0);
export const conversations = signal<ReadonlyMap<string, Conversation>>(new Map());
/** What the board shows beside open work; the server says it. */
export const boardRule = signal<BoardRule>({ recent: 200, done: 100 });

const entries = new Map<string, Entry>();
const pending = new Map<string, Partial<Task>>();
const MAX_CONVERSATIONS = 500;

const withPending = (task: Task): Task => {
  const change = pending.get(task.task_id);
  return change ? { ...task, ...change } : task;
};

function show(entry: Entry): void {
  const { truth } = entry;
  const touched = truth.tasks.some((task) => pending.has(task.task_id));
  entry.card.value = touched ? { ...truth, tasks: truth.tasks.map(withPending) } : truth;
  boardVersion.value++;
}

const newest = (insights: readonly Insight[]): number => Math.max(0, ...insights.map((insight) => insight.revision));
export const revisionOf = (card: Card): number => newest(card.insights);

/** Takes a card in, unless what is known is newer. */
export function putCard(card: Card, listed: boolean): Entry {
  const known = entries.get(card.utterance_id);
  if (!known) {
    const spoken = Date.parse(card.spoken_at);
    const entry: Entry = {
      id: card.utterance_id,
      card: signal(card),
      spoken: Number.isNaN(spoken) ? 0 : spoken,
      truth: card,
      listed,
      paintedMs: null,
    };
    entries.set(entry.id, entry);
    show(entry);
    return entry;
  }
  known.listed ||= listed;
  if (card.change >= known.truth.change) {
    known.truth = card;
    show(known);
  } else if (listed) {
    boardVersion.value++;
  }
  return known;
}

export function putTask(task: Task, change: number): void {
  const entry = entries.get(task.utterance_id);
  if (!entry || change < entry.truth.change) return;
  const others = entry.truth.tasks.filter((each) => each.task_id !== task.task_id);
  const tasks = [...others, task].sort((a, b) => a.insight_index - b.insight_index);
  entry.truth = { ...entry.truth, tasks, change };
  show(entry);
}

/** The server's answer to a click: taken unless something newer came by the live connection since it was `before`. */
export function settleTask(task: Task, before: Task | undefined): void {
  const entry = entries.get(task.utterance_id);
  const current = entry?.truth.tasks.find((each) => each.task_id === task.task_id);
  if (entry && current && (current === before || isLater(task, current))) putTask(task, entry.truth.change);
}

const isLater = (task: Task, than: Task): boolean => task.version !== null && than.version !== null && task.version > than.version;

/** Lays a change over a task until it is answered; returns how to take it away again. */
export function pendTask(task: Task, change: Partial<Task>): () => void {
  const refresh = (): void => {
    const entry = entries.get(task.utterance_id);
    if (entry) show(entry);
  };
  pending.set(task.task_id, change);
  refresh();
  return () => {
    if (pending.get(task.task_id) === change) pending.delete(task.task_id);
    refresh();
  };
}

export const isPending = (task: Task): boolean => pending.has(task.task_id);
export const entryOf = (id: string): Entry | undefined => entries.get(id);
export const truthOf = (task: Task): Task | undefined =>
  entries.get(task.utterance_id)?.truth.tasks.find((each) => each.task_id === task.task_id);

const needed = (card: Card): boolean =>
  card.tasks.length > 0 ? card.tasks.some((task) => task.status !== "done") : card.insights.length === 0 && card.status === "ok";

/** The same transmission through another receiver: its first card tells of it. Work that a person has touched stays. */
const isCopy = (card: Card): boolean => card.relates_to !== null && card.tasks.length === 0;

const doneAt = (card: Card): string[] => card.tasks.flatMap((task) => (task.status === "done" ? (task.completed_at ?? "") : []));

/**
 * The cards of the board, newest first: all work left, the newest cards, and those of the tasks done last. The server
 * chooses by the same rule what it sends first, so that a page shows the same after a reload.
 *
 * Reads `boardVersion`, which counts every change, so computed views need only peek at the cards: depending on
 * thousands of signals one by one would cost more than the work itself.
 */
export function boardEntries(): Entry[] {
  void boardVersion.value;
  const { recent, done } = boardRule.value;
  const known: Entry[] = [];
  for (const entry of entries.values()) if (entry.listed) known.push(entry);
  known.sort((a, b) => b.spoken - a.spoken || b.truth.seq - a.truth.seq || (a.id < b.id ? -1 : 1));
  const since = known[recent - 1]?.spoken ?? -Infinity;
  // Times of one form and zone: their order is that of their letters.
  const finished = known.flatMap((entry) => doneAt(entry.truth)).sort((a, b) => (a < b ? 1 : -1));
  const doneSince = finished[done - 1] ?? "";
  return known.filter(
    ({ spoken, truth }) => !isCopy(truth) && (spoken >= since || needed(truth) || doneAt(truth).some((at) => at >= doneSince)),
  );
}

/** The same, worked out once a change for all views. */
export const listed = computed(boardEntries);
/** Cards that the page has, but the board does not show any more. */
export const someHidden = computed(() => {
  let shown = listed.value.length;
  for (const entry of entries.values()) shown -= Number(entry.listed && !isCopy(entry.truth));
  return shown < 0;
});

/** Keeps the page light over a long shift: lets the oldest cards go that the board does not show. */
export function trim(): void {
  if (entries.size <= MAX_CARDS) return;
  const shown = new Set(boardEntries());
  const oldestFirst = [...entries.values()].sort((a, b) => a.spoken - b.spoken);
  for (const entry of oldestFirst) {
    if (entries.size <= TRIM_TO) break;
    if (!shown.has(entry)) entries.delete(entry.id);
  }
  boardVersion.value++;
}

/** Lets go of what was only fetched for a view that has been left. */
export function forgetUnlisted(keep: ReadonlySet<string> = new Set()): void {
  for (const entry of entries.values()) if (!entry.listed && !keep.has(entry.id)) entries.delete(entry.id);
}

export function putConversation(conversation: Conversation): void {
  const next = new Map(conversations.peek());
  next.delete(conversation.conversation_id);
  next.set(conversation.conversation_id, conversation);
  for (const [id, each] of next) {
    if (next.size <= MAX_CONVERSATIONS) break;
    if (each.state !== "live") next.delete(id);
  }
  conversations.value = next;
}

/** What ended while the page was away is not live any more; how it ended, a query will tell. */
export function endMissing(live: ReadonlySet<string>): void {
  const left = [...conversations.peek()].filter(([id, each]) => each.state === "ended" || each.state === "expired" || live.has(id));
  conversations.value = new Map(left);
}

export function forgetAll(): void {
  batch(() => {
    entries.clear();
    conversations.value = new Map();
    boardVersion.value++;
  });
}
