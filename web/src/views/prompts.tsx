/** Prompt versions: which ones conversations have now, who put them there, and on what evidence. */
import { getPrompts } from "../live/api";
import { clockTime, duration, plural } from "../model/format";
import type { PromptAction, PromptComparison, PromptEvent, PromptInForce, PromptNumbers, Prompts } from "../model/protocol";
import * as app from "../state/app";
import { boardLink } from "../state/route";
import { NO_FILTERS } from "../state/sections";
import { useRefreshed } from "./fetched";

const REFRESH_MS = 3000;

const ACTION_WORDS: Record<PromptAction, string> = {
  added: "Added",
  evaluated: "Evaluated",
  canary: "Canary",
  deployed: "Deployed",
  rolled_back: "Rolled back",
};

const FIELDS = [
  ["score", "Score"],
  ["intent", "Intent"],
  ["department", "Department"],
  ["urgency", "Urgency"],
  ["rooms", "Rooms, exactly"],
  ["items", "Items, F1"],
] as const;

const share = (value: number): string => `${(value * 100).toFixed(1)} %`;

function Evidence({ evidence }: { evidence: PromptComparison }) {
  const { candidate, live } = evidence;
  const rows: [string, (numbers: PromptNumbers) => string][] = [
    ...FIELDS.map(([field, words]): [string, (numbers: PromptNumbers) => string] => [words, (numbers) => share(numbers[field])]),
    ["Dangers missed", (numbers) => `${numbers.dangers_missed} of ${numbers.dangers}`],
    ["Without answer", (numbers) => String(numbers.failed)],
    ["Calibration error", (numbers) => numbers.calibration_error.toFixed(3)],
    ["Latency, median", (numbers) => duration(numbers.latency_p50_ms)],
    ["Latency, 95th percentile", (numbers) => duration(numbers.latency_p95_ms)],
  ];
  if (candidate.cost > 0 || live.cost > 0) rows.push(["Cost", (numbers) => numbers.cost.toFixed(4)]);
  return (
    <details class="prompt-evidence" data-testid="prompt-evidence" data-below={evidence.falls_below.length > 0}>
      <summary>
        Score {share(candidate.score)}, <span class="hint">live {share(live.score)}</span>
      </summary>
      <table>
        <caption>
          {plural(candidate.cases, "case")} of {evidence.set_name}, on {evidence.model}
        </caption>
        <thead>
          <tr>
            <td />
            <th scope="col" class="number">
              This version
            </th>
            <th scope="col" class="number">
              Live then
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map(([words, value]) => (
            <tr key={words}>
              <th scope="row">{words}</th>
              <td class="number">{value(candidate)}</td>
              <td class="number">{value(live)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {evidence.falls_below.map((reason) => (
        <p key={reason} class="failed">
          It falls below: {reason}.
        </p>
      ))}
    </details>
  );
}

function InForce({ found, role }: { found: PromptInForce; role: "live" | "canary" }) {
  const { prompt, weight, event } = found;
  return (
    <article class={`prompt p-${role}`} data-testid={`prompt-${role}`} data-prompt-id={prompt.id}>
      <h3>
        {role === "live" ? "Live" : "Canary"}
        <span class="number" data-testid={`prompt-${role}-weight`}>
          {weight} % of conversations
        </span>
      </h3>
      <p class="prompt-name">
        <b>{prompt.name}</b> <code>{prompt.id}</code>
      </p>
      {prompt.note !== "" && <p>{prompt.note}</p>}
      <p class="hint">
        {event === null ? (
          "It came with QuickComm; nothing else was ever deployed."
        ) : (
          <>
            {ACTION_WORDS[event.action]} by {event.by},{" "}
            <time dateTime={event.at} title={event.at}>
              {clockTime(event.at, app.now.value)}
            </time>
            {event.forced && <strong class="forced"> without good evidence (forced)</strong>}
          </>
        )}
      </p>
      {event?.evidence ? <Evidence evidence={event.evidence} /> : null}
    </article>
  );
}

function Row({ event }: { event: PromptEvent }) {
  return (
    <tr data-testid="prompt-event" data-action={event.action} data-prompt-id={event.prompt_id}>
      <td>
        <time dateTime={event.at} title={event.at}>
          {clockTime(event.at, app.now.value)}
        </time>
      </td>
      <td>{event.by}</td>
      <th scope="row">
        {ACTION_WORDS[event.action]}
        {event.forced && <strong class="forced"> forced</strong>}
      </th>
      <td>
        {event.name} <code>{event.prompt_id}</code>
      </td>
      <td class="number">{event.weight > 0 ? `${event.weight} %` : "–"}</td>
      <td>{event.evidence === null ? "–" : <Evidence evidence={event.evidence} />}</td>
      <td class="note">{event.note}</td>
    </tr>
  );
}

function Trail({ events }: { events: readonly PromptEvent[] }) {
  if (events.length === 0) return <p class="hint">Nothing was done with prompts yet.</p>;
  return (
    <div class="scroll" role="region" aria-labelledby="prompt-trail" tabIndex={0}>
      <table class="table trail" aria-labelledby="prompt-trail">
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">Who</th>
            <th scope="col">What</th>
            <th scope="col">Version</th>
            <th scope="col" class="number">
              Share
            </th>
            <th scope="col">Evidence</th>
            <th scope="col">Note</th>
          </tr>
        </thead>
        <tbody>
          {events.map((event) => (
            <Row key={`${event.at} ${event.action} ${event.prompt_id}`} event={event} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Known({ prompts }: { prompts: Prompts }) {
  const { live, canary } = prompts;
  return (
    <>
      {prompts.connected ? (
        <p class="facts">
          <span>
            Asked of <b data-testid="prompt-model">{prompts.model || "a language model"}</b>
          </span>
        </p>
      ) : (
        <div class="no-model" data-testid="prompts-unconnected">
          <p>
            <b>No language model is connected.</b> The built-in classifier understands what is said; prompts wait until there is one.
          </p>
          <p class="hint">
            Connect one: <code>quickcomm serve --llm-url http://127.0.0.1:8000/v1</code>
          </p>
        </div>
      )}
      {prompts.problem !== "" && (
        <p class="failed" role="alert" data-testid="prompt-problem">
          {prompts.problem}
        </p>
      )}
      {live !== null && (
        <div class={prompts.connected ? "in-force" : "in-force waiting"}>
          <InForce found={live} role="live" />
          {canary !== null && <InForce found={canary} role="canary" />}
          {canary !== null && (
            <div class="share-bar" role="img" aria-label={`Canary ${canary.weight} %, live ${live.weight} % of conversations`}>
              <i class="p-live" style={{ width: `${live.weight}%` }} />
              <i class="p-canary" style={{ width: `${canary.weight}%` }} />
            </div>
          )}
        </div>
      )}
      <h3 id="prompt-trail">Who did what, on what evidence</h3>
      <Trail events={prompts.events} />
      <p class="hint foot">
        To change a prompt: <code>quickcomm prompts --help</code>
      </p>
    </>
  );
}

export function PromptsView() {
  const { value, error } = useRefreshed(getPrompts, REFRESH_MS);
  return (
    <section class="prompts" aria-label="Prompts" data-testid="prompts">
      <div class="view-head">
        <a class="button" href={boardLink(NO_FILTERS)}>
          Back to the board
        </a>
        <h2>Prompts</h2>
      </div>
      {error !== "" && (
        <p class="failed" role="alert" data-testid="prompts-error">
          {error} Trying again …
        </p>
      )}
      {value === null ? error === "" && <p class="hint" role="status">Fetching …</p> : <Known prompts={value} />}
    </section>
  );
}
