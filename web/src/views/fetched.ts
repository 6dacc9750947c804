/** What is fetched for a view: a list page by page, or one thing again and again. */
import { useSignal } from "@preact/signals";
import { useCallback, useEffect } from "preact/hooks";
import type { Page } from "../model/protocol";

export interface Fetched<T> {
  items: readonly T[];
  state: "loading" | "ready" | "failed";
  error: string;
  next: string | null;
  more: () => void;
}

/** `get` must be stable for the same query (useCallback); a new one starts the list again. */
export function useFetched<T>(get: (cursor: string | null, signal: AbortSignal) => Promise<Page<T>>): Fetched<T> {
  const found = useSignal<Omit<Fetched<T>, "more">>({ items: [], state: "loading", error: "", next: null });
  const load = useCallback(
    async (cursor: string | null, signal: AbortSignal): Promise<void> => {
      found.value = { ...found.value, items: cursor === null ? [] : found.value.items, state: "loading" };
      try {
        const page = await get(cursor, signal);
        if (signal.aborted) return;
        found.value = { items: [...found.value.items, ...page.items], state: "ready", error: "", next: page.next_cursor };
      } catch (error) {
        if (signal.aborted) return;
        const words = error instanceof Error ? error.message : "Something went wrong.";
        found.value = { ...found.value, state: "failed", error: words };
      }
    },
    [get, found],
  );
  useEffect(() => {
    const stop = new AbortController();
    void load(null, stop.signal);
    return () => stop.abort();
  }, [load]);
  const { next, items } = found.value;
  const more = (): void => void load(items.length === 0 ? null : next, new AbortController().signal);
  return { ...found.value, more };
}

export interface Refreshed<T> {
  value: T | null;
  /** Why the last attempt failed; empty where it did not. */
  error: string;
}

/** `get` (stable, see above) now, and again `everyMs` after each answer while the page is in sight; the last value stays. */
export function useRefreshed<T>(get: (signal: AbortSignal) => Promise<T>, everyMs: number): Refreshed<T> {
  const found = useSignal<Refreshed<T>>({ value: null, error: "" });
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const load = async (): Promise<void> => {
      try {
        if (!document.hidden || found.value.value === null) found.value = { value: await get(stop.signal), error: "" };
      } catch (error) {
        if (stop.signal.aborted) return;
        found.value = { ...found.value, error: error instanceof Error ? error.message : "Something went wrong." };
      }
      if (!stop.signal.aborted) timer = window.setTimeout(() => void load(), everyMs);
    };
    void load();
    return () => {
      stop.abort();
      window.clearTimeout(timer);
    };
  }, [get, everyMs, found]);
  return found.value;
}
