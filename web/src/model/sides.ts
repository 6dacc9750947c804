/** How a migration went over the last minutes, for graphs: what the page saw, and what the audit says of the time before. Pure. */
import type { Entry, Figure, Migration } from "./migration";
import { shareOf } from "./steps";

export const WINDOW_MS = 15 * 60_000;
const MAX_SAMPLES = 1000;

/** A figure of both sides: per cent for errors, milliseconds for times. */
export interface Both {
  name: string;
  unit: "%" | "ms";
  service: number;
  monolith: number;
}

/** What the page saw at one time, by module. */
export interface Sample {
  at: number;
  shares: Record<string, number>;
  both: Record<string, Both[]>;
}

/** From here on the service serves so much. */
export interface Point {
  at: number;
  share: number;
}

const PER_CENT = 100;

/** Both sides of a figure, where both are measured: of a latency, each stage. */
export function bothOf(figure: Figure): Both[] {
  return figure.numbers.flatMap(({ what, service, monolith, quantile }): Both[] => {
    const [ours, theirs] = [service.value, monolith?.value ?? null];
    if (ours === null || theirs === null) return [];
    if (figure.name === "errors") return [{ name: "Errors", unit: "%", service: PER_CENT * ours, monolith: PER_CENT * theirs }];
    if (figure.name === "cpu") return [{ name: "CPU time of an utterance", unit: "ms", service: ours, monolith: theirs }];
    const percentile = `${Math.round(PER_CENT * (quantile ?? 0))}th percentile`;
    return [{ name: `${what}, ${percentile}`, unit: "ms", service: ours, monolith: theirs }];
  });
}

/** What is to be remembered of a status; `samples` are those so far. */
export function sampled(samples: readonly Sample[], { modules }: Migration, at: number): Sample[] {
  const sample: Sample = {
    at,
    shares: Object.fromEntries(modules.map((module) => [module.name, module.weight])),
    both: Object.fromEntries(modules.map((module) => [module.name, module.figures.flatMap(bothOf)])),
  };
  return [...samples.filter((each) => each.at > at - 2 * WINDOW_MS), sample].slice(-MAX_SAMPLES);
}

/** Steps of the share over the window, oldest first; the first one is where the window begins. */
export function shareOver(name: string, audit: readonly Entry[], samples: readonly Sample[], now: number): Point[] {
  const published = audit.filter((entry) => entry.name === name && entry.action === "publish").sort((a, b) => a.at - b.at);
  const points: Point[] = [];
  for (const entry of published) {
    const [before, after] = [shareOf(entry.before), shareOf(entry.after)];
    if (points.length === 0 && before !== null) points.push({ at: 0, share: before });
    if (after !== null) points.push({ at: entry.at, share: after });
  }
  // The audit here has an end: before it, and for stages that it does not name, what the page saw has to do.
  const known = published.at(0)?.at ?? Infinity;
  for (const sample of samples) {
    const share = sample.shares[name];
    if (share !== undefined && (sample.at < known || points.length === 0)) points.push({ at: sample.at, share });
  }
  points.sort((a, b) => a.at - b.at);
  const begin = now - WINDOW_MS;
  const first = points.findLast((point) => point.at <= begin) ?? points[0];
  if (!first) return [];
  const within = [{ at: begin, share: first.share }, ...points.filter((point) => point.at > begin && point.at <= now)];
  return within.filter((point, place) => place === 0 || point.share !== within[place - 1]?.share);
}

/** When everything was taken back, within the window. */
export const takenBack = (name: string, audit: readonly Entry[], now: number): Entry[] =>
  audit.filter((entry) => entry.name === name && (entry.action === "rollback" || entry.action === "kill") && entry.at > now - WINDOW_MS);

/** The figures that both sides have, each with how they went: oldest first, at least two of each. */
export function bothOver(name: string, samples: readonly Sample[], now: number): { last: Both; values: (Both & { at: number })[] }[] {
  const found = new Map<string, (Both & { at: number })[]>();
  for (const sample of samples) {
    if (sample.at <= now - WINDOW_MS) continue;
    for (const each of sample.both[name] ?? []) found.set(each.name, [...(found.get(each.name) ?? []), { ...each, at: sample.at }]);
  }
  return [...found.values()].flatMap((values) => {
    const last = values.at(-1);
    return last && values.length > 1 ? [{ last, values }] : [];
  });
}
