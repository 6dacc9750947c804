/** Emergencies by their words alone: heard ahead of what was said before them, and not confirmed by a card yet. */
import { signal } from "@preact/signals";
import type { Caption, Card } from "../model/protocol";
import type { Critical } from "./attention";

/** One whose card never came: its conversation was lost. */
const LIVES_MS = 600_000;
const MAX = 50;

export const unconfirmed = signal<readonly Critical[]>([]);

export const isUnconfirmed = (utteranceId: string): boolean => unconfirmed.peek().some((each) => each.utteranceId === utteranceId);

export function hearEmergency(caption: Caption, now: number): void {
  const { utterance_id, conversation_id, channel, text } = caption;
  if (utterance_id === null || isUnconfirmed(utterance_id)) return;
  const heard: Critical = {
    key: `unconfirmed:${utterance_id}`,
    utteranceId: utterance_id,
    task: null,
    summary: text,
    rooms: [],
    department: "",
    spokenAt: new Date(now).toISOString(),
    spoken: now,
    unconfirmed: { channel, conversationId: conversation_id },
  };
  unconfirmed.value = [...unconfirmed.peek(), heard].slice(-MAX);
}

/** Its card says now what it is; one that is not classified yet says nothing. */
export function confirm(card: Card): void {
  if (card.insights.length > 0 && isUnconfirmed(card.utterance_id)) {
    unconfirmed.value = unconfirmed.peek().filter((each) => each.utteranceId !== card.utterance_id);
  }
}

export function expireUnconfirmed(now: number): void {
  const left = unconfirmed.peek().filter((each) => now - each.spoken < LIVES_MS);
  if (left.length !== unconfirmed.peek().length) unconfirmed.value = left;
}
