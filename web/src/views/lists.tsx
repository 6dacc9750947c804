/** Parts that lists have in common: their states, and a button for the next page. */
import type { Fetched } from "./fetched";

export function ListStates<T>({ list, empty }: { list: Fetched<T>; empty: string }) {
  if (list.state === "failed") {
    return (
      <p class="failed" role="alert" data-testid="list-error">
        {list.error}{" "}
        <button type="button" onClick={list.more}>
          Try again
        </button>
      </p>
    );
  }
  if (list.state === "loading") {
    return (
      <p class="hint" role="status" data-testid="list-loading">
        Fetching …
      </p>
    );
  }
  if (list.items.length === 0) {
    return (
      <p class="none" data-testid="list-empty">
        {empty}
      </p>
    );
  }
  if (list.next === null) return null;
  return (
    <button type="button" class="more" onClick={list.more} data-testid="list-more">
      Show more
    </button>
  );
}
