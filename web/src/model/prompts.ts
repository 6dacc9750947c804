/** Prompt versions, as `/v1/prompts` says them; parsed as in parse.ts. */
import type * as api from "../api/schema";
import { count, fields, list, oneOf, text, textOrNull, texts } from "./fields";
import {
  every,
  type PromptAction,
  type PromptComparison,
  type PromptEvent,
  type PromptInForce,
  type PromptInfo,
  type PromptNumbers,
  type Prompts,
} from "./protocol";

const PROMPT_ACTIONS = every<PromptAction>({ added: true, evaluated: true, canary: true, deployed: true, rolled_back: true });

function parseNumbers(raw: unknown): PromptNumbers {
  const f = fields<api.PromptNumbers>(raw);
  return {
    cases: count(f["cases"]),
    failed: count(f["failed"]),
    score: count(f["score"]),
    intent: count(f["intent"]),
    department: count(f["department"]),
    urgency: count(f["urgency"]),
    rooms: count(f["rooms"]),
    items: count(f["items"]),
    dangers: count(f["dangers"]),
    dangers_missed: count(f["dangers_missed"]),
    calibration_error: count(f["calibration_error"]),
    latency_p50_ms: count(f["latency_p50_ms"]),
    latency_p95_ms: count(f["latency_p95_ms"]),
    cost: count(f["cost"]),
  };
}

function parseComparison(raw: unknown): PromptComparison | null {
  const f = fields<api.PromptComparison>(raw);
  const against = textOrNull(f["against_id"]);
  if (against === null) return null;
  return {
    against_id: against,
    set_name: text(f["set_name"]),
    model: text(f["model"]),
    candidate: parseNumbers(f["candidate"]),
    live: parseNumbers(f["live"]),
    falls_below: texts(f["falls_below"]),
  };
}

function parsePrompt(raw: unknown): PromptInfo | null {
  const f = fields<api.PromptInfo>(raw);
  const id = textOrNull(f["id"]);
  return id === null ? null : { id, name: text(f["name"]), note: text(f["note"]) };
}

function parsePromptEvent(raw: unknown): PromptEvent | null {
  const f = fields<api.PromptEvent>(raw);
  const id = textOrNull(f["prompt_id"]);
  const at = textOrNull(f["at"]);
  if (id === null || at === null) return null;
  return {
    at,
    by: text(f["by"]),
    action: oneOf(f["action"], PROMPT_ACTIONS, "added"),
    prompt_id: id,
    name: text(f["name"]),
    against_id: textOrNull(f["against_id"]),
    weight: count(f["weight"]),
    forced: f["forced"] === true,
    note: text(f["note"]),
    evidence: parseComparison(f["evidence"]),
  };
}

function parseInForce(raw: unknown): PromptInForce | null {
  const f = fields<api.PromptInForce>(raw);
  const prompt = parsePrompt(f["prompt"]);
  return prompt === null ? null : { prompt, weight: count(f["weight"]), event: parsePromptEvent(f["event"]) };
}

export function parsePrompts(raw: unknown): Prompts {
  const f = fields<api.PromptsView>(raw);
  return {
    connected: f["connected"] === true,
    model: text(f["model"]),
    problem: text(f["problem"]),
    live: parseInForce(f["live"]),
    canary: parseInForce(f["canary"]),
    events: list(f["events"], parsePromptEvent),
  };
}
