/** A module that is being moved: who serves what, how far it is, what the gate says, and how it went. */
import { useRef } from "preact/hooks";
import { age, clockTime, lasting, plural } from "../model/format";
import type { Entry, Figure, Module, Outcome } from "../model/migration";
import { isAway, servesWords, stageName, stepOf, STEPS } from "../model/steps";
import { humanise } from "../model/words";
import * as app from "../state/app";
import { seenAt } from "../state/migration";
import { useKeptFocus } from "./focus";
import { BothGraphs, ShareGraph } from "./graph";
import { Heard } from "./heard";
import { mayMove, Moves } from "./move";
import { Understood } from "./understood";

const OUTCOME_WORDS: Record<Outcome, string> = { pass: "Passed", wait: "Waits", breach: "Breach" };
const VERDICT_WORDS: Record<Outcome, string> = {
  pass: "The gate has passed: the next step may be taken.",
  wait: "The gate waits: the next step would be refused.",
  breach: "A figure is a breach: everything goes back to the monolith.",
};
const DIFFERENCE_WORDS: Record<string, string> = {
  differences: "In what both sides have",
  agreement: "In what both sides answer",
  "other answers": "Answers that the other side gives otherwise",
};

function StepBar({ module }: { module: Module }) {
  const at = stepOf(module);
  const goal = module.goal === "service" ? STEPS.length - 1 : 0;
  const target = STEPS.findIndex((step) => module.change.endsWith(` to ${step.name}`));
  return (
    <ol class="steps" aria-label={`Steps of ${module.name}`} data-testid="steps">
      {STEPS.map((step, place) => (
        <li
          key={step.name}
          data-state={place === at ? "now" : place < at ? "passed" : "ahead"}
          data-target={place === target}
          aria-current={place === at ? "step" : undefined}
        >
          {step.short}
          {place === at && <span class="visually-hidden"> (now)</span>}
          {place === target && <span class="visually-hidden"> (on the way there)</span>}
          {place === goal && place !== at && <small>Goal</small>}
        </li>
      ))}
    </ol>
  );
}

function Since({ module }: { module: Module }) {
  if (module.since === 0) return null;
  const at = new Date(module.since).toISOString();
  return (
    <p class="hint" data-testid="module-since">
      {humanise(stageName(module))} since{" "}
      <time dateTime={at} title={at}>
        {clockTime(at, app.now.value)}
      </time>{" "}
      ({age(at, app.now.value)}){module.why !== "" && <>: {module.why}</>}
    </p>
  );
}

function UnderWay({ module }: { module: Module }) {
  return (
    <>
      {module.change !== "" && (
        <p class="under-way" role="status" data-testid="module-change">
          <b>{humanise(module.change)}:</b> {module.phase || "about to begin"} …
        </p>
      )}
      {module.problem !== "" && (
        <p class="failed" role="alert" data-testid="module-problem">
          {module.problem.replace(/\.$/u, "")}. It is tried again by itself.
        </p>
      )}
    </>
  );
}

/** What goes to a side whatever its share. */
function Overrides({ module }: { module: Module }) {
  if (module.overrides.length === 0) return null;
  return (
    <ul class="hint" aria-label={`Overrides of ${module.name}`} data-testid="overrides">
      {module.overrides.map(({ kind, of, side, by, why }) => (
        <li key={`${kind} ${of}`}>
          {humanise(kind)} <b>{of}</b> goes to the {side} ({[by, why].filter((each) => each !== "").join(": ")}).
        </li>
      ))}
    </ul>
  );
}

/** The figure's own words have it, too, where something is missing. */
const detailOf = ({ detail }: Figure): string => detail.replaceAll(/; about \d+ samples are missing/gu, "");
const URGENT_FIRST: readonly Outcome[] = ["breach", "wait", "pass"];

function missingWords({ missing, in_s }: Figure): string {
  const words = missing === null ? "" : `${plural(missing, "sample")} missing`;
  return in_s === null ? words : [words, `in about ${lasting(in_s)}`].filter((each) => each !== "").join(", ");
}

export function FigureRows({ figures }: { figures: readonly Figure[] }) {
  return (
    <ul class="gate-figures">
      {figures.toSorted((a, b) => URGENT_FIRST.indexOf(a.outcome) - URGENT_FIRST.indexOf(b.outcome)).map((figure) => (
        <li key={figure.name} data-testid="figure" data-figure={figure.name} data-outcome={figure.outcome}>
          <span class={`outcome o-${figure.outcome}`}>{OUTCOME_WORDS[figure.outcome]}</span>
          <b>{figure.name === "cpu" ? "CPU" : humanise(figure.name)}</b>
          <span class="detail">
            {detailOf(figure)}
            {missingWords(figure) !== "" && <em> {missingWords(figure)}</em>}
          </span>
        </li>
      ))}
    </ul>
  );
}

function Gate({ module }: { module: Module }) {
  const { gate, bake_left_s: bake } = module;
  if (gate === null) {
    if (module.goal === "monolith" && stepOf(module) > 0) return <p class="hint">On the way back no gate is asked.</p>;
    return null;
  }
  return (
    <div class="gate" data-testid="gate" data-outcome={gate}>
      <h4>Gate</h4>
      <p class={gate === "breach" ? "failed" : ""}>
        {VERDICT_WORDS[gate]}
        {bake !== null && bake > 0 && (
          <span class="hint" data-testid="bake">
            {" "}
            {module.auto ? "The next automatic step comes" : "An automatic step would come"} in {lasting(bake)} at the earliest.
          </span>
        )}
      </p>
      <FigureRows figures={module.figures} />
    </div>
  );
}

/** What the sides do not have alike, and how to look into it. */
function Differences({ module }: { module: Module }) {
  const found = module.figures.filter((figure) => figure.name in DIFFERENCE_WORDS);
  if (found.length === 0) return null;
  const alike = found.every((figure) => figure.outcome === "pass");
  return (
    <div data-testid="differences" data-alike={alike}>
      <h4>Differences to look into</h4>
      {found.map((figure) => (
        <p key={figure.name} class={figure.outcome === "breach" ? "failed" : ""}>
          <b>{DIFFERENCE_WORDS[figure.name]}:</b> {detailOf(figure)}
        </p>
      ))}
      {!alike && (
        <p class="hint">
          Which ones: <code>quickcomm check --sides</code>
        </p>
      )}
    </div>
  );
}

export function ModuleCard({ module, audit }: { module: Module; audit: readonly Entry[] }) {
  const card = useRef<HTMLElement>(null);
  useKeptFocus(card);
  const moved = isAway(module) || audit.some((entry) => entry.name === module.name);
  return (
    <article
      ref={card}
      class="module"
      tabIndex={-1}
      aria-label={humanise(module.name)}
      data-testid="module"
      data-module={module.name}
      data-stage={stageName(module)}
      data-goal={module.goal}
    >
      <h3>
        {humanise(module.name)}
        <span class="flags">
          {module.paused && <span class="flag">Paused</span>}
          {module.auto && <span class="flag">Automatic</span>}
        </span>
      </h3>
      <p data-testid="module-serves">{servesWords(module)}</p>
      <StepBar module={module} />
      <Since module={module} />
      <UnderWay module={module} />
      <Overrides module={module} />
      {mayMove() && <Moves module={module} />}
      {moved && (
        <div class="evidence">
          <div>
            <Gate module={module} />
            {module.understood === null && module.heard === null && <Differences module={module} />}
            {module.understood !== null && <Understood found={module.understood} />}
            {module.heard !== null && <Heard found={module.heard} />}
          </div>
          <div>
            <ShareGraph module={module} audit={audit} now={seenAt.value} />
            <BothGraphs module={module} now={seenAt.value} />
          </div>
        </div>
      )}
    </article>
  );
}
