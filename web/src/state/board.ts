/** The board in time: feeds `arrange` with the cards, the filters, who holds the board still, and the clock. */
import { computed, signal } from "@preact/signals";
import type { TaskStatus } from "../model/protocol";
import * as app from "./app";
import { arrange, emptyBoard, type Board, type Hold, type Region, type Truth } from "./arrange";
import { filters } from "./route";
import { passes, sectionOf, type Filters, type Section } from "./sections";
import { listed, type Entry } from "./store";

/** Unclassified for this long: somebody must read it. */
const UNREAD_MS = 15_000;
/** So long a card that a person must listen to stands above the columns; nothing tells that it was done. */
const LISTEN_MS = 600_000;

export const pointerIn = signal<Region | null>(null);
export const focusIn = signal<Region | null>(null);
export const scrolled = signal(false);
/** The columns are below each other, at least in part: a change in one moves another. */
export const stacked = signal(false);
/** Nobody has touched mouse or screen for minutes: a forgotten pointer holds nothing. */
export const idle = signal(false);

const hold = computed<Hold>(() => {
  const regions = new Set<Region>();
  if (focusIn.value) regions.add(focusIn.value);
  if (pointerIn.value && !idle.value) regions.add(pointerIn.value);
  return { all: (scrolled.value && !idle.value) || (stacked.value && regions.size > 0), regions };
});

const tick = signal(0);
let admit: Section | null = null;
let last: Board<Entry> = emptyBoard();
/** The filters of the last board; null when there is none, and the next one is there from the start. */
let lastFilters: Filters | null = null;

const inHand = (statuses: ReadonlyMap<string, TaskStatus>): boolean => statuses.size > 0 && ![...statuses.values()].includes("open");

function truthOf(entry: Entry, wanted: Filters, now: number): Truth<Entry> {
  const card = entry.card.peek();
  const own = sectionOf(card);
  const statuses = new Map(card.tasks.map((task) => [task.task_id, task.status]));
  const late = app.classifierAway.value || now - entry.spoken > UNREAD_MS;
  const listen = own === "information" && card.status !== "ok" && now - entry.spoken < LISTEN_MS;
  const section = listen ? "unclassified" : own === "unclassified" && !late ? "information" : own;
  return {
    id: entry.id,
    entry,
    section: passes(card, wanted) ? section : null,
    // Danger that somebody has in hand comes after danger that nobody has.
    rank: own === "critical" && inHand(statuses) ? 1 : 0,
    spoken: entry.spoken,
    seq: card.seq,
    raw: own === "unclassified" && !app.classifierAway.value,
    statuses,
  };
}

/** What the board shows. Remembers what it showed before: cards keep their places. */
export const board = computed<Board<Entry>>(() => {
  void tick.value;
  void app.now.value;
  const now = Date.now();
  const wanted = filters.value;
  // Somebody asked for another board: nothing of the last one stays.
  const again = wanted === lastFilters && listed.value.length > 0;
  if (!again) last = emptyBoard();
  lastFilters = wanted;
  const truths = listed.value.map((entry) => truthOf(entry, wanted, now));
  last = arrange(last, truths, { hold: hold.value, now, again, admit });
  admit = null;
  return last;
});

/** Bring the waiting cards of a section in. */
export function bringIn(section: Section): void {
  admit = section;
  tick.value++;
}

/** Arrange again: the time that `board` named is over. */
export const rearrange = (): void => {
  tick.value++;
};

/** Forget where cards were and who held them, for the board is left. */
export function leaveBoard(): void {
  last = emptyBoard();
  lastFilters = null;
  pointerIn.value = null;
  focusIn.value = null;
  seen.value = new Set();
}

/** Newcomers that have been in view. */
export const seen = signal<ReadonlySet<string>>(new Set());
export const markSeen = (ids: readonly string[]): void => {
  seen.value = new Set([...seen.peek(), ...ids]);
};
