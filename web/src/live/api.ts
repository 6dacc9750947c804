/** Requests to `/v1`; failures become a `Problem` with words for the operator. */
import { parseChanged, TASK_CHANGED, type Changed } from "../model/changed";
import {
  parseCard,
  parseChannel,
  parseConversation,
  parsePage,
  parseSession,
  parseTask,
} from "../model/parse";
import { list } from "../model/fields";
import { parseMigration, type Migration } from "../model/migration";
import { newestFirst, parseOperation, type OpenTasks, type Operation } from "../model/operations";
import { parsePrompts } from "../model/prompts";
import { parseShift, parseUsage, type ShiftReport, type Usage } from "../model/reports";
import type { MoveAction, Requested } from "../model/steps";
import type { Card, Channel, Conversation, Page, Prompts, Session, Task } from "../model/protocol";

const TIMEOUT_MS = 10_000;
const BUSY = 503;
const AGAIN = 2;
const LONGEST_PAUSE_MS = 2_000;
/** A language model may take its time to find words. */
const NARRATIVE_MS = 20_000;
/** The server answers as soon as an operation rests, or after ten seconds. */
const OPERATION_MS = 20_000;

export class Problem extends Error {
  constructor(
    message: string,
    /** HTTP status; 0 where the server could not be reached. */
    readonly status: number,
    readonly code: string = "",
    /** What became of the task instead, where somebody else was first. */
    readonly changed: Changed | null = null,
  ) {
    super(message);
  }
}

/** Addresses are relative to the page, so that it works behind a path prefix. */
export const address = (path: string): URL => new URL(path, document.baseURI.replace(/[?#].*$/u, ""));

async function problemOf(response: Response): Promise<Problem> {
  let said: Record<string, unknown> = {};
  try {
    const body: unknown = await response.json();
    if (typeof body === "object" && body !== null) said = body as Record<string, unknown>;
  } catch {
    // An answer that is no problem document (a proxy's page): the status has to do.
  }
  const word = [said["detail"], said["title"]].find((each): each is string => typeof each === "string" && each !== "");
  const code = typeof said["code"] === "string" ? said["code"] : "";
  const changed = code === TASK_CHANGED ? parseChanged(said) : null;
  return new Problem(word ?? `The server answered ${response.status}.`, response.status, code, changed);
}

interface Extra {
  body?: unknown;
  signal?: AbortSignal | undefined;
  within?: number;
  headers?: Record<string, string>;
}

/** Asks again where the server is busy for a moment, such as while a module moves to another process. */
async function answered(path: string, init: RequestInit, signal: AbortSignal | undefined): Promise<Response> {
  for (let again = 0; ; again += 1) {
    let response: Response;
    try {
      // oxlint-disable-next-line no-await-in-loop -- only where the one before was refused
      response = await fetch(address(path), init);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Problem("The server cannot be reached.", 0);
    }
    if (response.status !== BUSY || again === AGAIN) return response;
    const after = Number(response.headers.get("Retry-After") ?? 1) * 1_000;
    // oxlint-disable-next-line no-await-in-loop -- as above
    await new Promise((resolve) => {
      setTimeout(resolve, Math.min(after, LONGEST_PAUSE_MS));
    });
  }
}

async function request(method: string, path: string, { body, signal, within = TIMEOUT_MS, headers = {} }: Extra = {}): Promise<unknown> {
  const type: Record<string, string> = body === undefined ? {} : { "Content-Type": "application/json" };
  const init: RequestInit = {
    method,
    credentials: "same-origin",
    headers: { Accept: "application/json", ...type, ...headers },
    signal: signal ? AbortSignal.any([signal, AbortSignal.timeout(within)]) : AbortSignal.timeout(within),
  };
  if (body !== undefined) init.body = JSON.stringify(body);
  const response = await answered(path, init, signal);
  if (!response.ok) throw await problemOf(response);
  if (response.status === 204) return null;
  try {
    return (await response.json()) as unknown;
  } catch {
    throw new Problem("The server's answer could not be read.", response.status);
  }
}

function required<T>(value: T | null): T {
  if (value === null) throw new Problem("The server's answer could not be read.", 200);
  return value;
}

export type Query = Partial<
  Record<"limit" | "unfinished" | "cursor" | "query" | "channel" | "department" | "since" | "conversation" | "status", string>
>;

function withQuery(path: string, query: Query): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) search.set(name, value);
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export const getSession = async (): Promise<Session> => parseSession(await request("GET", "v1/session"));
export const signInWith = async (key: string): Promise<Session> =>
  parseSession(await request("POST", "v1/session", { body: { key } }));
export const endSession = async (): Promise<void> => {
  await request("DELETE", "v1/session");
};
export const getUtterances = async (query: Query, signal?: AbortSignal): Promise<Page<Card>> =>
  parsePage(await request("GET", withQuery("v1/utterances", query), { signal }), parseCard);
export const getUtterance = async (id: string, signal?: AbortSignal): Promise<Card> =>
  required(parseCard(await request("GET", `v1/utterances/${encodeURIComponent(id)}`, { signal })));
export const getConversations = async (query: Query, signal?: AbortSignal): Promise<Page<Conversation>> =>
  parsePage(await request("GET", withQuery("v1/conversations", query), { signal }), parseConversation);
export const getConversation = async (id: string, signal?: AbortSignal): Promise<Conversation> =>
  required(parseConversation(await request("GET", `v1/conversations/${encodeURIComponent(id)}`, { signal })));
export const getChannels = async (): Promise<Channel[]> =>
  parsePage(await request("GET", "v1/channels"), parseChannel).items;

export const getPrompts = async (signal: AbortSignal): Promise<Prompts> =>
  parsePrompts(await request("GET", "v1/prompts", { signal }));
/** The numbers at once with plain words, or with the words of the language model, if there is one. */
export const getShift = async (since: string, narrative: "local" | "any", signal: AbortSignal): Promise<ShiftReport> => {
  const search = new URLSearchParams({ since, narrative });
  return parseShift(await request("GET", `v1/reports/shift?${search.toString()}`, { signal, within: NARRATIVE_MS }));
};
export const getUsage = async (signal: AbortSignal): Promise<Usage> =>
  parseUsage(await request("GET", "v1/usage?limit=20", { signal }));

/** Null: no module is being moved. */
export const getMigration = async (signal: AbortSignal): Promise<Migration | null> => {
  try {
    return parseMigration(await request("GET", "v1/migration", { signal }));
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return null;
    throw error;
  }
};
/** Gives how it is then; a change that takes longer goes on. */
export const moveModule = async (module: string, action: MoveAction, body: Requested): Promise<Migration | null> =>
  parseMigration(await request("POST", `v1/migration/${encodeURIComponent(module)}/${action}`, { body }));

const listOperations = async (query: Query, signal: AbortSignal): Promise<Operation[]> => {
  const found = await request("GET", withQuery("v1/operations", query), { signal });
  return list((found as { items?: unknown } | null)?.items, parseOperation);
};
/** The newest, and all that are not over, however old. */
export const getOperations = async (limit: number, signal: AbortSignal): Promise<Operation[]> =>
  newestFirst(
    ...(await Promise.all([listOperations({ limit: String(limit) }, signal), listOperations({ limit: "200", unfinished: "true" }, signal)])),
  );
const operationPath = (id: string): string => `v1/operations/${encodeURIComponent(id)}`;
export const getOperation = async (id: string, signal: AbortSignal): Promise<Operation> =>
  required(parseOperation(await request("GET", operationPath(id), { signal })));
/** Gives how it stands then; it may still be under way. */
export const decideOperation = async (id: string, decision: "resume" | "compensate"): Promise<Operation> =>
  required(parseOperation(await request("POST", `${operationPath(id)}/${decision}`, { within: OPERATION_MS })));
export const closeConversation = async (id: string, tasks: OpenTasks): Promise<Operation> =>
  required(parseOperation(await request("POST", `v1/conversations/${encodeURIComponent(id)}/close`, { body: { tasks }, within: OPERATION_MS })));

export type TaskAction = "acknowledge" | "complete" | "assign" | "reopen";
/** Refused with `Problem.changed` if the task is not the one of that version any more; null: whatever it is. */
export const actOnTask = async (id: string, action: TaskAction, version: number | null, body: { assignee?: string } = {}): Promise<Task> => {
  const headers: Record<string, string> = version === null ? {} : { "If-Match": `"${version}"` };
  return required(parseTask(await request("POST", `v1/tasks/${encodeURIComponent(id)}/${action}`, { body, headers })));
};
