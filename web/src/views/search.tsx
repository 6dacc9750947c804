/** Full-text search by the server, newest first; the cards found stay live. */
import { useCallback, useEffect } from "preact/hooks";
import { getUtterances, type Query } from "../live/api";
import { departmentWords, humanise } from "../model/words";
import { boardLink, route, setSearch, type Since } from "../state/route";
import { passes } from "../state/sections";
import { forgetUnlisted, putCard, type Entry } from "../state/store";
import { CardView } from "./card";
import { useFetched } from "./fetched";
import { ListStates } from "./lists";

const PAGE = "50";
const SINCE: [Since, string][] = [
  ["", "Any time"],
  ["1", "Last hour"],
  ["8", "Last 8 hours"],
  ["24", "Last 24 hours"],
];

export function SearchResults() {
  const { query, filters, since } = route.value;
  const { channel, department, status } = filters;
  const get = useCallback(
    async (cursor: string | null, signal: AbortSignal) => {
      const wanted: Query = { query, channel, department, limit: PAGE };
      if (since) wanted.since = new Date(Date.now() - Number(since) * 3_600_000).toISOString();
      if (cursor !== null) wanted.cursor = cursor;
      const page = await getUtterances(wanted, signal);
      const items: Entry[] = page.items.map((card) => putCard(card, false));
      return { items, next_cursor: page.next_cursor };
    },
    [query, channel, department, since],
  );
  const found = useFetched(get);
  useEffect(() => () => forgetUnlisted(), []);
  const shown = found.items.filter((entry) => passes(entry.card.value, { channel, department, status }));
  const within = [channel && `on ${humanise(channel)}`, department && `for ${departmentWords(department)}`].filter(Boolean).join(" ");
  return (
    <section class="results" aria-label="Search results" data-testid="search-results">
      <div class="view-head">
        <h2 aria-live="polite">
          {found.state === "loading" && found.items.length === 0
            ? `Searching for “${query}”`
            : `${shown.length}${found.next === null ? "" : "+"} found for “${query}” ${within}`}
        </h2>
        <label class="pick">
          <span>When</span>
          <select value={since} data-testid="filter-since" onChange={(event) => setSearch(query, event.currentTarget.value as Since)}>
            {SINCE.map(([value, words]) => (
              <option key={value} value={value}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <a class="button" href={boardLink(filters)} data-testid="search-close">
          Back to the board
        </a>
      </div>
      <div class="cards grid">
        {shown.map((entry) => (
          <CardView key={entry.id} entry={entry} />
        ))}
      </div>
      <ListStates list={found} empty="Nothing that was said matches. Fewer or other words may." />
    </section>
  );
}
