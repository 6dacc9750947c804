import { describe, expect, it } from "vitest";
import { consequences, decisionWords, happenedWords, openTasksOf, standSentence, standWords, stepWords, titleWords } from "./operation_words";
import { aboutOf, isOver, newestFirst, parseOperation, reachOf, rests, stepsOf, type Happening, type Operation } from "./operations";

const STEPS = [
  { name: "finish", module: "audio", stays: "It does not begin again." },
  { name: "summarize", module: "intelligence", stays: "It is true." },
  { name: "archive", module: "dashboard", stays: "" },
];
const at = (second: number): string => `2026-05-09T15:00:${String(second).padStart(2, "0")}Z`;
const happened = (...events: (readonly [Happening, string?, string?])[]): object[] =>
  events.map(([what, step = "", text = ""], second) => ({ at: at(second), what, step, text }));

const parsed = (more: object = {}): Operation => {
  const raw = { operation_id: "o1", operation: "close", subject: "shift-1", by: "ada", status: "running", step: "finish", started_at: at(0), steps: STEPS };
  const found = parseOperation({ ...raw, ...more });
  if (found === null) throw new Error("nothing was parsed");
  return found;
};
const states = (operation: Operation): string[] => stepsOf(operation).map((step) => step.state);

const PARKED = parsed({
  status: "parked",
  step: "archive",
  why: "It was refused.",
  history: happened(["started", "", "ada"], ["done", "finish"], ["done", "summarize"], ["failed", "archive", "It was refused."], ["parked", "archive"]),
});

describe("parseOperation", () => {
  it("is nothing without an id", () => {
    for (const raw of [null, 7, {}, { operation: "close" }]) expect(parseOperation(raw)).toBeNull();
  });

  it("gives harmless values for what another version says, and leaves out what it does not know", () => {
    const found = parseOperation({ operation_id: "o", status: "odd", history: [{ what: "odd" }, { what: "done", step: "a" }], steps: [{}, { name: "a" }] });
    expect(found).toMatchObject({ status: "running", by: "", back: false, history: [{ what: "done", step: "a", at: "" }], steps: [{ name: "a", stays: "" }] });
  });
});

describe("a list", () => {
  it("has each operation once, the newest first", () => {
    const old = parsed({ operation_id: "old" });
    const young = parsed({ operation_id: "young", started_at: at(9) });
    expect(newestFirst([old], [young, old]).map((each) => each.operation_id)).toEqual(["young", "old"]);
  });
});

describe("steps", () => {
  it("that have not come yet are to come", () => {
    expect(states(parsed({ step: "summarize", history: happened(["started"], ["done", "finish"]) }))).toEqual(["done", "now", "to come"]);
  });

  it("that failed stand where it is parked", () => {
    expect(states(PARKED)).toEqual(["done", "done", "failed"]);
    expect([rests(PARKED), isOver(PARKED)]).toEqual([true, false]);
  });

  it("are done after they were tried once more", () => {
    const history = [...PARKED.history, ...happened(["resumed", "", "grace"], ["done", "archive"], ["finished"])];
    const done = parsed({ status: "done", step: "", history });
    expect(states(done)).toEqual(["done", "done", "done"]);
    expect(stepsOf(done)[2]?.events.map((each) => each.what)).toEqual(["failed", "parked", "done"]);
  });

  it("that are taken back are told from those that stay, and from those that never came", () => {
    const history = [...PARKED.history, ...happened(["compensating", "", "grace"], ["kept", "summarize", "It is true."], ["kept", "finish"], ["undone", "archive"], ["finished"])];
    const back = parsed({ status: "compensated", step: "", back: true, history });
    expect(states(back)).toEqual(["kept", "kept", "undone"]);
    expect(standWords(back)).toBe("Taken back in part");
    const [begun, done, other, failed] = PARKED.history;
    const ended = parsed({ status: "compensated", step: "", back: true, history: [begun, done, other, failed, ...happened(["kept", "finish"], ["finished"])] });
    expect(standWords(ended)).toBe("Ended half-way");
    expect(standSentence(ended)).toContain("it ended here");
    const refused = parsed({ status: "compensated", step: "", back: false, history: happened(["started"], ["failed", "finish", "There is none."], ["finished"]) });
    expect(states(refused)).toEqual(["failed", "never", "never"]);
    expect(standWords(refused)).toBe("Not done");
  });

  it("show which one is being taken back", () => {
    const history = happened(["started"], ["done", "finish"], ["done", "summarize"], ["failed", "archive"]);
    expect(states(parsed({ status: "compensating", step: "summarize", back: true, history }))).toEqual(["done", "back", "failed"]);
  });

  it("come from the history where the executor does not know the operation any more", () => {
    const found = parsed({ operation: "odd_job", steps: [], step: "", history: happened(["started"], ["done", "dig_up"]) });
    expect(stepsOf(found).map(({ name, state }) => [name, state])).toEqual([["dig_up", "done"]]);
    expect([titleWords("odd_job"), stepWords("odd_job", "dig_up")]).toEqual(["Odd job", "Dig up"]);
  });
});

describe("a decision", () => {
  it("to take back names what stays, and why", () => {
    const { undone, kept } = reachOf(PARKED);
    expect([undone.map((each) => each.name), kept.map((each) => each.name)]).toEqual([["archive"], ["finish", "summarize"]]);
    const words = consequences(PARKED, "compensate");
    expect(words[0]).toBe("Taken back: “Archive it, with its open tasks”.");
    expect(decisionWords(PARKED, "compensate")).toBe("Take back");
    expect(words).toContain("Stays: “End the conversation”. It does not begin again.");
  });

  it("ends it where nothing can be taken back", () => {
    const early = parsed({ status: "parked", step: "summarize", history: happened(["done", "finish"], ["failed", "summarize"], ["parked", "summarize"]) });
    expect([decisionWords(early, "compensate"), decisionWords(early, "resume")]).toEqual(["End here", "Go on"]);
    expect(consequences(early, "compensate")[0]).toContain("Nothing of it can be taken back");
  });

  it("to take back goes from the last step to the first", () => {
    const free = STEPS.map(({ name, module }) => ({ name, module, stays: "" }));
    expect(reachOf({ ...PARKED, steps: free }).undone.map((each) => each.name)).toEqual(["archive", "summarize", "finish"]);
  });

  it("to go on says in which direction that is", () => {
    expect(consequences(PARKED, "resume").join(" ")).toContain("tried again");
    expect(consequences({ ...PARKED, back: true }, "resume").join(" ")).toContain("taken back");
    expect(standSentence(PARKED)).toContain("half done");
    expect(standSentence({ ...PARKED, back: true })).toContain("half taken back");
  });
});

describe("words", () => {
  it("say who decided, and what became of each step", () => {
    expect(PARKED.history.map((each) => happenedWords("close", each))).toEqual([
      "ada started it",
      "End the conversation: done",
      "Write the last summary: done",
      "Archive it, with its open tasks: failed",
      "Stopped; waits for a decision",
    ]);
  });

  it("know the steps of the operations that there are", () => {
    for (const [operation, steps] of Object.entries({
      erase: ["audio", "intelligence", "dashboard", "messages", "receipt"],
      dispatch: ["reserve", "notice", "confirm"],
      correct: ["amend", "understand"],
    })) {
      for (const step of steps) expect(stepWords(operation, step).split(" ").length).toBeGreaterThan(2);
    }
  });

  it("make what becomes of open tasks", () => {
    expect([openTasksOf("keep", "Ann"), openTasksOf("close", ""), openTasksOf("hand over", " Ann ")]).toEqual(["keep", "close", { assignee: "Ann" }]);
  });
});

describe("what it is about", () => {
  it("is a conversation, or a card, where the page can show it", () => {
    expect(aboutOf(parsed())).toEqual({ kind: "conversation", id: "shift-1" });
    const card = { kind: "utterance", id: "shift-1:0:16000" };
    expect(aboutOf(parsed({ operation: "dispatch", subject: "shift-1:0:16000:0" }))).toEqual(card);
    expect(aboutOf(parsed({ operation: "correct", subject: "shift-1:0:16000#2" }))).toEqual(card);
    for (const operation of ["erase", "odd"]) expect(aboutOf(parsed({ operation, subject: "shift-1" }))).toBeNull();
    expect(aboutOf(parsed({ operation: "dispatch", subject: "what?" }))).toBeNull();
  });
});
