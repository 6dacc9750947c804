/** Who is talking now, a tile a live channel. Captions come and go; nothing here is kept. */
import { signal, type Signal } from "@preact/signals";
import type { Behind, Caption, Card, Conversation } from "../model/protocol";

export interface Line {
  key: string;
  speaker: number;
  text: string;
  final: boolean;
  startOffset: number;
  conversationId: string;
  at: number;
}

export interface Tile {
  channel: string;
  conversations: readonly Conversation[];
  /** Latest first. */
  lines: readonly Line[];
  /** Conversations whose words wait to be written down. */
  behind: ReadonlyMap<string, { ms: number; at: number }>;
}

const MAX_LINES = 3;
const PARTIAL_LIVES_MS = 8000;
/** It is told every few seconds; of a process that died it is not told any more. */
const BEHIND_LIVES_MS = 12_000;

/** Names of the channels on the air, in a steady order, so that tiles do not jump about. */
export const onAir = signal<readonly string[]>([]);
const tiles = new Map<string, Signal<Tile>>();

export const tileOf = (channel: string): Signal<Tile> | undefined => tiles.get(channel);
/** By how many whole seconds the words of the channel come late; 0 while they are in time. */
export const secondsBehind = (tile: Tile): number => Math.round(Math.max(0, ...[...tile.behind.values()].map(({ ms }) => ms)) / 1000);
export const isTalking = (tile: Tile): boolean => tile.lines.some((line) => !line.final);

function ensure(channel: string): Signal<Tile> {
  const known = tiles.get(channel);
  if (known) return known;
  const made = signal<Tile>({ channel, conversations: [], lines: [], behind: new Map() });
  tiles.set(channel, made);
  onAir.value = [...tiles.keys()].sort((a, b) => a.localeCompare(b));
  return made;
}

function drop(channel: string): void {
  if (tiles.delete(channel)) onAir.value = onAir.peek().filter((each) => each !== channel);
}

export function hearCaption(caption: Caption, now: number): void {
  const tile = ensure(caption.channel);
  const key = `${caption.conversation_id}:${caption.speaker}`;
  const mine = tile.value.lines.find((line) => line.key === key);
  // A partial that was overtaken by its own final, or by the next sentence, says nothing new.
  if (mine && (caption.start_offset < mine.startOffset || (caption.start_offset === mine.startOffset && mine.final))) return;
  const others = tile.value.lines.filter((line) => line.key !== key);
  const line: Line = {
    key,
    speaker: caption.speaker,
    text: caption.text,
    final: caption.final,
    startOffset: caption.start_offset,
    conversationId: caption.conversation_id,
    at: now,
  };
  const lines = caption.text === "" ? others : [line, ...others].slice(0, MAX_LINES);
  tile.value = { ...tile.value, lines };
}

export function hearBehind({ conversation_id, channel, behind_ms }: Behind, now: number): void {
  const tile = tiles.get(channel);
  if (!tile) return;
  const behind = new Map(tile.value.behind);
  if (behind_ms > 0) behind.set(conversation_id, { ms: behind_ms, at: now });
  else behind.delete(conversation_id);
  tile.value = { ...tile.value, behind };
}

/** What was said last on a channel that is on the air, from its cards: a page that opens later shows it too. */
export function recallCard(card: Card, now: number): void {
  const talks = tiles.get(card.channel)?.value.conversations ?? [];
  if (card.text === "" || !talks.some((each) => each.conversation_id === card.conversation_id)) return;
  const { conversation_id, channel, speaker, start_offset, text, utterance_id } = card;
  hearCaption({ conversation_id, channel, speaker, start_offset, text, final: true, utterance_id, emergency: false }, now);
}

export function followConversation(conversation: Conversation): void {
  const id = conversation.conversation_id;
  const over = conversation.state === "ended" || conversation.state === "expired";
  if (over && !tiles.has(conversation.channel)) return;
  const tile = ensure(conversation.channel);
  const others = tile.value.conversations.filter((each) => each.conversation_id !== id && each.state !== "expired");
  // A radio that never came back is still missing, until somebody is heard on its channel again.
  const missing = conversation.state === "expired" && conversation.unreachable_since !== null && others.length === 0;
  const left = over && !missing ? others : [...others, conversation];
  if (left.length === 0) drop(conversation.channel);
  else {
    const lines = over ? tile.value.lines.filter((line) => line.conversationId !== id) : tile.value.lines;
    tile.value = { ...tile.value, conversations: left, lines };
  }
}

/** Partials whose final never came (their conversation broke off) fade away, and so does what was told of lateness. */
export function expirePartials(now: number): void {
  for (const tile of tiles.values()) {
    const lines = tile.value.lines.filter((line) => line.final || now - line.at < PARTIAL_LIVES_MS);
    if (lines.length !== tile.value.lines.length) tile.value = { ...tile.value, lines };
    const behind = new Map([...tile.value.behind].filter(([, { at }]) => now - at < BEHIND_LIVES_MS));
    if (behind.size !== tile.value.behind.size) tile.value = { ...tile.value, behind };
  }
}

/** Of a connection that was opened anew: conversations that go on keep their words, all else is told again. */
export function keepCaptions(live: ReadonlySet<string>): void {
  for (const [channel, tile] of tiles) {
    const lines = tile.value.lines.filter((line) => live.has(line.conversationId));
    if (lines.length === 0) drop(channel);
    else tile.value = { ...tile.value, conversations: [], lines, behind: new Map() };
  }
}

export function forgetCaptions(): void {
  tiles.clear();
  onAir.value = [];
}
