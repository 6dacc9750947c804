/** A task of a card: where it stands, who has it, and what a manager can do about it. */
import { useSignal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import { act, undo } from "../live/actions";
import { clockTime } from "../model/format";
import type { Task } from "../model/protocol";
import { STATUS_WORDS } from "../model/words";
import * as app from "../state/app";
import { utteranceLink } from "../state/route";
import { isPending } from "../state/store";
import { useKeptFocus } from "./focus";
import { accidental, guarded } from "./motion";

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
  // Who writes a name goes by the task as it was then, whatever comes meanwhile.
  const seen = useRef(task);
  useEffect(() => field.current?.select(), []);
  const submit = (event: Event): void => {
    event.preventDefault();
    const wanted = name.value.trim();
    if (wanted === "") return;
    close();
    void act(seen.current, "assign", wanted);
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

interface ActionProps {
  task: Task;
  /** The word on it. */
  word: string;
  testId: string;
  primary?: boolean;
  run: () => void;
}

/** A button that says to a screen reader what it acts on, and takes no click that was meant for what lay there before. */
function Action({ task, word, testId, primary = false, run }: ActionProps) {
  const busy = isPending(task);
  const onClick = (event: MouseEvent): void => {
    if (!busy && !accidental(event)) run();
  };
  return (
    <button
      ref={guarded}
      type="button"
      class={primary ? "primary" : ""}
      aria-disabled={busy}
      aria-label={`${word}: ${nameOf(task)}`}
      data-testid={testId}
      onClick={onClick}
    >
      {word}
    </button>
  );
}

/** What is asked for, and where, unless that says it. */
function nameOf(task: Task): string {
  const rooms = task.rooms.filter((room) => !task.summary.includes(room));
  return rooms.length > 0 ? `${task.summary}, ${rooms.join(", ")}` : task.summary;
}

/** `undoable`: it was closed while somebody could see it, so the button that opens it again takes that closing back. */
export function TaskRow({ task, undoable = false }: { task: Task; undoable?: boolean }) {
  const assigning = useSignal(false);
  const row = useRef<HTMLDivElement>(null);
  useKeptFocus(row);
  const mayAct = app.session.value?.role === "admin";
  const { status } = task;
  return (
    <div ref={row} class="task" tabIndex={-1} role="group" aria-label={nameOf(task)} data-testid="task" data-task-id={task.task_id} data-status={status} aria-busy={isPending(task)}>
      {/* Far from "Done" and "Acknowledge": a second click on those must not hit it. */}
      {mayAct && status === "done" && (
        <Action key="reopen" task={task} word={undoable ? "Undo" : "Reopen"} testId="reopen" run={() => void (undoable ? undo(task) : act(task, "reopen"))} />
      )}
      <Standing task={task} />
      {mayAct && !assigning.value && status !== "done" && (
        <div class="actions">
          {status === "open" && <Action key="acknowledge" task={task} word="Acknowledge" testId="acknowledge" primary run={() => void act(task, "acknowledge")} />}
          <Action key="complete" task={task} word="Done" testId="complete" primary={status === "acknowledged"} run={() => void act(task, "complete")} />
          <Action key="assign" task={task} word="Assign" testId="assign" run={() => (assigning.value = true)} />
        </div>
      )}
      {assigning.value && <AssignForm task={task} close={() => (assigning.value = false)} />}
    </div>
  );
}
