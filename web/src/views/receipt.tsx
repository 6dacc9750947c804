/** The latency receipt: where the time went between the last word and this page, against the budget. */
import { useSignal } from "@preact/signals";
import { duration } from "../model/format";
import { STAGES, type Latency } from "../model/protocol";
import { culprit, waterfall, type Step } from "../model/waterfall";
import { STAGE_MODULE, STAGE_WORDS } from "../model/words";
import * as app from "../state/app";
import type { Entry } from "../state/store";

function spent(latency: Latency): number | null {
  if (latency.total !== undefined) return latency.total;
  const known = STAGES.flatMap((stage) => latency[stage] ?? []);
  return known.length > 0 ? known.reduce((sum, ms) => sum + ms, 0) : null;
}

function Bar({ latency, budget }: { latency: Latency; budget: number | undefined }) {
  const total = spent(latency) ?? 0;
  const scale = Math.max(total, budget ?? 0, 1);
  return (
    <span class="bar" aria-hidden="true">
      {STAGES.map((stage) => {
        const ms = latency[stage] ?? 0;
        return ms > 0 ? <i key={stage} class={`stage g-${stage}`} style={{ width: `${(100 * ms) / scale}%` }} /> : null;
      })}
    </span>
  );
}

interface RowOf {
  name: string;
  ms: number;
  budget: number | undefined;
  step?: Step;
  /** Which side served it; absent outside a migration. */
  side?: string | undefined;
}

function Row({ name, ms, budget, step, side }: RowOf) {
  const over = budget !== undefined && ms > budget;
  return (
    <tr class={over ? "over" : ""} data-stage={name}>
      <th scope="row">
        <i class={`stage g-${name}`} aria-hidden="true" />
        {name === "total" ? "Total" : (STAGE_WORDS[name] ?? name)}
        {side !== undefined && (
          <small class="side" data-testid="receipt-side">
            {side}
          </small>
        )}
      </th>
      <td>{duration(ms)}</td>
      <td class="of">
        {budget === undefined ? "" : `of ${duration(budget)}`}
        {over && <b> over</b>}
      </td>
      <td class="fall" aria-hidden="true">
        {step && <i class={`g-${name}`} style={{ marginLeft: `${step.start}%`, width: `${step.width}%` }} />}
      </td>
    </tr>
  );
}

export function Receipt({ entry, latency }: { entry: Entry; latency: Latency }) {
  const open = useSignal(false);
  const budget = app.budget.value;
  const total = spent(latency);
  if (total === null) return null;
  const over = budget.total !== undefined && total > budget.total;
  const steps = waterfall(latency, budget, entry.paintedMs);
  const worst = culprit(steps);
  const traceUrl = app.traceUrl.value;
  const alone = entry.truth.insights.some((insight) => insight.degraded);
  return (
    <details class="receipt" data-testid="receipt" onToggle={(event) => (open.value = event.currentTarget.open)}>
      <summary class={over ? "over" : ""} title="From the last word to this page; open for the stages">
        <Bar latency={latency} budget={budget.total} />
        <span data-testid="receipt-total">{duration(total)}</span>
        {over && <span class="over-word" title={worst === null ? "" : STAGE_WORDS[worst.stage]}>slow</span>}
      </summary>
      {open.value && (
        <table class="stages" data-testid="receipt-stages">
          <caption>
            {worst === null ? "From the last word to this page" : `Over its budget: ${STAGE_WORDS[worst.stage]}`}
            {alone && (
              <span data-testid="receipt-fault">{`; ${STAGE_WORDS.classify}: no answer from the language model`}</span>
            )}
            {traceUrl !== null && entry.truth.trace_id !== null && (
              <a
                href={traceUrl.replace("{trace_id}", entry.truth.trace_id)}
                target="_blank"
                rel="noopener noreferrer"
                data-testid="receipt-trace"
              >
                Trace
              </a>
            )}
          </caption>
          <tbody>
            {steps
              .filter((step) => step.stage !== "painted")
              .map((step) => (
                <Row
                  key={step.stage}
                  name={step.stage}
                  ms={step.ms}
                  budget={step.budget}
                  step={step}
                  side={entry.truth.sides[STAGE_MODULE[step.stage] ?? ""]}
                />
              ))}
            {latency.total !== undefined && <Row name="total" ms={latency.total} budget={budget.total} />}
            {steps
              .filter((step) => step.stage === "painted")
              .map((step) => (
                <Row key={step.stage} name={step.stage} ms={step.ms} budget={step.budget} step={step} />
              ))}
          </tbody>
        </table>
      )}
    </details>
  );
}
