import { beforeEach, describe, expect, it, vi } from "vitest";
import { parseCard, parseTask } from "../model/parse";
import type { Task } from "../model/protocol";
import * as app from "../state/app";
import { entryOf, forgetAll, isPending, putCard, putTask } from "../state/store";

vi.stubGlobal("document", { baseURI: "http://page.test/" });
vi.stubGlobal("window", { setTimeout: () => 0 });
const { act, undo } = await import("./actions");

interface Asked {
  path: string;
  match: string | undefined;
}
type Answer = [status: number, body: object];

const AT = "2026-05-09T07:35:00.000Z";
const sent = (more: object = {}): object => ({ task_id: "t", utterance_id: "a", status: "open", summary: "Bring towels", version: 0, ...more });
function task(more: object = {}): Task {
  const made = parseTask(sent(more));
  if (!made) throw new Error("not a task");
  return made;
}
const changed = (now: object): Answer => [
  409,
  { code: "dashboard.task_changed", detail: "Ann completed it at 07:35.", changed_by: "Ann", changed_at: AT, task: sent(now) },
];

let asked: Asked[] = [];

/** Answers come in this order; `meanwhile` happens before each. */
function answering(answers: Answer[], meanwhile: () => void = () => {}): void {
  const left = [...answers];
  vi.stubGlobal("fetch", (url: URL, init: { headers: Record<string, string> }): Promise<Response> => {
    asked.push({ path: url.pathname, match: init.headers["If-Match"] });
    meanwhile();
    const [status, body] = left.shift() ?? [500, {}];
    return Promise.resolve(new Response(JSON.stringify(body), { status }));
  });
}

function shown(): Task | undefined {
  return entryOf("a")?.card.value.tasks[0];
}

function board(more: object = {}): Task {
  const card = parseCard({ utterance_id: "a", change: 1, spoken_at: AT, tasks: [sent(more)] });
  if (!card) throw new Error("not a card");
  putCard(card, true);
  return task(more);
}
const notices = (): string[] => app.notices.value.map((notice) => notice.text);

beforeEach(() => {
  forgetAll();
  asked = [];
  app.notices.value = [];
});

describe("acting on a task", () => {
  it("names the version that the person saw, and shows the answer", async () => {
    const seen = board({ version: 2 });
    answering([[200, sent({ status: "acknowledged", version: 3 })]]);
    await act(seen, "acknowledge");
    expect(asked).toEqual([{ path: "/v1/tasks/t/acknowledge", match: '"2"' }]);
    expect(shown()).toMatchObject({ status: "acknowledged", version: 3 });
    expect(notices()).toEqual([]);
  });

  it("names none where the server has none", async () => {
    const seen = board({ version: undefined });
    answering([[200, sent({ status: "done", version: undefined })]]);
    await act(seen, "complete");
    expect(asked).toEqual([{ path: "/v1/tasks/t/complete", match: undefined }]);
    expect(shown()).toMatchObject({ status: "done", version: null });
  });

  it("shows what another has decided first, says who it was, and does not try again", async () => {
    const seen = board();
    answering([changed({ status: "done", completed_by: "Ann", version: 1 })]);
    await act(seen, "assign", "Maria");
    expect(asked).toHaveLength(1);
    expect(shown()).toMatchObject({ status: "done", completed_by: "Ann", assignee: null, version: 1 });
    expect(isPending(seen)).toBe(false);
    expect(notices()).toHaveLength(1);
    expect(notices()[0]).toMatch(/^Ann marked “Bring towels” as done at .+, before you\. It stays that way\.$/u);
    expect(app.assignees.value).toEqual([]);
  });

  it("goes by the task on which the person decided, though a later one has come meanwhile", async () => {
    const seen = board();
    putTask(task({ status: "acknowledged", version: 1 }), 2);
    answering([changed({ status: "acknowledged", version: 1 })]);
    await act(seen, "assign", "Maria");
    expect(asked).toEqual([{ path: "/v1/tasks/t/assign", match: '"0"' }]);
    expect(notices()[0]).toContain("Ann acknowledged “Bring towels”");
  });

  it("keeps what came live after the answer was written", async () => {
    const seen = board();
    answering([changed({ status: "acknowledged", version: 1 })], () => putTask(task({ status: "done", version: 2 }), 3));
    await act(seen, "acknowledge");
    expect(shown()).toMatchObject({ status: "done", version: 2 });
  });

  it("says it in the server's words where the task of the answer cannot be read", async () => {
    const seen = board();
    answering([[409, { code: "dashboard.task_changed", detail: "Ann completed it at 07:35." }]]);
    await act(seen, "complete");
    expect(shown()).toMatchObject({ status: "open" });
    expect(notices()).toEqual(["Could not mark as done “Bring towels”. Ann completed it at 07:35."]);
  });

});

describe("undoing", () => {
  it("undoes step by step, each by the answer to the one before it", async () => {
    const seen = board({ status: "done", acknowledged_at: AT, version: 4 });
    answering([
      [200, sent({ version: 5 })],
      [200, sent({ status: "acknowledged", version: 6 })],
    ]);
    await undo(seen);
    expect(asked).toEqual([
      { path: "/v1/tasks/t/reopen", match: '"4"' },
      { path: "/v1/tasks/t/acknowledge", match: '"5"' },
    ]);
    expect(shown()).toMatchObject({ status: "acknowledged", version: 6 });
  });

  it("stops undoing where another was quicker in between", async () => {
    const seen = board({ status: "done", acknowledged_at: AT, version: 4 });
    answering([[200, sent({ version: 5 })], changed({ status: "done", version: 6 })]);
    await undo(seen);
    expect(asked).toHaveLength(2);
    expect(shown()).toMatchObject({ status: "done", version: 6 });
    expect(notices()[0]).toContain("Ann marked “Bring towels” as done at");
  });
});
