/** Live messages → state, once an animation frame: fifty cards a second cost one rendering a frame, not fifty. */
import { batch } from "@preact/signals";
import { clockTime } from "../model/format";
import type { Card, LiveMessage } from "../model/protocol";
import { departmentWords } from "../model/words";
import * as app from "../state/app";
import { expirePartials, followConversation, forgetCaptions, hearCaption, recallCard } from "../state/captions";
import { mostUrgent } from "../state/sections";
import { endMissing, forgetAll, putCard, putConversation, putTask, trim } from "../state/store";
import { awaitPaint } from "./painted";

const HIDDEN_FLUSH_MS = 250;
const MAX_WAITING = 5000;

let waiting: { message: LiveMessage; receivedAt: number }[] = [];
let scheduled = false;
let lastChange: number | null = null;
let helloChange = 0;
const announced = new Set<string>();

export const after = (): number | null => lastChange;

/** Called after a hello, when its state is in place. */
let onHello: (reset: boolean) => void = () => undefined;
export const whenGreeted = (call: (reset: boolean) => void): void => {
  onHello = call;
};

export function forgetEverything(): void {
  waiting = [];
  lastChange = null;
  announced.clear();
  app.caughtUp.value = false;
  app.filled.value = false;
  forgetAll();
  forgetCaptions();
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
      if (message.reset) forgetEverything();
      helloChange = message.change;
      // Nothing to replay: this is where we are.
      if (message.change === 0) reached(0);
      const known = app.session.peek();
      app.session.value = { role: message.role, site: message.site || (known?.site ?? ""), version: message.version };
      if (message.health) app.health.value = message.health;
      forgetCaptions();
      endMissing(new Set(message.conversations.map((each) => each.conversation_id)));
      for (const conversation of message.conversations) {
        putConversation(conversation);
        followConversation(conversation);
      }
      onHello(message.reset);
      break;
    }
    case "card": {
      const entry = putCard(message.card, true);
      reached(message.card.change);
      app.caughtUp.value = true;
      recallCard(message.card, Date.now());
      awaitPaint(entry, receivedAt);
      if (message.card.change > helloChange) announce(message.card);
      break;
    }
    case "task":
      putTask(message.task, message.change);
      reached(message.change);
      break;
    case "caption":
      hearCaption(message.caption, Date.now());
      break;
    case "conversation":
      putConversation(message.conversation);
      followConversation(message.conversation);
      break;
    case "health":
      app.health.value = message.health;
      // The server sends what it has first: by the first health message the board is as full as it gets.
      app.caughtUp.value = true;
      expirePartials(Date.now());
      break;
  }
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
