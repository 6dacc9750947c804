/** A task that somebody has changed since the person saw it: what it is now, and in what words to say so. Pure. */
import { clockTime } from "./format";
import { fields, text } from "./fields";
import { parseTask } from "./parse";
import type { Task } from "./protocol";

export const TASK_CHANGED = "dashboard.task_changed";

/** The problem document with this code, as the server sends it. */
interface Sent {
  task: object;
  changed_by: string;
  changed_at: string;
}

export interface Changed {
  task: Task;
  /** Empty where the server does not know who. */
  by: string;
  at: string;
}

/** Null where the task itself cannot be read. */
export function parseChanged(raw: unknown): Changed | null {
  const f = fields<Sent>(raw);
  const task = parseTask(f["task"]);
  return task && { task, by: text(f["changed_by"]), at: text(f["changed_at"]) };
}

const NOBODY = "Somebody";

function deed(seen: Task, now: Task, who: string): string {
  const what = `“${now.summary}”`;
  if (now.status !== seen.status) {
    // Without a person it was a voice that closed it, or what was said about that later.
    if (now.status === "open") return who === NOBODY ? `${what} was opened again by what was said` : `${who} reopened ${what}`;
    if (now.status === "acknowledged") return `${who} acknowledged ${what}`;
    return now.completed_by_utterance === null ? `${who} marked ${what} as done` : `${what} was reported as done on the air`;
  }
  if (now.assignee === seen.assignee) return `${who} changed ${what}`;
  return now.assignee === null ? `${who} took ${what} back from ${seen.assignee ?? ""}` : `${who} assigned ${what} to ${now.assignee}`;
}

/** "Ann marked “Bring towels to 412” as done at 14:03, before you. It stays that way." */
export function changedWords(seen: Task, { task, by, at }: Changed, now: number): string {
  const when = Number.isNaN(Date.parse(at)) ? "" : ` at ${clockTime(at, now, false)}`;
  return `${deed(seen, task, by === "" ? NOBODY : by)}${when}, before you. It stays that way.`;
}
