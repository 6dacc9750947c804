/** How a module moved over the last minutes: the share of each side, and the figures that both have. Plain SVG, labels in HTML. */
import { clockTime, duration, lasting } from "../model/format";
import type { Entry, Module } from "../model/migration";
import { bothOver, shareOver, takenBack, WINDOW_MS, type Both, type Point } from "../model/sides";
import { servedWords } from "../model/steps";
import { samples } from "../state/migration";

/** Of the drawing, which is stretched to the room there is. */
const WIDTH = 1000;
const HEIGHT = 100;
const MINUTES = WINDOW_MS / 60_000;
const SHORTEST_MS = 30_000;

const iso = (at: number): string => new Date(at).toISOString();
const across = (at: number, now: number, span = WINDOW_MS): number => WIDTH * (1 - (now - at) / span);
const joined = (points: readonly (readonly [number, number])[]): string => points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

/** The share as stairs, to now. */
function stairs(points: readonly Point[], now: number): [number, number][] {
  const found: [number, number][] = [];
  for (const { at, share } of points) {
    const [x, y] = [across(at, now), HEIGHT - share];
    const before = found.at(-1);
    if (before) found.push([x, before[1]]);
    found.push([x, y]);
  }
  const last = found.at(-1);
  return last ? [...found, [WIDTH, last[1]]] : [];
}

function shareWords(points: readonly Point[], back: readonly Entry[], now: number): string {
  const [first, ...changes] = points;
  if (!first) return "Nothing is known of the last minutes.";
  const told = changes.map(({ at, share }) => `${share} % from ${clockTime(iso(at), now)}`);
  const ends = back.length > 0 ? `; taken back at ${back.map(({ at }) => clockTime(iso(at), now)).join(", ")}` : "";
  return `The service's share over the last ${MINUTES} minutes: ${[`${first.share} %`, ...told].join(", ")}${ends}.`;
}

function Axis({ top, bottom, begin }: { top: string; bottom: string; begin: string }) {
  return (
    <>
      <div class="axis" aria-hidden="true">
        <span>{top}</span>
        <span>{bottom}</span>
      </div>
      <div class="times" aria-hidden="true">
        <span>{begin} ago</span>
        <span>now</span>
      </div>
    </>
  );
}

export function ShareGraph({ module, audit, now }: { module: Module; audit: readonly Entry[]; now: number }) {
  const points = shareOver(module.name, audit, samples.value, now);
  const back = takenBack(module.name, audit, now);
  const line = stairs(points, now);
  const left = line[0]?.[0] ?? 0;
  return (
    <figure class="graph" data-testid="share-graph" data-points={points.length}>
      <figcaption>
        <b>Who serves the {servedWords(module.name)}</b>
        <span class="key">
          <span>
            <i class="sw-service" aria-hidden="true" />
            Service <b>{module.weight} %</b>
          </span>
          <span>
            <i class="sw-monolith" aria-hidden="true" />
            Monolith <b>{100 - module.weight} %</b>
          </span>
          {back.length > 0 && (
            <span>
              <i class="sw-back" aria-hidden="true" />
              Taken back
            </span>
          )}
        </span>
      </figcaption>
      <div class="plot">
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={shareWords(points, back, now)}>
          {line.length > 0 && (
            <>
              <rect class="g-monolith" x={left} y={0} width={WIDTH - left} height={HEIGHT} />
              <polygon class="g-service" points={joined([[left, HEIGHT], ...line, [WIDTH, HEIGHT]])} />
              <polyline class="g-edge" points={joined(line)} />
            </>
          )}
          {[25, 50, 75].map((y) => (
            <line key={y} class="g-grid" x1={0} x2={WIDTH} y1={y} y2={y} />
          ))}
          {back.map(({ id, at }) => (
            <line key={id} class="g-back" x1={across(at, now)} x2={across(at, now)} y1={0} y2={HEIGHT} />
          ))}
        </svg>
        <Axis top="100 %" bottom="0 %" begin={`${MINUTES} min`} />
      </div>
    </figure>
  );
}

const inUnit = (value: number, unit: Both["unit"]): string => (unit === "ms" ? duration(value) : `${value.toFixed(value < 10 ? 1 : 0)} %`);

/** The next round number above. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= value) ?? value;
}

/** One figure, a line for each side. */
function BothGraph({ last, values, now }: { last: Both; values: readonly (Both & { at: number })[]; now: number }) {
  const most = roundUp(Math.max(...values.map((each) => Math.max(each.service, each.monolith))));
  // Nothing is known of the time before the page was opened.
  const span = Math.max(SHORTEST_MS, now - (values[0]?.at ?? now));
  const lineOf = (side: "service" | "monolith"): string => joined(values.map((each) => [across(each.at, now, span), HEIGHT - (HEIGHT * each[side]) / most]));
  const [service, monolith] = [inUnit(last.service, last.unit), inUnit(last.monolith, last.unit)];
  return (
    <figure class="graph" data-testid="both-graph" data-figure={last.name}>
      <figcaption>
        <b>{last.name}</b>
        <span class="key">
          <span>
            <i class="sw-service" aria-hidden="true" />
            Service <b>{service}</b>
          </span>
          <span>
            <i class="sw-line" aria-hidden="true" />
            Monolith <b>{monolith}</b>
          </span>
        </span>
      </figcaption>
      <div class="plot">
        <svg
          viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
          preserveAspectRatio="none"
          role="img"
          aria-label={`${last.name}: service ${service}, monolith ${monolith}; over the last ${lasting(span / 1000)}.`}
        >
          <line class="g-grid" x1={0} x2={WIDTH} y1={HEIGHT / 2} y2={HEIGHT / 2} />
          <polyline class="g-theirs" points={lineOf("monolith")} />
          <polyline class="g-edge" points={lineOf("service")} />
        </svg>
        <Axis top={inUnit(most, last.unit)} bottom="0" begin={lasting(span / 1000)} />
      </div>
    </figure>
  );
}

export function BothGraphs({ module, now }: { module: Module; now: number }) {
  return (
    <>
      {bothOver(module.name, samples.value, now).map(({ last, values }) => (
        <BothGraph key={last.name} last={last} values={values} now={now} />
      ))}
    </>
  );
}
