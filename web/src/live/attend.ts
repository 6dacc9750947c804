/** Calls for attention while something critical is unacknowledged: the sound, a notification, the title, the icon. */
import { computed, effect, signal, untracked } from "@preact/signals";
import { clockTime, plural } from "../model/format";
import { departmentWords, humanise } from "../model/words";
import * as app from "../state/app";
import { nextRing, reconnected, SILENT, step, unseenCriticals, type Critical } from "../state/attention";
import { conversationLink, route, utteranceLink } from "../state/route";
import { listed } from "../state/store";
import { unconfirmed } from "../state/unconfirmed";
import { cameLive } from "./intake";
import { chime, notifyOutside } from "./sound";

const SEEN_KEY = "quickcomm.seen";
const MAX_SEEN = 200;

const seen = signal<ReadonlySet<string>>(new Set());
/** What needs somebody now, the oldest first; whatever the filters and the view. */
export const unseen = computed<Critical[]>(() => {
  const cards = listed.value.map((entry) => entry.card.peek());
  const found = unseenCriticals(cards, seen.value, app.now.value);
  // What was just heard and nothing has confirmed yet is the newest there is.
  return [...found, ...unconfirmed.value.filter((each) => !seen.value.has(each.key))];
});

function seenBefore(): ReadonlySet<string> {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(SEEN_KEY) ?? "[]");
    return new Set(Array.isArray(kept) ? kept.filter((each) => typeof each === "string") : []);
  } catch {
    return new Set();
  }
}

/** For what has no task to acknowledge; only in this browser, for the server has no place for it. */
export function markSeen(critical: Critical): void {
  const kept = [...seen.peek(), critical.key].slice(-MAX_SEEN);
  seen.value = new Set(kept);
  try {
    localStorage.setItem(SEEN_KEY, JSON.stringify(kept));
  } catch {
    // Without storage it holds until the page is closed.
  }
}

/** "Smoke in 430 · Security · 14:32"; the room only where the summary does not say it. */
export function criticalWords(critical: Critical, now: number): string {
  if (critical.unconfirmed) {
    const channel = humanise(critical.unconfirmed.channel) || "No channel";
    return `Not confirmed, ${channel}: “${critical.summary}” · ${clockTime(critical.spokenAt, now, false)}`;
  }
  const rooms = critical.rooms.filter((room) => !critical.summary.includes(room)).join(", ");
  const parts = [critical.summary, rooms && `Room ${rooms}`, departmentWords(critical.department), clockTime(critical.spokenAt, now, false)];
  return parts.filter(Boolean).join(" · ");
}

export const pageTitle = (waiting: number, critical: number, open: number, site: string): string => {
  const mark = waiting > 0 ? `⚠ ${waiting} critical, not acknowledged · ` : critical > 0 ? `(${critical} critical) ` : open > 0 ? `(${open}) ` : "";
  return `${mark}QuickComm${site ? ` · ${site}` : ""}`;
};

let ringing = SILENT;
let timer = 0;

function attend(): void {
  window.clearTimeout(timer);
  const waiting = unseen.peek();
  const now = Date.now();
  const next = step(ringing, waiting.map(({ key, utteranceId }) => ({ key, live: cameLive(utteranceId) })), now);
  ringing = next.ringing;
  if (next.ring) chime();
  const { view, query } = route.peek();
  const outOfSight = document.hidden || view !== "board" || query !== "";
  const fresh = waiting.filter((each) => next.fresh.includes(each.key));
  if (outOfSight && fresh.length > 0) tell(fresh, now);
  const due = nextRing(ringing);
  if (waiting.length > 0 && due !== null) timer = window.setTimeout(attend, Math.max(0, due - now));
}

/** The card, or the conversation of what has none yet. */
export const linkOf = (critical: Critical): string =>
  critical.unconfirmed ? conversationLink(critical.unconfirmed.conversationId) : utteranceLink(critical.utteranceId);

/** One notification, however many there are: after a load they may be many. */
function tell(fresh: Critical[], now: number): void {
  const [first] = fresh;
  if (!first) return;
  const title = fresh.length === 1 ? `Critical: ${first.summary}` : `${plural(fresh.length, "critical card")}: ${first.summary}`;
  notifyOutside(title, criticalWords(first, now), first.key, () => (location.hash = linkOf(first)));
}

const ICONS = { calm: "./favicon.svg", critical: "./favicon-critical.svg" };

/** Once, when the page starts. */
export function startAttending(): void {
  seen.value = seenBefore();
  effect(() => {
    if (app.connection.value === "live") ringing = reconnected(ringing);
  });
  effect(() => {
    void unseen.value;
    untracked(attend);
  });
  effect(() => {
    const icon = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
    const wanted = unseen.value.length > 0 ? ICONS.critical : ICONS.calm;
    if (icon && icon.getAttribute("href") !== wanted) icon.setAttribute("href", wanted);
  });
}
