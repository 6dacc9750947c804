/**
 * What is wrong, in words for a manager: what it means and what to do; the gravest first. How long single stages take is
 * no alarm: nobody on duty can do anything about it, and the Health panel has it. Pure.
 */
import type { Health } from "../model/protocol";
import { OPERATIONS_LINK } from "./route";

export interface AlarmLine {
  code: string;
  /** For where there is little room. */
  short: string;
  text: string;
  /** As the server says it, for whoever runs it. */
  detail: string;
  since: string | null;
  /** The gravest alarm is shown first. */
  weight: number;
  grave: boolean;
  /** Where on the page something can be done about it. */
  link: string | null;
}

interface Words {
  weight: number;
  short: string;
  /** Without it the server's own words stand. */
  text?: string;
  /** What to do, after the server's words. */
  advice?: string;
  link?: string;
}

const LISTEN = "Listen to the radio for what is urgent.";
const NOT_SORTED: Words = {
  weight: 75,
  short: "Cards are not sorted",
  text: "New cards are not sorted, and emergencies not marked: read them yourself until this line goes.",
};
const BEHIND: Words = { weight: 50, short: "Running behind", advice: LISTEN };
const BY_RULES: Words = {
  weight: 30,
  short: "No language model",
  text: "Cards are sorted by simpler rules, without the language model: check them against the words.",
};
const WORDS: Record<string, Words> = {
  "audio.away": {
    weight: 90,
    short: "Nothing is heard",
    text: "Nothing new is heard: listen to the radio yourself until this line goes. What is said is kept and comes later.",
  },
  "bus.unavailable": {
    weight: 85,
    short: "No new cards",
    text: "New cards do not come in: listen to the radio yourself until this line goes. What is said is kept and comes later.",
  },
  "disk.full": {
    weight: 84,
    short: "The disk is full",
    text: "The disk is full, and new cards may stop: tell whoever runs QuickComm, and listen to the radio. What is said is kept and comes later.",
  },
  "store.not_written": {
    weight: 84,
    short: "The disk is full",
    text: "What is said cannot be stored, and new cards stop: tell whoever runs QuickComm, and listen to the radio.",
  },
  "bus.outbox": {
    weight: 83,
    short: "Cards wait",
    text: "Cards wait to be handed on: listen to the radio for what is urgent until this line goes. Nothing is lost.",
  },
  "audio.no_text": { weight: 80, short: "A channel without text", advice: "Listen to that channel yourself." },
  "audio.same_tracks": {
    weight: 15,
    short: "Two tracks, one sound",
    advice: "Cards are right. Tell whoever runs QuickComm to send one track, or to connect the second speaker.",
  },
  "intelligence.away": NOT_SORTED,
  "intelligence.store": NOT_SORTED,
  "bus.memory": {
    weight: 65,
    short: "The store is almost full",
    text: "The store is almost full: tell whoever runs QuickComm. When it is full, nothing new is heard.",
  },
  "bus.dead_letters": {
    weight: 40,
    short: "A card may be missing",
    text: "Something said could not be turned into a card and was set aside: tell whoever runs QuickComm.",
  },
  "audio.stt_behind": { ...BEHIND, weight: 65 },
  "audio.refusing": { weight: 70, short: "New radios are refused", advice: LISTEN },
  "cards.late": BEHIND,
  language_model: BY_RULES,
  classifier: BY_RULES,
  "operations.parked": {
    weight: 25,
    short: "A decision is needed",
    text: "An operation has stopped half-way and waits until an administrator has it go on, or has it taken back.",
    link: OPERATIONS_LINK,
  },
  "history.lacking": {
    weight: 20,
    short: "Older cards are missing",
    text: "Cards of earlier shifts are not here: tell whoever runs QuickComm. New ones come as always.",
  },
};
const UNKNOWN: Words = { weight: 60, short: "Alarm" };
const GRAVE = 60;
const LOST: Words = { weight: 100, short: "Connection lost" };

function line(code: string, message: string, since: string | null, words: Words = WORDS[code] ?? UNKNOWN): AlarmLine {
  const said = message || code;
  const text = words.text ?? (words.advice === undefined ? said : `${said} ${words.advice}`);
  return { code, short: words.short, text, detail: said, since, weight: words.weight, grave: words.weight >= GRAVE, link: words.link ?? null };
}

/** `lost`: words for a connection that is lost, else null; `asOf`: when something came last, as a time of day. */
export function alarmLines(health: Health | null, lost: string | null, asOf: string): AlarmLine[] {
  const found = (health?.alarms ?? []).map((alarm) => line(alarm.code, alarm.message, alarm.since || null));
  if (health?.classifier?.degraded && !found.some((alarm) => alarm.code === "language_model")) {
    found.push(line("classifier", health.classifier.message, null));
  }
  if (lost !== null) {
    found.push(line("connection", `${lost}. What you see is as of ${asOf}; nothing new appears until it is back: listen to the radio.`, null, { ...LOST, short: lost }));
  }
  return found.sort((a, b) => b.weight - a.weight);
}
