/** What a manager does with a task: shown at once, taken back with a word if the server says no, or another was first. */
import { changedWords } from "../model/changed";
import type { Task } from "../model/protocol";
import * as app from "../state/app";
import { isPending, pendTask, settleTask, truthOf } from "../state/store";
import { actOnTask, Problem, type TaskAction } from "./api";

const FAILED: Record<TaskAction, string> = {
  acknowledge: "Could not acknowledge",
  complete: "Could not mark as done",
  assign: "Could not assign",
  reopen: "Could not reopen",
};
const REOPENED = { acknowledged_at: null, completed_at: null, completed_by: null, completed_by_utterance: null };

function expected(action: TaskAction, assignee: string | undefined): Partial<Task> {
  const at = new Date().toISOString();
  switch (action) {
    case "acknowledge":
      return { status: "acknowledged", acknowledged_at: at };
    case "complete":
      return { status: "done", completed_at: at };
    case "assign":
      return { assignee: assignee ?? null };
    case "reopen":
      return { status: "open", ...REOPENED };
  }
}

/**
 * Show the change until all the actions are answered; stop at the first one that is refused. Each goes by the task that
 * was seen, first by the person, then in the answers: never over what another has decided meanwhile.
 */
async function perform(task: Task, change: Partial<Task>, actions: readonly TaskAction[], assignee?: string): Promise<boolean> {
  if (!truthOf(task) || isPending(task)) return false;
  const takeBack = pendTask(task, change);
  let seen = task;
  for (const action of actions) {
    const truth = truthOf(task);
    try {
      // oxlint-disable-next-line no-await-in-loop -- each goes by what the one before it has changed
      seen = await actOnTask(task.task_id, action, seen.version, assignee === undefined ? {} : { assignee });
      settleTask(seen, truth);
    } catch (error) {
      if (error instanceof Problem && error.changed) settleTask(error.changed.task, truth);
      takeBack();
      app.notify(refusal(error, action, seen));
      return false;
    }
  }
  takeBack();
  return true;
}

function refusal(error: unknown, action: TaskAction, seen: Task): string {
  if (error instanceof Problem && error.changed) return changedWords(seen, error.changed, Date.now());
  const why = error instanceof Problem ? error.message : "Something went wrong.";
  return `${FAILED[action]} “${seen.summary}”. ${why}`;
}

export async function act(task: Task, action: TaskAction, assignee?: string): Promise<void> {
  const done = await perform(task, expected(action, assignee), [action], assignee);
  if (done && assignee) app.assignees.value = [...new Set([assignee, ...app.assignees.value])].slice(0, 50);
}

/** Reopen a task that was closed by mistake. The server forgets who had seen it, so a seen one is acknowledged again. */
export async function undo(task: Task): Promise<void> {
  if (task.acknowledged_at === null) await act(task, "reopen");
  else await perform(task, { status: "acknowledged", ...REOPENED, acknowledged_at: task.acknowledged_at }, ["reopen", "acknowledge"]);
}
