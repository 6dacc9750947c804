import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { actOnTask, getUtterances, Problem } from "./api";

const busy = (): Response => new Response(JSON.stringify({ detail: "Busy." }), { status: 503, headers: { "Retry-After": "0" } });
const asked = vi.fn<typeof fetch>();

beforeEach(() => {
  vi.stubGlobal("document", { baseURI: "http://house.test/" });
  vi.stubGlobal("fetch", asked);
});
afterEach(() => {
  asked.mockReset();
  vi.unstubAllGlobals();
});

test("a server that is busy for a moment is asked again", async () => {
  asked.mockResolvedValueOnce(busy()).mockResolvedValueOnce(busy());
  asked.mockResolvedValueOnce(new Response(JSON.stringify({ items: [], next_cursor: null }), { status: 200 }));
  expect((await getUtterances({})).items).toEqual([]);
  expect(asked).toHaveBeenCalledTimes(3);
});

test("one that stays busy is not asked for ever", async () => {
  asked.mockImplementation(() => Promise.resolve(busy()));
  await expect(getUtterances({})).rejects.toThrow(new Problem("Busy.", 503));
  expect(asked).toHaveBeenCalledTimes(3);
});

test("a decision is sent again as it was, and nothing else is asked twice", async () => {
  asked.mockResolvedValueOnce(busy());
  asked.mockResolvedValueOnce(new Response("{}", { status: 409 }));
  await expect(actOnTask("u:0", "complete", 3, {})).rejects.toThrow(Problem);
  const [first, second] = asked.mock.calls;
  expect(second).toEqual(first);
  expect(asked).toHaveBeenCalledTimes(2);
});
