/** A task of a card: where it stands, who has it, and what a manager can do about it. */
import { useSignal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import { act } from "../live/actions";
import { clockTime } from "../model/format";
import type { Task } from "../model/protocol";
import { STATUS_WORDS } from "../model/words";
import * as app from "../state/app";
import { utteranceLink } from "../state/route";
import { isPending } from "../state/store";

const MAX_NAME = 80;

function Standing({ task }: { task: Task }) {
  const at = task.status === "done" ? task.completed_at : task.status === "acknowledged" ? task.acknowledged_at : null;
  return (
    <p class="standing">
      <span class={`status st-${task.status}`} data-testid="task-status" data-status={task.status}>
        {STATUS_WORDS[task.status]}
        {at && <time dateTime={at} title={at}>{` ${clockTime(at, app.now.value, false)}`}</time>}
      </span>
      {task.status === "done" && task.completed_by_utterance !== null && (
        <a class="by-voice" href={utteranceLink(task.completed_by_utterance)} data-testid="task-by-voice">
          reported on the air
        </a>
      )}
      {task.status === "done" && task.completed_by_utterance === null && task.completed_by !== null && <span>by {task.completed_by}</span>}
      {task.assignee !== null && (
        <span class="assignee" data-testid="task-assignee">
          {task.assignee}
        </span>
      )}
    </p>
  );
}

function AssignForm({ task, close }: { task: Task; close: () => void }) {
  const name = useSignal(task.assignee ?? "");
  const field = useRef<HTMLInputElement>(null);
  const names = useId();
  useEffect(() => field.current?.select(), []);
  const submit = (event: Event): void => {
    event.preventDefault();
    const wanted = name.value.trim();
    if (wanted === "") return;
    close();
    void act(task, "assign", wanted);
  };
  return (
    <form class="assign" onSubmit={submit} data-testid="assign-form">
      <input
        ref={field}
        type="text"
        list={names}
        maxLength={MAX_NAME}
        autocomplete="off"
        placeholder="Name"
        aria-label={`Assign “${task.summary}” to`}
        data-testid="assign-name"
        value={name.value}
        onInput={(event) => (name.value = event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Escape" && close()}
      />
      <datalist id={names}>
        {app.assignees.value.map((each) => (
          <option key={each} value={each} />
        ))}
      </datalist>
      <button type="submit" class="primary" data-testid="assign-save">
        Assign
      </button>
      <button type="button" onClick={close}>
        Cancel
      </button>
    </form>
  );
}

export function TaskRow({ task }: { task: Task }) {
  const assigning = useSignal(false);
  const mayAct = app.session.value?.role === "admin";
  const busy = isPending(task);
  return (
    <div class="task" data-testid="task" data-task-id={task.task_id} data-status={task.status} aria-busy={busy}>
      <Standing task={task} />
      {mayAct && !assigning.value && (
        <div class="actions">
          {task.status === "open" && (
            <button type="button" class="primary" disabled={busy} data-testid="acknowledge" onClick={() => void act(task, "acknowledge")}>
              Acknowledge
            </button>
          )}
          {task.status !== "done" && (
            <>
              <button type="button" class={task.status === "acknowledged" ? "primary" : ""} disabled={busy} data-testid="complete" onClick={() => void act(task, "complete")}>
                Done
              </button>
              <button type="button" disabled={busy} data-testid="assign" onClick={() => (assigning.value = true)}>
                Assign
              </button>
            </>
          )}
          {task.status === "done" && (
            <button type="button" disabled={busy} data-testid="reopen" onClick={() => void act(task, "reopen")}>
              Reopen
            </button>
          )}
        </div>
      )}
      {assigning.value && <AssignForm task={task} close={() => (assigning.value = false)} />}
    </div>
  );
}
