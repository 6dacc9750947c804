/** Small pieces of state that many views read: session, connection, health, time, notices. */
import { computed, signal } from "@preact/signals";
import type { Budget, Health, Session } from "../model/protocol";

export type Connection = "connecting" | "live" | "waiting" | "offline";
export type Access = "checking" | "out" | "in" | "unreachable";

export const access = signal<Access>("checking");
export const session = signal<Session | null>(null);
export const signInError = signal<string | null>(null);
export const connection = signal<Connection>("connecting");
/** When the next attempt to connect is due (ms since the epoch). */
export const retryAt = signal<number | null>(null);
/** The first messages after connecting are in: from here an empty board means that nothing was heard. */
export const caughtUp = signal(false);
/** The older work is in as well, or has taken too long: the board is shown, and a card that comes in is new. */
export const filled = signal(false);
export const health = signal<Health | null>(null);
const NOBODY_CLASSIFIES = new Set(["intelligence.away", "intelligence.store"]);
/** Nobody classifies what is said, or can keep the result: people must read it themselves. */
export const classifierAway = computed<boolean>(() => (health.value?.alarms ?? []).some((alarm) => NOBODY_CLASSIFIES.has(alarm.code)));
let lastBudget: Budget = {};
/** Milliseconds allowed for each stage; the same object while it says the same, for every card shows it. */
export const budget = computed<Budget>(() => {
  const said = health.value?.budget ?? {};
  if (JSON.stringify(said) !== JSON.stringify(lastBudget)) lastBudget = said;
  return lastBudget;
});
/** The address of a trace in the backend, or null where none is connected. */
export const traceUrl = computed<string | null>(() => health.value?.trace_url ?? null);
/** A coarse clock for ages on cards. */
export const now = signal(Date.now());
/** Every channel that was ever heard; the cards here may be of fewer. */
export const channels = signal<readonly string[]>([]);
/** Names that work was assigned to, offered again. */
export const assignees = signal<readonly string[]>([]);

export interface Notice {
  id: number;
  text: string;
}
export const notices = signal<readonly Notice[]>([]);
const MAX_NOTICES = 4;
const NOTICE_MS = 9000;
let lastNotice = 0;

export function notify(text: string): void {
  const id = ++lastNotice;
  notices.value = [...notices.value, { id, text }].slice(-MAX_NOTICES);
  window.setTimeout(() => dismiss(id), NOTICE_MS);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

/** Read out at once by a screen reader. */
export const alertText = signal("");
/** Read out when the reader has time. */
export const politeText = signal("");
