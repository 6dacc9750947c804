/** Live messages → state, once an animation frame: fifty cards a second cost one rendering a frame, not fifty. */
import { batch } from "@preact/signals";
import { clockTime } from "../model/format";
import type { Caption, Card, LeftOut, LiveMessage } from "../model/protocol";
import { departmentWords, humanise } from "../model/words";
import * as app from "../state/app";
import { expirePartials, followConversation, forgetCaptions, hearBehind, hearCaption, keepCaptions, recallCard } from "../state/captions";
import { mostUrgent } from "../state/sections";
import { boardRule, endMissing, entryOf, forgetAll, putCard, putConversation, putTask, trim } from "../state/store";
import { confirm, expireUnconfirmed, hearEmergency, isUnconfirmed, unconfirmed } from "../state/unconfirmed";
import { awaitPaint } from "./painted";

const HIDDEN_FLUSH_MS = 250;
const MAX_WAITING = 5000;

let waiting: { message: LiveMessage; receivedAt: number }[] = [];
let scheduled = false;
let lastChange: number | null = null;
/** Whose numbers they are; empty where an older server does not say it. */
let side = "";
type Hello = Extract<LiveMessage, { type: "hello" }>;
/** What the server sends first is kept back until it is complete: a board that fills up shows wrong counts. */
let replay: { hello: Hello; cards: Card[] } | null = null;
const announced = new Set<string>();

export const after = (): string | null => (lastChange === null ? null : side === "" ? `${lastChange}` : `${side}:${lastChange}`);
/** Whether its danger came while the page was connected; what is replayed was there before. */
export const cameLive = (id: string): boolean => announced.has(id) || isUnconfirmed(id);

/** Called after a hello. */
let onHello: () => void = () => {};
export const whenGreeted = (call: () => void): void => {
  onHello = call;
};

export function forgetEverything(): void {
  waiting = [];
  announced.clear();
  unconfirmed.value = [];
  forgetBoard();
  forgetCaptions();
}

/** What another server tells anew; what was just said is not told again. */
function forgetBoard(): void {
  replay = null;
  lastChange = null;
  app.leftOut.value = null;
  app.caughtUp.value = false;
  forgetAll();
}

export function take(message: LiveMessage, receivedAt: number): void {
  waiting.push({ message, receivedAt });
  if (waiting.length >= MAX_WAITING) flush();
  else if (!scheduled) {
    scheduled = true;
    // A page in the background gets no frames, but must not pile messages up.
    if (document.hidden) window.setTimeout(flush, HIDDEN_FLUSH_MS);
    else requestAnimationFrame(flush);
  }
}

document.addEventListener("visibilitychange", () => {
  if (scheduled) window.setTimeout(flush);
});

function flush(): void {
  const messages = waiting;
  waiting = [];
  scheduled = false;
  batch(() => {
    for (const { message, receivedAt } of messages) apply(message, receivedAt);
    trim();
  });
}

const reached = (change: number): void => {
  if (lastChange === null || change > lastChange) lastChange = change;
};

function apply(message: LiveMessage, receivedAt: number): void {
  switch (message.type) {
    case "hello": {
      replay = { hello: message, cards: [] };
      const known = app.session.peek();
      app.session.value = { role: message.role, site: message.site || (known?.site ?? ""), version: message.version };
      if (message.health) app.health.value = message.health;
      onHello();
      break;
    }
    case "cards":
      replay?.cards.push(...message.cards);
      break;
    case "replayed":
      endReplay(message.left_out);
      break;
    case "card": {
      if (replay) {
        replay.cards.push(message.card);
        break;
      }
      const entry = putCard(message.card, true);
      reached(message.card.change);
      recallCard(message.card, Date.now());
      awaitPaint(entry, receivedAt);
      announce(message.card);
      confirm(message.card);
      break;
    }
    case "task":
      putTask(message.task, message.change);
      reached(message.change);
      break;
    case "caption":
      hearCaption(message.caption, Date.now());
      if (message.caption.emergency) announceUnconfirmed(message.caption);
      break;
    case "behind":
      hearBehind(message.behind, Date.now());
      break;
    case "conversation":
      putConversation(message.conversation);
      followConversation(message.conversation);
      break;
    case "health":
      app.health.value = message.health;
      // An older server does not say when it has sent everything, but says nothing else before that.
      endReplay(null);
      expirePartials(Date.now());
      expireUnconfirmed(Date.now());
      break;
  }
}

/** All of it at once. Only now does `after` move on: what a connection that breaks had not finished comes again. */
function endReplay(leftOut: LeftOut | null): void {
  if (!replay) return;
  const { hello, cards } = replay;
  if (hello.reset) forgetBoard();
  replay = null;
  if (hello.board) boardRule.value = hello.board;
  if (hello.reset) app.leftOut.value = leftOut;
  const live = new Set(hello.conversations.map((each) => each.conversation_id));
  keepCaptions(live);
  endMissing(live);
  for (const conversation of hello.conversations) {
    putConversation(conversation);
    followConversation(conversation);
  }
  for (const card of cards) {
    putCard(card, true);
    recallCard(card, Date.now());
    confirm(card);
  }
  side = hello.side;
  reached(hello.change);
  app.caughtUp.value = true;
}

/** What its card will have to confirm is read out as such, too. */
function announceUnconfirmed(caption: Caption): void {
  if (caption.utterance_id === null || announced.has(caption.utterance_id) || isUnconfirmed(caption.utterance_id)) return;
  if ((entryOf(caption.utterance_id)?.card.value.insights.length ?? 0) > 0) return;
  hearEmergency(caption, Date.now());
  app.alertText.value = `Perhaps an emergency, not confirmed, on ${humanise(caption.channel)}: ${caption.text}`;
}

/** Danger is read out at once, and only once. */
function announce(card: Card): void {
  if (card.insights.length === 0 || mostUrgent(card.insights) !== "critical") return;
  if (announced.has(card.utterance_id)) return;
  announced.add(card.utterance_id);
  for (const insight of card.insights) {
    if (insight.urgency !== "critical") continue;
    const rooms = insight.rooms.length > 0 ? `room ${insight.rooms.join(", ")}, ` : "";
    const time = clockTime(card.spoken_at, Date.now(), false);
    app.alertText.value = `Critical, ${rooms}${departmentWords(insight.department)}: ${insight.summary}. Said at ${time}.`;
  }
}
