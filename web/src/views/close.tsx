/** Closing a conversation: what that does, what becomes of its open tasks, and how far it is. */
import { useSignal } from "@preact/signals";
import { useCallback, useEffect, useId } from "preact/hooks";
import { closeConversation, getConversation, getOperation } from "../live/api";
import { plural } from "../model/format";
import { openTasksOf, standSentence, stepWords, TASKS_WORDS } from "../model/operation_words";
import { isOver, type Operation } from "../model/operations";
import type { Conversation } from "../model/protocol";
import * as app from "../state/app";
import { operationLink } from "../state/route";
import { putConversation } from "../state/store";
import { AskDialog, problemWords } from "./ask";
import { useRefreshed } from "./fetched";

const REFRESH_MS = 2000;
const MAX_NAME = 80;
const OPEN_WORDS: Partial<Record<Conversation["state"], string>> = {
  live: "It is on the air: whoever speaks on it is cut off now. ",
  interrupted: "Its connection is broken, and is not taken up again. ",
};
type Choice = keyof typeof TASKS_WORDS;

/** The page sees the rest by the live connection; this is at once. */
async function look(id: string): Promise<void> {
  putConversation(await getConversation(id));
}

/** `open`: how many tasks are open; null where that is not known. */
function Tasks({ open, choice, choose, name, rename }: { open: number | null; choice: Choice; choose: (choice: Choice) => void; name: string; rename: (name: string) => void }) {
  const names = useId();
  const group = useId();
  return (
    <fieldset class="choices">
      <legend>{open === null ? "What becomes of its open tasks?" : `What becomes of its ${plural(open, "open task")}?`}</legend>
      {(Object.keys(TASKS_WORDS) as Choice[]).map((each) => (
        <label key={each}>
          <input type="radio" name={group} checked={choice === each} data-testid={`close-tasks-${each.replace(" ", "-")}`} onChange={() => choose(each)} />
          <span>{TASKS_WORDS[each]}</span>
        </label>
      ))}
      {choice === "hand over" && (
        <label class="why">
          To whom
          <input type="text" required pattern=".*\S.*" maxLength={MAX_NAME} list={names} autocomplete="off" data-testid="close-assignee" value={name} onInput={(event) => rename(event.currentTarget.value)} />
          <datalist id={names}>
            {app.assignees.value.map((each) => (
              <option key={each} value={each} />
            ))}
          </datalist>
        </label>
      )}
    </fieldset>
  );
}

function CloseDialog({ conversation, open, close, closing }: { conversation: Conversation; open: number | null; close: () => void; closing: (operation: Operation) => void }) {
  const choice = useSignal<Choice>("keep");
  const name = useSignal("");
  const id = conversation.conversation_id;
  const send = async (): Promise<void> => {
    const operation = await closeConversation(id, openTasksOf(choice.value, name.value));
    closing(operation);
    close();
  };
  const over = conversation.archived_at !== null;
  return (
    <AskDialog title="Close this conversation" button="Close it" busyWords="Closing …" stale={over ? "It is closed already." : ""} close={close} send={send} testId="close">
      <p>
        {OPEN_WORDS[conversation.state]}
        The last summary is written, and the conversation is archived. What was said stays where it is. It cannot be opened again; the next words on this channel begin a new one.
      </p>
      {open === 0 ? <p>It has no open task.</p> : <Tasks open={open} choice={choice.value} choose={(each) => (choice.value = each)} name={name.value} rename={(each) => (name.value = each)} />}
    </AskDialog>
  );
}

/** How far it is, until it is done. */
function Progress({ begun, id }: { begun: Operation; id: string }) {
  const get = useCallback((signal: AbortSignal) => getOperation(begun.operation_id, signal), [begun]);
  const { value, error } = useRefreshed(get, REFRESH_MS);
  const problem = useSignal("");
  const operation = value ?? begun;
  const done = operation.status === "done";
  useEffect(() => {
    if (done) look(id).catch((failed: unknown) => (problem.value = problemWords(failed)));
  }, [done, id, problem]);
  const bad = operation.status === "parked" || operation.status === "compensated";
  return (
    <p class={bad ? "failed closing" : "under-way closing"} role={bad ? "alert" : "status"} data-testid="closing" data-status={operation.status}>
      {bad && <b>It could not be closed. </b>}
      {operation.status === "running" ? `Closing: ${stepWords(operation.operation, operation.step)} …` : standSentence(operation)}
      {bad && operation.why !== "" && ` ${operation.why}`}
      {error !== "" && ` ${error} Trying again …`}
      {problem.value !== "" && ` ${problem.value}`} <a href={operationLink(operation.operation_id)}>Look at it</a>
    </p>
  );
}

/** The button, its dialog and the progress; for administrators, while the conversation is not closed. */
export function Closing({ conversation, open }: { conversation: Conversation; open: number | null }) {
  const asking = useSignal(false);
  const begun = useSignal<Operation | null>(null);
  const id = conversation.conversation_id;
  if (app.session.value?.role !== "admin" || conversation.archived_at !== null) return null;
  const closing = (operation: Operation): void => {
    begun.value = operation;
  };
  const under = begun.value !== null && !isOver(begun.value);
  return (
    <>
      {!under && (
        <button type="button" data-testid="close-conversation" onClick={() => (asking.value = true)}>
          Close conversation …
        </button>
      )}
      {asking.value && <CloseDialog conversation={conversation} open={open} close={() => (asking.value = false)} closing={closing} />}
      {begun.value !== null && <Progress key={begun.value.operation_id} begun={begun.value} id={id} />}
    </>
  );
}
