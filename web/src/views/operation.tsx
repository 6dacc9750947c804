/** One operation: its steps in order, what happened, and for one that is parked why it is, and what can be done. */
import { useSignal } from "@preact/signals";
import { useCallback, useRef } from "preact/hooks";
import { decideOperation, getOperation } from "../live/api";
import { duration } from "../model/format";
import {
  consequences,
  decisionWords,
  happenedWords,
  standSentence,
  STATE_WORDS,
  stepTime,
  stepWords,
  titleWords,
  type Decision,
} from "../model/operation_words";
import { isOver, stepsOf, type Operation, type StepStand } from "../model/operations";
import { humanise } from "../model/words";
import * as app from "../state/app";
import { OPERATIONS_LINK } from "../state/route";
import { AskDialog } from "./ask";
import { useRefreshed } from "./fetched";
import { useKeptFocus } from "./focus";
import { About, At, Stand } from "./operations";

const REFRESH_MS = 2000;
/** Of one that is over: nothing changes any more. */
const REST_MS = 60_000;

interface Deciding {
  operation: Operation;
  decision: Decision;
  close: () => void;
  decided: (operation: Operation) => void;
}

function DecideDialog({ operation, decision, close, decided }: Deciding) {
  // Who says yes says it to the operation as it was when the dialog was opened.
  const asked = useRef({ events: operation.history.length, words: consequences(operation, decision), button: decisionWords(operation, decision) });
  const changed = operation.status !== "parked" || operation.history.length !== asked.current.events;
  const send = async (): Promise<void> => {
    decided(await decideOperation(operation.operation_id, decision));
    close();
  };
  return (
    <AskDialog
      title={`${titleWords(operation.operation)}: ${asked.current.button.toLowerCase()}`}
      button={asked.current.button}
      busyWords="Under way …"
      stale={changed ? "It has changed meanwhile. Close this and look again." : ""}
      close={close}
      send={send}
      testId="decide"
    >
      {asked.current.words.map((words) => (
        <p key={words}>{words}</p>
      ))}
    </AskDialog>
  );
}

function Parked({ operation, decided }: { operation: Operation; decided: (operation: Operation) => void }) {
  const asking = useSignal<Decision | null>(null);
  const mayDecide = app.session.value?.role === "admin";
  const decisions: Decision[] = operation.back ? ["resume"] : ["resume", "compensate"];
  return (
    <div class="parked" role="region" aria-label="Why it waits" data-testid="operation-parked">
      <h3>Why it waits</h3>
      <p>
        <b>{stepWords(operation.operation, operation.step)}</b> failed: <q data-testid="operation-why">{operation.why}</q>
      </p>
      <p>{standSentence(operation)}</p>
      <dl class="decisions">
        {decisions.map((decision) => (
          <div key={decision}>
            <dt>
              {mayDecide ? (
                <button type="button" class={decision === "compensate" ? "grave" : "primary"} data-testid={`operation-${decision}`} onClick={() => (asking.value = decision)}>
                  {decisionWords(operation, decision)} …
                </button>
              ) : (
                decisionWords(operation, decision)
              )}
            </dt>
            <dd>
              {consequences(operation, decision).map((words) => (
                <p key={words}>{words}</p>
              ))}
            </dd>
          </div>
        ))}
      </dl>
      {!mayDecide && <p class="hint">An administrator decides; your key may only look.</p>}
      {asking.value !== null && <DecideDialog key={asking.value} operation={operation} decision={asking.value} close={() => (asking.value = null)} decided={decided} />}
    </div>
  );
}

/** What there is to know of a step beside its state: why it failed, and why it stays. */
function notesOf({ events, stays, state }: StepStand): string[] {
  const failures = events.filter((each) => each.what === "failed");
  const why = failures.at(-1)?.text ?? "";
  const kept = events.findLast((each) => each.what === "kept")?.text ?? "";
  return [
    failures.length === 0 ? "" : state === "failed" ? why : `It failed ${failures.length === 1 ? "once" : `${failures.length} times`}: ${why}`,
    kept,
    stays !== "" && (state === "done" || state === "now" || state === "to come") ? `Cannot be taken back: ${stays}` : "",
  ].filter((note) => note !== "");
}

function Steps({ operation }: { operation: Operation }) {
  return (
    <ol class="op-steps" aria-label="Steps" data-testid="operation-steps">
      {stepsOf(operation).map((step) => (
        <li key={step.name} data-testid="operation-step" data-step={step.name} data-state={step.state} aria-current={step.state === "now" ? "step" : undefined}>
          <div class="op-step">
            <b>{stepWords(operation.operation, step.name)}</b>
            {step.module !== "" && <span class="hint">{humanise(step.module)}</span>}
            <span class="op-state">
              {STATE_WORDS[step.state]} <span class="op-time">{stepTime(operation, step, app.now.value)}</span>
            </span>
          </div>
          {notesOf(step).map((note) => (
            <p key={note} class="hint">
              {note}
            </p>
          ))}
        </li>
      ))}
    </ol>
  );
}

function History({ operation }: { operation: Operation }) {
  return (
    <>
      <h3>What happened</h3>
      <ol class="op-history" data-testid="operation-history">
        {operation.history.map((each, place) => (
          <li key={place} data-what={each.what}>
            <At time={each.at} />
            <span>
              {happenedWords(operation.operation, each)}
              {each.what === "failed" && each.text !== "" && <span class="hint">. {each.text}</span>}
            </span>
          </li>
        ))}
      </ol>
    </>
  );
}

function Facts({ operation }: { operation: Operation }) {
  const took = Date.parse(operation.changed_at) - Date.parse(operation.started_at);
  return (
    <p class="facts" role="status">
      <Stand operation={operation} />
      <span>
        about <About operation={operation} />
      </span>
      <span>
        started by {operation.by || "somebody"}, <At time={operation.started_at} />
      </span>
      {isOver(operation) ? (
        <span>
          ended <At time={operation.changed_at} />
          {took >= 0 && `, after ${duration(took)}`}
        </span>
      ) : (
        <span>
          last change <At time={operation.changed_at} />
        </span>
      )}
      <code>{operation.operation_id}</code>
    </p>
  );
}

function Known({ operation, decided }: { operation: Operation; decided: (operation: Operation) => void }) {
  const box = useRef<HTMLDivElement>(null);
  useKeptFocus(box);
  return (
    <div ref={box} tabIndex={-1} data-testid="operation-known" data-status={operation.status}>
      <Facts operation={operation} />
      {operation.status === "parked" ? (
        <Parked operation={operation} decided={decided} />
      ) : (
        <p class={operation.status === "running" || operation.status === "compensating" ? "under-way" : "op-sentence"} data-testid="operation-sentence">
          {standSentence(operation)}
          {operation.status === "compensated" && operation.why !== "" && ` Why: ${operation.why}`}
        </p>
      )}
      <h3>Steps</h3>
      <Steps operation={operation} />
      <History operation={operation} />
    </div>
  );
}

export function OperationView({ id }: { id: string }) {
  const answered = useSignal<Operation | null>(null);
  const over = useSignal(false);
  const get = useCallback(
    async (signal: AbortSignal) => {
      const found = await getOperation(id, signal);
      over.value = isOver(found);
      return found;
    },
    [id, over],
  );
  const { value, error } = useRefreshed(get, over.value ? REST_MS : REFRESH_MS);
  const told = answered.value;
  // The answer to a decision is there before the next look.
  const operation = told !== null && told.history.length > (value?.history.length ?? 0) ? told : value;
  return (
    <section class="operation" aria-label="Operation" data-testid="operation" data-stale={error !== ""}>
      <div class="view-head">
        <a class="button" href={OPERATIONS_LINK}>
          All operations
        </a>
        <h2>{operation === null ? "Operation" : titleWords(operation.operation)}</h2>
      </div>
      {error !== "" && (
        <p class="failed" role="alert" data-testid="operation-error">
          {error} {value === null ? "" : "This is as it was last seen."} Trying again …
        </p>
      )}
      {operation === null && error === "" && (
        <p class="hint" role="status">
          Fetching …
        </p>
      )}
      {operation !== null && <Known operation={operation} decided={(found) => (answered.value = found)} />}
    </section>
  );
}
