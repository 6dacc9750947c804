/** The steps of a migration: where a module is, what can be done with it, and what a stage is called. Pure. */
import type * as api from "../api/schema";
import { humanise } from "./words";
import type { Mode, Module } from "./migration";

/** In their order; `share`: per cent that the service serves. */
export const STEPS = [
  { name: "off", share: 0, short: "Off" },
  { name: "shadow", share: 0, short: "Shadow" },
  { name: "canary 1 %", share: 1, short: "1 %" },
  { name: "canary 5 %", share: 5, short: "5 %" },
  { name: "canary 25 %", share: 25, short: "25 %" },
  { name: "canary 50 %", share: 50, short: "50 %" },
  { name: "full", share: 100, short: "Full" },
  { name: "retired", share: 100, short: "Retired" },
] as const;
const FULL = 6;
const RETIRED = 7;

/** "canary 25 %": as the audit says it. */
export const stageName = ({ mode, weight }: { mode: Mode; weight: number }): string => (mode === "canary" ? `canary ${weight} %` : mode);

/** The last step that it has reached. */
export function stepOf({ mode, weight }: { mode: Mode; weight: number }): number {
  if (mode !== "canary") return STEPS.findIndex((step) => step.name === mode);
  return Math.max(1, STEPS.findLastIndex((step, place) => place < FULL && step.share <= weight));
}

/** Per cent that the service serves at a stage that the audit names: "full, the monolith decides". Null: not known. */
export function shareOf(stage: string): number | null {
  const [name = ""] = stage.split(/, | of /u);
  const canary = /^canary (\d+(?:\.\d+)?) %$/u.exec(name);
  if (canary) return Number(canary[1]);
  return STEPS.find((step) => step.name === name)?.share ?? null;
}

/** Of what a route gives shares to a side. */
export const servedWords = (module: string): string => (module === "dashboard" ? "page sessions" : "conversations");

/** Modules of which one side decides: about edits, and about prompts. */
const DECIDING = new Set(["dashboard", "intelligence"]);

/** A side, in a sentence: the monolith, the service, or a release of the service by its name. */
export const sideWords = (side: string): string => (side.includes("@") ? `release ${side.slice(side.indexOf("@") + 1)}` : `the ${side}`);

const begun = (words: string): string => words.charAt(0).toUpperCase() + words.slice(1);

/** Which side does what now. */
export function servesWords(module: Module): string {
  const what = servedWords(module.name);
  const [base, candidate] = [sideWords(module.base), sideWords(module.candidate)];
  const decides = DECIDING.has(module.name) ? `; ${sideWords(module.decides)} decides` : "";
  if (module.mode === "off") return `${begun(base)} serves all ${what}. There is no ${module.base === "monolith" ? "service" : "release beside it"}.`;
  if (module.mode === "shadow") return `${begun(base)} serves all ${what}; ${candidate} keeps itself complete beside it.`;
  if (module.mode === "retired") return `${begun(candidate)} serves all ${what}; ${base} has stopped this module.`;
  if (module.weight >= 100) return `${begun(candidate)} serves all ${what}${decides}.`;
  return `${begun(candidate)} serves ${module.weight} % of the ${what}, ${base} ${100 - module.weight} %${decides}.`;
}

/** The step that comes next on the way to the goal; null: it is there. */
export function nextStep(module: Module): number | null {
  const at = stepOf(module);
  if (module.goal === "service") return at < RETIRED ? at + 1 : null;
  return at > 0 ? at - 1 : null;
}

export type MoveAction = "start" | "return" | "step" | "promote" | "rollback" | "kill" | "pause" | "resume" | "auto" | "manual";
/** In place of the name of a module. */
export const ALL = "all";

const isGoingBack = (module: Module): boolean => /^(?:rollback|kill) /u.test(module.change);

/** What makes sense now, in the order of the buttons; the kill switch is one for all. */
export function actionsFor(module: Module): MoveAction[] {
  const at = stepOf(module);
  const towards = module.goal === "service";
  const idle = module.change === "";
  const onTheWay = nextStep(module) !== null;
  const applies: Record<MoveAction, boolean> = {
    start: idle && !towards && !module.paused,
    step: idle && !module.paused && onTheWay,
    promote: idle && !module.paused && towards && at < FULL - 1,
    rollback: (at > 0 || !idle) && !isGoingBack(module),
    kill: false,
    pause: towards && !module.paused && onTheWay,
    resume: module.paused,
    auto: towards && !module.auto && onTheWay,
    manual: module.auto,
    return: idle && towards && at > 0,
  };
  return (Object.keys(applies) as MoveAction[]).filter((action) => applies[action]);
}

export const ACTION_WORDS: Record<MoveAction, string> = {
  start: "Start",
  step: "Next step",
  promote: "Straight to full",
  rollback: "Back at once",
  kill: "Kill switch: all back at once",
  pause: "Pause",
  resume: "Resume",
  auto: "Automatic",
  manual: "By hand",
  return: "Return to the monolith",
};

export const KILL_WORDS =
  "The monolith serves everything again at once, whatever is under way. No gate is asked. What had moved is paused until it is resumed.";
/** Something has moved, or is about to. */
export const isAway = (module: Module): boolean => stepOf(module) > 0 || module.change !== "";

/** What is on the button. */
export function buttonWords(module: Module, action: MoveAction): string {
  const next = action === "step" ? nextStep(module) : null;
  return next === null ? ACTION_WORDS[action] : `${ACTION_WORDS[action]}: ${STEPS[next]?.short ?? ""}`;
}

/** What happens, for who is asked whether it shall. */
export function consequence(module: Module, action: MoveAction): string {
  const what = servedWords(module.name);
  const next = nextStep(module);
  const target = next === null ? "" : STEPS[next]?.name ?? "";
  switch (action) {
    case "start":
      return `The goal becomes the service. ${module.mode === "off" ? "It starts in the shadow: it serves nobody yet." : "No step is taken yet."}`;
    case "return":
      return `The goal becomes the monolith, and the first step back is taken: to ${STEPS[stepOf(module) - 1]?.name ?? "off"}.`;
    case "step":
      return `${humanise(module.name)} goes to ${target}${module.goal === "service" ? ", if the gate allows it. Steps on which too little is expected are skipped." : ". On the way back no gate is asked."}`;
    case "promote":
      return `The service serves all ${what} at once, without the steps between, if the gate allows it.`;
    case "rollback":
      return `${begun(sideWords(module.base))} serves all ${what} again at once${DECIDING.has(module.name) ? ", and decides" : ""}. No gate is asked.`;
    case "kill":
      return KILL_WORDS;
    case "pause":
      return "No further step is taken until it is resumed. A breach still takes everything back.";
    case "resume":
      return "Steps may be taken again.";
    case "auto":
      return "Each step is taken by itself, once the gate has passed and the time to watch is over.";
    case "manual":
      return "Each step waits for somebody to take it.";
  }
}

/** Of the controller's own words, what is of use on the page: not which flag the command line has. */
export const withoutFlags = (said: string): string =>
  said.replaceAll(/,? ?(?:Use|or use:|Or use:)[^.]*--force[^.]*\.?/gu, "").trim();

/** What a step goes on in spite of, where it was refused for it; empty where nothing helps. */
export function spiteOf(action: MoveAction, code: string): string {
  if (code === "migration.gate") return "Go on in spite of the gate";
  return code === "migration.refused" && (action === "start" || action === "return") ? "Go on in spite of the order of the modules" : "";
}

export type Requested = Required<api.Move>;

const AUDIT_WORDS: Record<string, string> = {
  start: "Start",
  step: "Next step",
  promote: "Straight to full",
  weight: "Share set by hand",
  override: "Override",
  "overrides removed": "Overrides removed",
  rollback: "Back at once",
  kill: "All back at once",
  publish: "Routes published",
  lease: "Decides from now on",
  "in force": "In force everywhere",
  goal: "Goal set",
  pause: "Paused",
  resume: "Resumed",
  "auto on": "Automatic",
  "auto off": "By hand",
  abandoned: "Abandoned",
  deploy: "Release beside the service",
  settle: "Goes on alone",
};
export const auditWords = (action: string): string => AUDIT_WORDS[action] ?? humanise(action);
