/**
 * What the board shows now, given the truth, who is holding it still, and the time. Pure.
 * A card keeps its place while the pointer or the focus holds its region, and for ten seconds after one of its tasks changed.
 */
import type { TaskStatus } from "../model/protocol";
import type { Section } from "./sections";

/** How long a card keeps its place after one of its tasks was acknowledged, closed or reopened. */
export const LINGER_MS = 10_000;
/** How long a card may wait to be classified before it is shown without: its words are in the captions meanwhile. */
export const GRACE_MS = 2000;
/** How long a newcomer that nobody has scrolled to counts as new. */
export const NEW_MS = 5 * 60_000;

/** A part of the board whose changes move nothing outside of it; `top` spans the columns, so its changes move them all. */
export type Region = "top" | "high" | "normal" | "side";

export interface Hold {
  /** The page is scrolled, or its sections are stacked: a change anywhere may move what is looked at. */
  all: boolean;
  regions: ReadonlySet<Region>;
}

/** One card as it is, and where it belongs. `section` is null where the filters leave it out. */
export interface Truth<E> {
  id: string;
  entry: E;
  section: Section | null;
  /** Lower ones come first within their section. */
  rank: number;
  /** When it was said, in ms, and its number in its conversation. */
  spoken: number;
  seq: number;
  /** Not classified, and not due to be read without. */
  raw: boolean;
  statuses: ReadonlyMap<string, TaskStatus>;
}

/** One card in its place. */
export interface Item<E> extends Truth<E> {
  section: Section;
  /** Belongs elsewhere by now, and goes there when it may. */
  leaving: boolean;
  /** Keeps its place until then, in ms. */
  pinned: number;
  /** Tasks that were closed while the card was in sight: closing them can be undone. */
  undo: ReadonlySet<string>;
  /** When it came into this section, in ms; 0 for what was there from the start. */
  came: number;
}

export interface Board<E> {
  sections: Record<Section, Item<E>[]>;
  /** Cards that wait to come into a section. */
  waiting: Record<Section, E[]>;
  /** When to arrange again though nothing else happens, in ms; Infinity for never. */
  due: number;
  items: ReadonlyMap<string, Item<E>>;
  /** When each unclassified card was first seen, in ms. */
  raw: ReadonlyMap<string, number>;
}

export interface Moment {
  hold: Hold;
  now: number;
  /** False for the first board of all: everything comes in at once, and nothing is new. */
  again: boolean;
  /** The section whose waiting cards somebody has asked for. */
  admit: Section | null;
}

const NOTHING: ReadonlySet<string> = new Set();
const bySection = <T>(): Record<Section, T[]> => ({ critical: [], unclassified: [], high: [], normal: [], information: [], done: [] });

export const emptyBoard = <E>(): Board<E> => ({ sections: bySection(), waiting: bySection(), due: Infinity, items: new Map(), raw: new Map() });

export function regionOf(section: Section): Region {
  if (section === "high" || section === "normal") return section;
  return section === "critical" || section === "unclassified" ? "top" : "side";
}

/** Return whether a change in this section would move what somebody holds. */
export function frozen(section: Section, hold: Hold): boolean {
  const region = regionOf(section);
  return hold.all || hold.regions.has(region) || (region === "top" && hold.regions.size > 0);
}

/** Oldest first where there is work, so that newcomers append; newest first in what is only read. */
function order<E>(a: Item<E>, b: Item<E>): number {
  const age = a.spoken - b.spoken || a.seq - b.seq;
  return a.rank - b.rank || (a.section === "information" || a.section === "done" ? -age : age);
}

/** Return the item with its pin and its undoable tasks brought up to date with the statuses of its tasks. */
function withNews<E>(item: Item<E>, truth: Truth<E>, moment: Moment): Item<E> {
  let { pinned, undo } = item;
  for (const [id, status] of truth.statuses) {
    const before = item.statuses.get(id);
    if (before === undefined || before === status) continue;
    pinned = moment.now + LINGER_MS;
    undo = new Set([...undo].filter((each) => each !== id).concat(status === "done" ? id : []));
  }
  const over = moment.now >= pinned && !frozen(item.section, moment.hold);
  return { ...item, entry: truth.entry, statuses: truth.statuses, pinned, undo: over ? NOTHING : undo };
}

function mayMove<E>(item: Item<E>, target: Section | null, moment: Moment): boolean {
  const danger = target === "critical" && item.section !== "critical";
  if (moment.now < item.pinned && !danger) return false;
  if (target !== null && target === moment.admit) return true;
  return !frozen(item.section, moment.hold) && !(target !== null && frozen(target, moment.hold));
}

/** Work out the next board from the last one. Doing it again with the same arguments changes nothing. */
export function arrange<E>(last: Board<E>, truths: Iterable<Truth<E>>, moment: Moment): Board<E> {
  const { now, again, hold, admit } = moment;
  const items = new Map<string, Item<E>>();
  const raw = new Map<string, number>();
  const next: Board<E> = { ...emptyBoard<E>(), items, raw };
  const wake = (at: number): void => {
    if (at > now) next.due = Math.min(next.due, at);
  };
  const place = (item: Item<E>): void => {
    items.set(item.id, item);
    next.sections[item.section].push(item);
    wake(item.pinned);
  };
  const enter = (truth: Truth<E>): void => {
    if (truth.section === null) return;
    if (truth.raw) {
      const since = last.raw.get(truth.id) ?? now;
      raw.set(truth.id, since);
      wake(since + GRACE_MS);
      if (now < since + GRACE_MS) return;
    }
    if (again && admit !== truth.section && frozen(truth.section, hold)) next.waiting[truth.section].push(truth.entry);
    else place({ ...truth, section: truth.section, leaving: false, pinned: 0, undo: NOTHING, came: again ? now : 0 });
  };
  const keep = (known: Item<E>, truth: Truth<E>): void => {
    const item = withNews(known, truth, moment);
    const target = truth.section;
    if (target === item.section && truth.rank === item.rank) place({ ...item, leaving: false });
    else if (mayMove(item, target, moment)) {
      if (target !== null) place({ ...item, section: target, rank: truth.rank, leaving: false, pinned: 0, came: item.section === target ? item.came : now });
    } else {
      const news = target !== null && target !== "done" && target !== item.section;
      if (news && (now >= item.pinned || target === "critical")) next.waiting[target].push(item.entry);
      place({ ...item, leaving: target !== item.section });
    }
  };
  const seen = new Set<string>();
  for (const truth of truths) {
    const known = last.items.get(truth.id);
    seen.add(truth.id);
    if (known) keep(known, truth);
    else enter(truth);
  }
  for (const gone of last.items.values()) if (!seen.has(gone.id)) keep(gone, { ...gone, section: null });
  for (const section of Object.values(next.sections)) section.sort(order);
  return next;
}

/** Return the cards of a section that came lately and that nobody has had in view. */
export function unseen<E>(items: readonly Item<E>[], seen: ReadonlySet<string>, now: number): Item<E>[] {
  return items.filter((item) => item.came > 0 && now - item.came < NEW_MS && !item.leaving && !seen.has(item.id));
}
