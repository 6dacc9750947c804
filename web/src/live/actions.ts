/** What a manager does with a task: shown at once, taken back with a word if the server says no. */
import { batch } from "@preact/signals";
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
      return { status: "open", acknowledged_at: null, completed_at: null, completed_by: null, completed_by_utterance: null };
  }
}

export async function act(task: Task, action: TaskAction, assignee?: string): Promise<void> {
  const seen = truthOf(task);
  if (!seen || isPending(task)) return;
  const takeBack = pendTask(task, expected(action, assignee));
  try {
    const answer = await actOnTask(task.task_id, action, assignee === undefined ? undefined : { assignee });
    batch(() => {
      settleTask(answer, seen);
      takeBack();
      if (assignee) app.assignees.value = [...new Set([assignee, ...app.assignees.value])].slice(0, 50);
    });
  } catch (error) {
    takeBack();
    const why = error instanceof Problem ? error.message : "Something went wrong.";
    app.notify(`${FAILED[action]} “${task.summary}”. ${why}`);
  }
}
