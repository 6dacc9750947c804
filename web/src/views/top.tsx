/** The top of the page: where we are, search, and whether everything works. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { signOut } from "../live/client";
import { plural } from "../model/format";
import * as app from "../state/app";
import { boardLink, filters, OPERATIONS_LINK, route, setSearch } from "../state/route";
import { Health } from "./health";
import { MigrationLink } from "./migration";
import { SoundSwitch } from "./sound";

const TYPING_MS = 250;

function SearchBox() {
  const field = useRef<HTMLInputElement>(null);
  const timer = useRef(0);
  const typed = useSignal(route.value.query);
  const query = route.value.query;
  const { view } = route.value;
  useEffect(() => {
    // Going somewhere else outranks a search that was about to start.
    if (view !== "board") window.clearTimeout(timer.current);
    if (view !== "board" || document.activeElement !== field.current) typed.value = query;
  }, [query, view, typed]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const inField = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
      if (event.key !== "/" || inField || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      field.current?.focus();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, []);
  const search = (words: string, wait: number): void => {
    typed.value = words;
    window.clearTimeout(timer.current);
    timer.current = window.setTimeout(() => setSearch(words.trim()), wait);
  };
  return (
    <form
      role="search"
      class="search"
      onSubmit={(event) => {
        event.preventDefault();
        search(typed.value, 0);
      }}
    >
      <input
        ref={field}
        type="search"
        placeholder="Search everything said"
        aria-label="Search everything said"
        aria-keyshortcuts="/"
        data-testid="search"
        value={typed.value}
        onInput={(event) => search(event.currentTarget.value, TYPING_MS)}
        onKeyDown={(event) => event.key === "Escape" && search("", 0)}
      />
    </form>
  );
}

export function Top({ critical, open }: { critical: number; open: number }) {
  const current = route.value;
  return (
    <header class="top">
      <a class="brand" href={boardLink(filters.value)} aria-label="QuickComm, to the board">
        <img src="./favicon.svg" alt="" width="26" height="26" />
        <span>QuickComm</span>
        {app.session.value?.site ? <span class="site" data-testid="site">{app.session.value.site}</span> : null}
      </a>
      <nav aria-label="Views">
        <a href={boardLink(filters.value)} aria-current={current.view === "board" ? "page" : undefined} data-testid="nav-board">
          Board
          {open > 0 && (
            <span class={critical > 0 ? "count has-critical" : "count"} title={`${plural(open, "task")} to do, ${critical} critical`} data-testid="open-count">
              {open}
            </span>
          )}
        </a>
        <a href="#/conversations" aria-current={current.view === "conversations" ? "page" : undefined} data-testid="nav-conversations">
          Conversations
        </a>
        <a href="#/shift" aria-current={current.view === "shift" ? "page" : undefined} data-testid="nav-shift">
          Shift report
        </a>
        <a href="#/model" aria-current={current.view === "model" ? "page" : undefined} data-testid="nav-model">
          Model
        </a>
        <a href="#/prompts" aria-current={current.view === "prompts" ? "page" : undefined} data-testid="nav-prompts">
          Prompts
        </a>
        <a href={OPERATIONS_LINK} aria-current={current.view === "operations" ? "page" : undefined} data-testid="nav-operations">
          Operations
        </a>
        <MigrationLink current={current.view === "migration"} />
      </nav>
      <SearchBox />
      <div class="right">
        <SoundSwitch />
        <Health />
        {app.health.value?.classifier?.state === "off" && app.health.value.classifier.model !== "" && (
          <span class="role" data-testid="local-classifier" title={app.health.value.classifier.message}>
            Local classifier
          </span>
        )}
        {app.session.value?.role === "read" && <span class="role" data-testid="role">View only</span>}
        <button type="button" class="link" data-testid="sign-out" onClick={() => void signOut()}>
          Sign out
        </button>
      </div>
    </header>
  );
}
