/** The stages of an utterance one after the other: where each begins, as shares of the whole way. */
import { STAGES, type Budget, type Latency, type Sides, type Stage } from "./protocol";

export interface Step {
  stage: Stage | "painted";
  ms: number;
  budget: number | undefined;
  /** In per cent of the whole way. */
  start: number;
  width: number;
  over: boolean;
}

/** The sides that a receipt names. */
export function sidesOf(raw: unknown): Sides {
  if (typeof raw !== "object" || raw === null) return {};
  return Object.fromEntries(Object.entries(raw).filter((each): each is [string, string] => typeof each[1] === "string"));
}

export function waterfall(latency: Latency, budget: Budget, painted: number | null): Step[] {
  const measured = [...STAGES.map((stage) => [stage, latency[stage]] as const), ["painted", painted ?? undefined] as const];
  const known = measured.flatMap(([stage, ms]) => (ms === undefined ? [] : [{ stage, ms }]));
  const whole = Math.max(1, known.reduce((sum, step) => sum + step.ms, 0));
  let at = 0;
  return known.map(({ stage, ms }) => {
    const start = (100 * at) / whole;
    at += ms;
    const allowed = budget[stage];
    return { stage, ms, budget: allowed, start, width: (100 * ms) / whole, over: allowed !== undefined && ms > allowed };
  });
}

/** The stage that is furthest over its budget. */
export function culprit(steps: readonly Step[]): Step | null {
  const over = steps.filter((step) => step.over);
  return over.reduce<Step | null>((worst, step) => (worst === null || excess(step) > excess(worst) ? step : worst), null);
}

const excess = (step: Step): number => step.ms - (step.budget ?? 0);
