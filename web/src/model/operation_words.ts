/** Operations in plain words: what each is, what its steps do, and how it stands. Names that are not known stand as they are. */
import { clockTime } from "./format";
import { reachOf, type Happened, type OpenTasks, type Operation, type StepStand, type StepState } from "./operations";
import { humanise } from "./words";

interface Words {
  title: string;
  steps: Record<string, string>;
}

const KNOWN: Record<string, Words> = {
  close: {
    title: "Close a conversation",
    steps: { finish: "End the conversation", summarize: "Write the last summary", archive: "Archive it, with its open tasks" },
  },
  erase: {
    title: "Erase what was said",
    steps: {
      audio: "Erase the transcripts",
      intelligence: "Erase what was understood",
      dashboard: "Erase the cards and tasks",
      operations: "Erase names in records of operations",
      messages: "Erase messages between services",
      again: "Go through all of it once more",
      files: "Remove what is left in files",
      receipt: "Write the receipt",
    },
  },
  dispatch: {
    title: "Send a task to somebody",
    steps: { reserve: "Reserve the task", notice: "Send the notice", confirm: "Confirm that it was sent" },
  },
  correct: {
    title: "Correct a card",
    steps: { amend: "Change the card", understand: "Understand the new text" },
  },
};

export const titleWords = (operation: string): string => KNOWN[operation]?.title ?? humanise(operation);
export const stepWords = (operation: string, step: string): string => KNOWN[operation]?.steps[step] ?? humanise(step);

export const STATE_WORDS: Record<StepState, string> = {
  done: "Done",
  now: "Under way",
  back: "Being taken back",
  failed: "Failed",
  undone: "Taken back",
  kept: "Stays",
  "to come": "To come",
  never: "Not done",
};

/** How an operation stands, in a few words. */
export function standWords(operation: Operation): string {
  switch (operation.status) {
    case "running":
      return "Under way";
    case "compensating":
      return "Being taken back";
    case "parked":
      return "Needs a decision";
    case "done":
      return "Done";
    case "compensated": {
      const whats = new Set(operation.history.map((each) => each.what));
      if (whats.has("kept")) return whats.has("undone") ? "Taken back in part" : "Ended half-way";
      return whats.has("done") ? "Taken back" : "Not done";
    }
  }
}

/** The same as a sentence, with why. */
export function standSentence(operation: Operation): string {
  const step = stepWords(operation.operation, operation.step);
  switch (operation.status) {
    case "running":
      return `Under way: ${step}. A step that fails is tried again by itself for a while.`;
    case "compensating":
      return `Being taken back: ${step}. What fails is tried again by itself for a while.`;
    case "parked":
      return operation.back
        ? "It is half taken back, and a step could not be. It waits until somebody decides."
        : "It is half done, and cannot be taken back by itself. It waits until somebody decides.";
    case "done":
      return "All of it is done.";
    case "compensated":
      return compensatedSentence(operation);
  }
}

function compensatedSentence(operation: Operation): string {
  const found: Record<string, string> = {
    "Not done": "Nothing was done.",
    "Taken back": "What was done is taken back; nothing is left of it.",
    "Ended half-way": "Nothing of it could be taken back; it ended here.",
  };
  return found[standWords(operation)] ?? "What could be taken back is; the rest stays, as below.";
}

/** Who decided something about the whole; empty for what happened by itself. */
export function decidedWords({ what, text }: Happened): string {
  const who = text || "Somebody";
  if (what === "started") return `${who} started it`;
  if (what === "resumed") return `${who} had it go on`;
  if (what === "compensating") return `${who} had it taken back`;
  return "";
}

/** One line of a history. */
export function happenedWords(operation: string, happened: Happened): string {
  const step = stepWords(operation, happened.step);
  switch (happened.what) {
    case "started":
    case "resumed":
    case "compensating":
      return decidedWords(happened);
    case "finished":
      return "Nothing more is to be done";
    case "done":
      return `${step}: done`;
    case "failed":
      return `${step}: failed`;
    case "undone":
      return `${step}: taken back`;
    case "kept":
      return `${step}: stays`;
    case "parked":
      return "Stopped; waits for a decision";
  }
}

/** When a step came to stand as it does; empty where nothing has happened to it. */
export function stepTime({ changed_at: changed }: Operation, { events, state }: StepStand, now: number): string {
  if (state === "now" || state === "back") return `since ${clockTime(changed, now)}`;
  const last = events.findLast((each) => each.what !== "parked");
  return last === undefined ? "" : clockTime(last.at, now);
}

export type Decision = "resume" | "compensate";
/** The word on its button. */
export function decisionWords(operation: Operation, decision: Decision): string {
  if (decision === "resume") return "Go on";
  return reachOf(operation).undone.length === 0 ? "End here" : "Take back";
}

const named = (operation: Operation, steps: readonly StepStand[]): string => steps.map((step) => `“${stepWords(operation.operation, step.name)}”`).join(", ");

/** What comes of a decision about a parked operation, as sentences. */
export function consequences(operation: Operation, decision: Decision): string[] {
  const step = stepWords(operation.operation, operation.step);
  if (decision === "resume") {
    return operation.back
      ? [`“${step}” is taken back, and what was done before it.`]
      : [`“${step}” is tried again, then what follows it. What is done is not done a second time.`];
  }
  const { undone, kept } = reachOf(operation);
  const found = [undone.length === 0 ? "Nothing of it can be taken back; it only ends here." : `Taken back: ${named(operation, undone)}.`];
  for (const each of kept) found.push(`Stays: “${stepWords(operation.operation, each.name)}”. ${each.stays}`);
  return found;
}

/** What becomes of the open tasks, for the one who chooses. */
export const TASKS_WORDS: Record<"keep" | "close" | "hand over", string> = {
  keep: "Keep open",
  close: "Close: done, or not needed any more",
  "hand over": "Hand over to …",
};

export const openTasksOf = (choice: keyof typeof TASKS_WORDS, assignee: string): OpenTasks => (choice === "hand over" ? { assignee: assignee.trim() } : choice);
