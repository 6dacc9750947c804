/** The latency receipt: where the time went between the last word and this page, against the budget. */
import { useSignal } from "@preact/signals";
import { duration } from "../model/format";
import { STAGES, type Latency } from "../model/protocol";
import { STAGE_WORDS } from "../model/words";
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

function Row({ name, ms, budget }: { name: string; ms: number; budget: number | undefined }) {
  const over = budget !== undefined && ms > budget;
  return (
    <tr class={over ? "over" : ""} data-stage={name}>
      <th scope="row">
        <i class={`stage g-${name}`} aria-hidden="true" />
        {name === "total" ? "Total" : (STAGE_WORDS[name] ?? name)}
      </th>
      <td>{duration(ms)}</td>
      <td class="of">
        {budget === undefined ? "" : `of ${duration(budget)}`}
        {over && <b> over</b>}
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
  return (
    <details class="receipt" data-testid="receipt" onToggle={(event) => (open.value = event.currentTarget.open)}>
      <summary class={over ? "over" : ""} title="From the last word to this page; open for the stages">
        <Bar latency={latency} budget={budget.total} />
        <span data-testid="receipt-total">{duration(total)}</span>
        {over && <span class="over-word">slow</span>}
      </summary>
      {open.value && (
        <table class="stages" data-testid="receipt-stages">
          <caption>
            From the last word to this page
          </caption>
          <tbody>
            {STAGES.map((stage) => {
              const ms = latency[stage];
              return ms === undefined ? null : <Row key={stage} name={stage} ms={ms} budget={budget[stage]} />;
            })}
            {latency.total !== undefined && <Row name="total" ms={latency.total} budget={budget.total} />}
            {entry.paintedMs !== null && <Row name="painted" ms={entry.paintedMs} budget={undefined} />}
          </tbody>
        </table>
      )}
    </details>
  );
}
