/** The top of the page: where we are, search, and whether everything works. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { retryNow, signOut } from "../live/client";
import { age, clockTime, duration, plural } from "../model/format";
import { STAGES } from "../model/protocol";
import { STAGE_WORDS } from "../model/words";
import * as app from "../state/app";
import { boardLink, filters, route, setSearch } from "../state/route";

const TYPING_MS = 250;
const ALARMS_SHOWN = 3;
const BACKLOG_WORTH_SAYING_S = 2;

const CONNECTION_WORDS = { live: "Live", connecting: "Connecting …", waiting: "Connection lost", offline: "This device is offline" };

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

function Health() {
  const state = app.connection.value;
  const health = app.health.value;
  const live = state === "live";
  const worried = live && (health?.status === "degraded" || (health?.alarms.length ?? 0) > 0);
  const look = live ? (worried ? "worried" : "fine") : "broken";
  return (
    <>
      <button type="button" class={`pill ${look}`} popovertarget="health" data-testid="connection" data-state={state}>
        <i class="dot" aria-hidden="true" />
        {CONNECTION_WORDS[state]}
        {worried && <span class="pill-note">· degraded</span>}
      </button>
      <div id="health" popover="auto" class="panel" role="region" aria-label="Health" data-testid="health">
        <h2>Health</h2>
        <dl>
          <dt>Connection</dt>
          <dd>{CONNECTION_WORDS[state]}</dd>
          <dt>Conversations heard now</dt>
          <dd data-testid="health-sessions">{health?.sessions ?? "–"}</dd>
          <dt>Speech waiting to be written</dt>
          <dd data-testid="health-backlog">{health ? `${health.stt_backlog_s.toFixed(1)} s` : "–"}</dd>
          <dt>Understanding</dt>
          <dd data-testid="health-classifier">{classifierWords()}</dd>
          <dt>Version</dt>
          <dd>{app.session.value?.version ?? "–"}</dd>
        </dl>
        {health?.budget.total !== undefined && (
          <details>
            <summary>Time allowed from the last word to this page: {duration(health.budget.total)}</summary>
            <table class="budgets" data-testid="budgets">
              <thead>
                <tr>
                  <th scope="col">Last minutes</th>
                  <th scope="col">p50</th>
                  <th scope="col">p95</th>
                  <th scope="col">p99</th>
                  <th scope="col">allowed</th>
                </tr>
              </thead>
              <tbody>
                {([...STAGES, "painted", "total"] as const).map((stage) => {
                  const allowed = health.budget[stage];
                  const lately = health.stages.find((one) => one.stage === stage);
                  return allowed === undefined ? null : (
                    <tr key={stage} data-stage={stage} class={lately?.breach ? "over" : ""}>
                      <th scope="row">{STAGE_WORDS[stage]}</th>
                      {([lately?.p50_ms, lately?.p95_ms, lately?.p99_ms] as const).map((ms, at) => (
                        <td key={at}>{ms === undefined ? "–" : duration(ms)}</td>
                      ))}
                      <td>{duration(allowed)}</td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </details>
        )}
      </div>
    </>
  );
}

function classifierWords(): string {
  const classifier = app.health.value?.classifier;
  if (!classifier) return "–";
  const model = classifier.model ? ` (${classifier.model})` : "";
  if (classifier.message && classifier.state !== "up") return classifier.message;
  if (classifier.degraded) return "Running on the local classifier: the language model is away";
  return classifier.source === "llm" ? `Language model${model}` : `Local classifier${model}`;
}

/** What an operator must know, in order of weight. Nothing is said where all is well. */
export function Alarms() {
  const state = app.connection.value;
  const health = app.health.value;
  const said: { key: string; text: string; since: string | null; grave: boolean }[] = [];
  for (const alarm of health?.alarms ?? []) {
    said.push({ key: alarm.code, text: alarm.message || alarm.code, since: alarm.since || null, grave: true });
  }
  if (health?.classifier?.degraded && !said.some((alarm) => alarm.key === "language_model")) {
    const text = "Running on the local classifier: the language model is away. Cards made meanwhile are checked again later.";
    said.push({ key: "classifier", text, since: null, grave: false });
  }
  if ((health?.stt_backlog_s ?? 0) >= BACKLOG_WORTH_SAYING_S) {
    const text = `Speech to text is ${health?.stt_backlog_s.toFixed(1)} s behind. Cards come late.`;
    said.push({ key: "backlog", text, since: null, grave: false });
  }
  const slow = (health?.stages ?? []).filter((stage) => stage.breach !== "");
  for (const stage of slow.filter((one) => one.stage !== "total" || slow.length === 1)) {
    said.push({ key: `budget.${stage.stage}`, text: `Cards come late. ${stage.breach}`, since: null, grave: false });
  }
  const lost = state === "waiting" || state === "offline";
  if (!lost && said.length === 0) return null;
  return (
    <div class="alarms" role="status" data-testid="alarms">
      {lost && (
        <p class="alarm grave" data-testid="connection-lost">
          <span>
            {CONNECTION_WORDS[state]}. What you see is as of {clockTime(new Date(lastLive).toISOString(), app.now.value)}; nothing new appears until it is back.
          </span>
          <button type="button" onClick={retryNow}>
            Try now
          </button>
        </p>
      )}
      {said.slice(0, ALARMS_SHOWN).map((alarm) => (
        <p key={alarm.key} class={alarm.grave ? "alarm grave" : "alarm"} data-testid="alarm" data-code={alarm.key}>
          <span>{alarm.text}</span>
          {alarm.since !== null && (
            <time dateTime={alarm.since} title={alarm.since}>
              for {age(alarm.since, app.now.value).replace("now", "a moment")}
            </time>
          )}
        </p>
      ))}
      {said.length > ALARMS_SHOWN && <p class="alarm">And {plural(said.length - ALARMS_SHOWN, "more alarm")}.</p>}
    </div>
  );
}

let lastLive = Date.now();
app.connection.subscribe((state) => {
  if (state !== "live") return;
  lastLive = Date.now();
});
app.health.subscribe(() => {
  lastLive = Date.now();
});

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
      </nav>
      <SearchBox />
      <div class="right">
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
