/** Words an operator understands, for the names that the protocol uses. A site pack may bring others. */
import type { Card, Copy, Insight, TaskStatus, Understood, Urgency } from "./protocol";

const DEPARTMENTS: Record<string, string> = {
  food_beverage: "Food & beverage",
  none: "No department",
};

const INTENTS: Record<string, string> = {
  request_item: "Request",
  room_status: "Room status",
  lost_found: "Lost & found",
  food_order: "Food order",
  task_done: "Reported done",
};

export const URGENCY_WORDS: Record<Urgency, string> = {
  critical: "Critical",
  high: "High",
  normal: "Normal",
  low: "Low",
};

export const STATUS_WORDS: Record<TaskStatus, string> = {
  open: "Open",
  acknowledged: "Acknowledged",
  done: "Done",
};

export const STAGE_WORDS: Record<string, string> = {
  endpoint: "Waiting for the end of speech",
  stt: "Speech to text",
  publish: "Saving the text",
  queue: "Waiting in line",
  classify: "Understanding",
  store: "Saving the result",
  push: "Sending to pages",
  painted: "Showing it here",
  total: "End of speech to page",
};

/** Whose a stage is: by module, a receipt says which side served it. */
export const STAGE_MODULE: Record<string, string> = {
  endpoint: "audio",
  stt: "audio",
  publish: "audio",
  queue: "intelligence",
  classify: "intelligence",
  store: "dashboard",
  push: "dashboard",
};

/** "front_desk" and "front-desk" → "Front desk". */
export function humanise(name: string): string {
  const words = name.replaceAll(/[_-]+/gu, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export const departmentWords = (name: string): string => DEPARTMENTS[name] ?? humanise(name);
export const intentWords = (name: string): string => INTENTS[name] ?? humanise(name);

export function confidenceWords(confidence: number): "sure" | "fairly sure" | "unsure" {
  if (confidence >= 0.85) return "sure";
  return confidence >= 0.6 ? "fairly sure" : "unsure";
}

/** Why a card's words cannot be relied on, and what to do. */
export const LISTEN_WORDS: Record<Exclude<Understood, "ok">, string> = {
  unintelligible: "Somebody spoke, but no words were understood. Listen to the channel, or ask again.",
  not_english: "This is in another language; the words are a guess. Listen to the channel, or ask again.",
  low_confidence: "This was not heard clearly; the words are a guess. Listen to the channel, or ask again.",
};

/** Who understood it, where that is not the normal way. */
export function sourceWords(insight: Insight): string | null {
  if (insight.degraded) return "By the local classifier; will be checked again";
  return null;
}

/** Who wrote a summary or a report. */
export const writtenBy = (source: "llm" | "local"): string =>
  source === "llm" ? "by the language model" : "from the cards, without a language model";

function receiverWords(card: Card, copy: Copy): string {
  if (copy.conversation_id === card.conversation_id) return `by speaker ${copy.speaker + 1}`;
  return copy.channel === card.channel ? "by another receiver" : `on ${humanise(copy.channel) || "another channel"}`;
}

/** "Also heard on Security and by another receiver", or null. */
export function copiesWords(card: Card): string | null {
  const receivers = [...new Set(card.copies.map((copy) => receiverWords(card, copy)))];
  const last = receivers.pop();
  if (last === undefined) return null;
  return `Also heard ${receivers.length > 0 ? `${receivers.join(", ")} and ` : ""}${last}`;
}
