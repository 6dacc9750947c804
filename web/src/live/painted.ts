/** The last stage of the latency receipt: from the receipt of a card to the frame in which it was painted. */
import type { PageMessage } from "../model/protocol";
import { revisionOf, type Entry } from "../state/store";

interface Waiting {
  entry: Entry;
  revision: number;
  receivedAt: number;
}

const mounted = new Set<string>();
let waiting: Waiting[] = [];
let scheduled = false;
let report: (message: PageMessage) => void = () => {};

export const reportTo = (send: (message: PageMessage) => void): void => {
  report = send;
};

/** Views say which cards are in the document; only those can be painted. */
export const cardMounted = (id: string): (() => void) => {
  mounted.add(id);
  return () => mounted.delete(id);
};

/** Since when the page is in sight: one in the background is not painted, and its cards do not come late for it. */
let visibleSince = 0;
document.addEventListener("visibilitychange", () => {
  visibleSince = document.hidden ? Infinity : performance.now();
});

/** Called in the frame in which the card is put into the document; the second frame from here comes after its paint. */
export function awaitPaint(entry: Entry, receivedAt: number): void {
  if (document.hidden) return;
  waiting.push({ entry, revision: revisionOf(entry.truth), receivedAt });
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => requestAnimationFrame(settle));
}

function settle(now: number): void {
  const due = waiting;
  waiting = [];
  scheduled = false;
  for (const { entry, revision, receivedAt } of due) {
    if (!mounted.has(entry.id) || receivedAt < visibleSince) continue;
    const ms = Math.round(Math.max(0, now - receivedAt) * 10) / 10;
    entry.paintedMs = ms;
    report({ type: "painted", utterance_id: entry.id, revision, painted_ms: ms });
  }
}
