/** Operations over several modules, newest first: what, about what, by whom, when, and how they stand. */
import { useSignal } from "@preact/signals";
import { useCallback } from "preact/hooks";
import { getOperations } from "../live/api";
import { clockTime, plural } from "../model/format";
import { standWords, stepWords, titleWords } from "../model/operation_words";
import { aboutOf, type Operation } from "../model/operations";
import { humanise } from "../model/words";
import * as app from "../state/app";
import { boardLink, conversationLink, operationLink, utteranceLink } from "../state/route";
import { NO_FILTERS } from "../state/sections";
import { conversations } from "../state/store";
import { useRefreshed } from "./fetched";

const REFRESH_MS = 3000;
const FIRST = 50;
const MOST = 200;

/** What it is about, with a link where the page can show it. */
export function About({ operation }: { operation: Operation }) {
  const about = aboutOf(operation);
  if (about === null) return <span class="about">{operation.subject || "–"}</span>;
  const channel = about.kind === "conversation" ? humanise(conversations.value.get(about.id)?.channel ?? "") : "";
  const link = about.kind === "conversation" ? conversationLink(about.id) : utteranceLink(about.id);
  return (
    <a class="about" href={link}>
      {channel !== "" && `${channel} `}
      <code>{about.id}</code>
    </a>
  );
}

export function Stand({ operation }: { operation: Operation }) {
  return <span class={`stand stand-${operation.status}`}>{standWords(operation)}</span>;
}

export function At({ time }: { time: string }) {
  return (
    <time dateTime={time} title={time}>
      {clockTime(time, app.now.value)}
    </time>
  );
}

function Row({ operation }: { operation: Operation }) {
  const { operation_id: id, operation: name, status, step, by } = operation;
  const at = status === "running" || status === "compensating" || status === "parked" ? stepWords(name, step) : "";
  return (
    <tr data-testid="operation-row" data-operation-id={id} data-operation={name} data-status={status}>
      <th scope="row">
        <a href={operationLink(id)}>{titleWords(name)}</a>
      </th>
      <td class="wide">
        <About operation={operation} />
      </td>
      <td>{by || "–"}</td>
      <td>
        <At time={operation.started_at} />
      </td>
      <td>
        <Stand operation={operation} />
        {at !== "" && <small class="hint"> at: {at}</small>}
      </td>
    </tr>
  );
}

function Table({ found }: { found: readonly Operation[] }) {
  return (
    <table class="table operations-table">
      <thead>
        <tr>
          <th scope="col">What</th>
          <th scope="col">About</th>
          <th scope="col">By</th>
          <th scope="col">Started</th>
          <th scope="col">How it stands</th>
        </tr>
      </thead>
      <tbody>
        {found.map((each) => (
          <Row key={each.operation_id} operation={each} />
        ))}
      </tbody>
    </table>
  );
}

/** Those that somebody must decide about, however old they are. */
function Parked({ found }: { found: readonly Operation[] }) {
  const parked = found.filter((each) => each.status === "parked");
  if (parked.length === 0) return null;
  return (
    <div class="parked-first" role="status" data-testid="operations-parked" data-count={parked.length}>
      <b>{plural(parked.length, "operation needs", "operations need")} a decision:</b>
      <ul>
        {parked.map((each) => (
          <li key={each.operation_id}>
            <a href={operationLink(each.operation_id)}>{titleWords(each.operation)}</a>: <About operation={each} />, started by {each.by || "somebody"}, <At time={each.started_at} />
          </li>
        ))}
      </ul>
    </div>
  );
}

export function OperationsView() {
  const limit = useSignal(FIRST);
  const most = limit.value;
  const get = useCallback((signal: AbortSignal) => getOperations(most, signal), [most]);
  const { value: found, error } = useRefreshed(get, REFRESH_MS);
  return (
    <section class="operations" aria-label="Operations" data-testid="operations" data-stale={error !== ""}>
      <div class="view-head">
        <a class="button" href={boardLink(NO_FILTERS)}>
          Back to the board
        </a>
        <h2>Operations</h2>
      </div>
      <p class="hint">What several parts of QuickComm do together, such as closing a conversation. All of it is done, or it is taken back as far as that is possible.</p>
      {error !== "" && (
        <p class="failed" role="alert" data-testid="operations-error">
          {error} Trying again …
        </p>
      )}
      {found === null && error === "" && (
        <p class="hint" role="status" data-testid="operations-loading">
          Fetching …
        </p>
      )}
      {found !== null && <Parked found={found} />}
      {found !== null && found.length === 0 && (
        <p class="none" data-testid="operations-none">
          There were none yet.
        </p>
      )}
      {found !== null && found.length > 0 && <Table found={found} />}
      {found !== null && found.length >= FIRST && most < MOST && (
        <button type="button" class="more" data-testid="operations-more" onClick={() => (limit.value = MOST)}>
          Show more
        </button>
      )}
    </section>
  );
}
