/** Operations over several modules, as `/v1/operations` says them, and what a view shows of them. Pure. */
import type * as api from "../api/schema";
import { fields, list, oneOf, text, textOrNull } from "./fields";
import { every, type Parsed } from "./protocol";

export type Status = api.OperationStand["status"];
export type Happening = api.OperationStep["what"];
export type Happened = Parsed<api.OperationStep>;
export type Defined = Parsed<api.DefinedStep>;
export type Operation = Omit<Parsed<api.OperationStand>, "results">;
/** What becomes of the open tasks of a conversation that is closed. */
export type OpenTasks = NonNullable<api.ClosingOf["tasks"]>;

const STATUSES = every<Status>({ running: true, compensating: true, done: true, compensated: true, parked: true });
const HAPPENINGS = every<Happening>({
  started: true,
  done: true,
  failed: true,
  undone: true,
  kept: true,
  parked: true,
  resumed: true,
  compensating: true,
  finished: true,
});

function parseHappened(raw: unknown): Happened | null {
  const f = fields<api.OperationStep>(raw);
  if (!HAPPENINGS.includes(f["what"] as Happening)) return null;
  return { at: text(f["at"]), what: oneOf(f["what"], HAPPENINGS, "started"), step: text(f["step"]), text: text(f["text"]) };
}

function parseDefined(raw: unknown): Defined | null {
  const f = fields<api.DefinedStep>(raw);
  const name = textOrNull(f["name"]);
  return name === null ? null : { name, module: text(f["module"]), stays: text(f["stays"]) };
}

export function parseOperation(raw: unknown): Operation | null {
  const f = fields<api.OperationStand>(raw);
  const id = textOrNull(f["operation_id"]);
  if (id === null) return null;
  return {
    operation_id: id,
    operation: text(f["operation"]),
    subject: text(f["subject"]),
    by: text(f["by"]),
    status: oneOf(f["status"], STATUSES, "running"),
    step: text(f["step"]),
    why: text(f["why"]),
    started_at: text(f["started_at"]),
    changed_at: text(f["changed_at"]),
    history: list(f["history"], parseHappened),
    steps: list(f["steps"], parseDefined),
    back: f["back"] === true,
  };
}

/** The newest first, each once. */
export function newestFirst(...lists: (readonly Operation[])[]): Operation[] {
  const found = new Map(lists.flat().map((each) => [each.operation_id, each]));
  return [...found.values()].sort((a, b) => b.started_at.localeCompare(a.started_at));
}

export const isOver = ({ status }: Operation): boolean => status === "done" || status === "compensated";
/** Nothing more happens by itself. */
export const rests = (operation: Operation): boolean => isOver(operation) || operation.status === "parked";

/** How a step stands. `to come`: still; `never`: it was not reached, and will not be. */
export type StepState = "done" | "now" | "back" | "failed" | "undone" | "kept" | "to come" | "never";

export interface StepStand extends Defined {
  state: StepState;
  /** What happened to it, in order. */
  events: readonly Happened[];
}

function definedSteps(operation: Operation): readonly Defined[] {
  if (operation.steps.length > 0) return operation.steps;
  // Of a kind that the executor does not know any more: the steps that something has happened to.
  const names = new Set(operation.history.map((each) => each.step).filter((name) => name !== ""));
  return [...names].map((name) => ({ name, module: "", stays: "" }));
}

const BY_EVENT: Partial<Record<Happening, StepState>> = { done: "done", failed: "failed", parked: "failed", undone: "undone", kept: "kept" };

function stateOf(operation: Operation, name: string, events: readonly Happened[]): StepState {
  if (operation.step === name && operation.status === "running") return "now";
  if (operation.step === name && operation.status === "compensating") return "back";
  const last = events.at(-1);
  const state = last && BY_EVENT[last.what];
  if (state) return state;
  return operation.back || isOver(operation) ? "never" : "to come";
}

/** All steps in their order, each with how it stands. */
export function stepsOf(operation: Operation): StepStand[] {
  return definedSteps(operation).map(({ name, module, stays }) => {
    const events = operation.history.filter((each) => each.step === name);
    return { name, module, stays, events, state: stateOf(operation, name, events) };
  });
}

export interface Reach {
  /** Would be taken back, in this order. */
  undone: readonly StepStand[];
  /** Would stay. */
  kept: readonly StepStand[];
}

/** What taking a parked operation back would do, and what it would leave. The step that failed may have had its effect. */
export function reachOf(operation: Operation): Reach {
  const done = stepsOf(operation).filter(({ state, name }) => state === "done" || (state === "failed" && name === operation.step));
  return { undone: done.filter((step) => step.stays === "").reverse(), kept: done.filter((step) => step.stays !== "") };
}

/** The id of an utterance, with the number of its correction, or of one of its tasks. */
const SAID = /^(?<utterance>.+:\d+:\d+)(?:#\d+)?$/u;
const TASK = /^(?<utterance>.+:\d+:\d+):\d+$/u;

/** What an operation is about, where the page can show it; null elsewhere: what was erased is not there any more. */
export function aboutOf({ operation, subject }: Operation): { kind: "conversation" | "utterance"; id: string } | null {
  if (operation === "close") return { kind: "conversation", id: subject };
  if (operation !== "dispatch" && operation !== "correct") return null;
  const utterance = (TASK.exec(subject) ?? SAID.exec(subject))?.groups?.["utterance"];
  return utterance === undefined ? null : { kind: "utterance", id: utterance };
}
