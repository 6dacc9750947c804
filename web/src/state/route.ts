/**
 * Where in the page we are: `#/?department=…`, `#/conversations`, `#/conversation/ID`, `#/utterance/ID`, `#/shift`, `#/model`,
 * `#/prompts`, `#/operations`, `#/operation/ID`, `#/migration`.
 */
import { computed, signal } from "@preact/signals";
import { followScroll } from "./scroll";
import { NO_FILTERS, type Filters, type StatusFilter } from "./sections";

export type Since = "" | "1" | "8" | "24";

export type View = "board" | "conversations" | "conversation" | "utterance" | "shift" | "model" | "prompts" | "operations" | "operation" | "migration";
const OTHERS: readonly string[] = ["conversations", "conversation", "utterance", "shift", "model", "prompts", "operations", "operation", "migration"];

export interface Route {
  view: View;
  id: string;
  filters: Filters;
  query: string;
  since: Since;
}

const STATUSES: readonly string[] = ["open", "acknowledged", "done"];

const decode = (part: string): string => {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
};

export function parseRoute(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#/u, "").split("?", 2);
  const [, head = "", tail = ""] = path.split("/");
  const wanted = new URLSearchParams(search);
  const status = wanted.get("status") ?? "";
  const since = wanted.get("since") ?? "";
  return {
    view: OTHERS.includes(head) ? (head as View) : "board",
    id: decode(tail),
    filters: {
      department: wanted.get("department") ?? "",
      channel: wanted.get("channel") ?? "",
      status: STATUSES.includes(status) ? (status as StatusFilter) : "all",
    },
    query: wanted.get("q") ?? "",
    since: ["1", "8", "24"].includes(since) ? (since as Since) : "",
  };
}

export function boardLink(filters: Filters, query = "", since: Since = ""): string {
  const search = new URLSearchParams();
  if (filters.department) search.set("department", filters.department);
  if (filters.channel) search.set("channel", filters.channel);
  if (filters.status !== "all") search.set("status", filters.status);
  if (query) search.set("q", query);
  if (since) search.set("since", since);
  const text = search.toString();
  return text ? `#/?${text}` : "#/";
}

export const conversationLink = (id: string): string => `#/conversation/${encodeURIComponent(id)}`;
export const OPERATIONS_LINK = "#/operations";
export const operationLink = (id: string): string => `#/operation/${encodeURIComponent(id)}`;
export const shiftLink = (since: Since): string => (since ? `#/shift?since=${since}` : "#/shift");
export const utteranceLink = (id: string): string => `#/utterance/${encodeURIComponent(id)}`;

export const route = signal<Route>(parseRoute(""));
export const filters = computed(() => route.value.filters);

/** Goes there without a step in the history: filters and typing are not places to come back to. */
export function replaceRoute(link: string): void {
  history.replaceState(history.state, "", link);
  route.value = parseRoute(location.hash);
}

export const setFilters = (change: Partial<Filters>): void => {
  const { filters: current, query, since } = route.value;
  replaceRoute(boardLink({ ...current, ...change }, query, since));
};
export function setSearch(query: string, since: Since = route.value.since): void {
  const { view, query: current, filters: kept } = route.value;
  // An emptied search box closes the search; it does not call anybody away from another view.
  if (query === "" && (view !== "board" || current === "")) return;
  replaceRoute(boardLink(kept, query, query ? since : ""));
}
export const clearFilters = (): void => replaceRoute(boardLink(NO_FILTERS, route.value.query, route.value.since));

/** `first` sees each new address before it is followed (a link with a key may be opened in a tab that is open already). */
export function followAddress(first: () => void): void {
  history.scrollRestoration = "manual";
  const follow = (): void => {
    first();
    followScroll();
    route.value = parseRoute(location.hash);
  };
  follow();
  window.addEventListener("hashchange", follow);
}
