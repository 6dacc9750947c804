/** Which critical cards nobody has taken in hand yet, and when to sound for them. Pure; the clock is handed in. */
import type { Card, Insight, Task } from "../model/protocol";

/** Something critical that waits to be acknowledged; without a task to acknowledge it can only be marked as seen. */
export interface Critical {
  key: string;
  utteranceId: string;
  task: Task | null;
  summary: string;
  rooms: readonly string[];
  department: string;
  spokenAt: string;
  spoken: number;
  /** Where it was heard, for one that no card has confirmed yet. */
  unconfirmed: { channel: string; conversationId: string } | null;
}

/** A critical card without a task stays in nobody's hands for ever: after a shift it is history. */
export const TASKLESS_MS = 12 * 3_600_000;
export const AGAIN_MS = 20_000;
/** The first time included: two minutes of reminders, then the bar and the title have to do. */
export const MAX_RINGS = 6;
/** Two sounds are never closer: of a burst, the last one rings at its end. */
export const BURST_MS = 3_000;

const ofTask = (card: Card, task: Task): Critical => ({
  key: task.task_id,
  utteranceId: card.utterance_id,
  task,
  summary: task.summary,
  rooms: task.rooms,
  department: task.department,
  spokenAt: card.spoken_at,
  spoken: Date.parse(card.spoken_at) || 0,
  unconfirmed: null,
});

const ofInsight = (card: Card, insight: Insight): Critical => ({
  key: `${card.utterance_id}#${insight.index}`,
  utteranceId: card.utterance_id,
  task: null,
  summary: insight.summary,
  rooms: insight.rooms,
  department: insight.department,
  spokenAt: card.spoken_at,
  spoken: Date.parse(card.spoken_at) || 0,
  unconfirmed: null,
});

/** The oldest first. `seen`: keys of those without a task that were marked as seen here. */
export function unseenCriticals(cards: Iterable<Card>, seen: ReadonlySet<string>, now: number): Critical[] {
  const found: Critical[] = [];
  for (const card of cards) {
    for (const task of card.tasks) {
      if (task.urgency === "critical" && task.status === "open") found.push(ofTask(card, task));
    }
    for (const insight of card.insights) {
      if (insight.urgency !== "critical" || card.tasks.some((task) => task.insight_index === insight.index)) continue;
      const critical = ofInsight(card, insight);
      if (!seen.has(critical.key) && now - critical.spoken < TASKLESS_MS) found.push(critical);
    }
  }
  return found.sort((a, b) => a.spoken - b.spoken || (a.key < b.key ? -1 : 1));
}

/** What was rung for so far. */
export interface Ringing {
  known: ReadonlySet<string>;
  /** It has rung for what was there already when the page connected. */
  foundRung: boolean;
  rungAt: number | null;
  rings: number;
  /** Something new came too soon after a sound to have one of its own. */
  owed: boolean;
}

export const SILENT: Ringing = { known: new Set(), foundRung: false, rungAt: null, rings: 0, owed: false };

/** After a new connection: what happened meanwhile may ring once. */
export const reconnected = (ringing: Ringing): Ringing => ({ ...ringing, foundRung: false });

export interface Unseen {
  key: string;
  /** It came while the page was connected; others were there before. */
  live: boolean;
}

export interface Step {
  ringing: Ringing;
  ring: boolean;
  /** Those that ring for the first time. */
  fresh: string[];
}

/** Called whenever something changes, and when `nextRing` is due. */
export function step(before: Ringing, unseen: readonly Unseen[], now: number): Step {
  const known = new Set(unseen.map((each) => each.key));
  if (unseen.length === 0) return { ringing: { ...SILENT, known, foundRung: before.foundRung }, ring: false, fresh: [] };
  const unknown = unseen.filter((each) => !before.known.has(each.key));
  const fresh = unknown.filter((each) => each.live || !before.foundRung).map((each) => each.key);
  const foundRung = before.foundRung || unknown.some((each) => !each.live);
  const next = { ...before, known, foundRung, owed: before.owed || fresh.length > 0 };
  const due = nextRing(next);
  if (due === null || now < due) return { ringing: next, ring: false, fresh };
  return { ringing: { ...next, rungAt: now, rings: next.owed ? 1 : before.rings + 1, owed: false }, ring: true, fresh };
}

/** When the next sound is due, in ms since the epoch; null: not by itself. */
export function nextRing({ rungAt, rings, owed }: Ringing): number | null {
  if (owed) return rungAt === null ? 0 : rungAt + BURST_MS;
  return rungAt === null || rings >= MAX_RINGS ? null : rungAt + AGAIN_MS;
}
