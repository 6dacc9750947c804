/** A migration: modules move between the monolith and services of their own, and back. */
import { useSignal } from "@preact/signals";
import { getMigration } from "../live/api";
import { clockTime } from "../model/format";
import type { Entry, Migration } from "../model/migration";
import { auditWords, isAway } from "../model/steps";
import { humanise } from "../model/words";
import * as app from "../state/app";
import { migration, moving, noteMigration, notes, seenAt } from "../state/migration";
import { boardLink } from "../state/route";
import { NO_FILTERS } from "../state/sections";
import { useRefreshed } from "./fetched";
import { FigureRows, ModuleCard } from "./module";
import { KillSwitch, mayMove } from "./move";

const REFRESH_MS = 2000;
/** Other views only need to know whether there is one. */
const LOOK_MS = 15_000;
const FIRST_ENTRIES = 15;
/** What follows from a change by itself. */
const CARRIED_OUT = new Set(["publish", "lease", "in force"]);

async function look(signal: AbortSignal): Promise<boolean> {
  const found = await getMigration(signal);
  if (!signal.aborted) noteMigration(found);
  return found !== null;
}

/** In the page's menu, only while there is a migration. */
export function MigrationLink({ current }: { current: boolean }) {
  useRefreshed(look, LOOK_MS);
  if (!moving.value && !current) return null;
  return (
    <a href="#/migration" aria-current={current ? "page" : undefined} data-testid="nav-migration">
      Migration
    </a>
  );
}

function Followers({ found: { followers, version, behind, in_force } }: { found: Migration }) {
  return (
    <div data-testid="followers" data-in-force={in_force}>
      <h3>Who follows the routes</h3>
      {followers === null ? (
        <p class="failed">The store does not answer. All keep the routes that they have.</p>
      ) : (
        <p>
          {version === 0
            ? "No routes were published yet."
            : behind.length === 0
              ? `Version ${version} is in force everywhere.`
              : `Version ${version} is not in force yet: ${behind.join(", ")} behind.`}
        </p>
      )}
      <ul class="followers">
        {Object.entries(followers ?? {})
          .sort(([one], [other]) => one.localeCompare(other))
          .map(([name, follows]) => (
            <li key={name} data-testid="follower" data-behind={behind.includes(name)}>
              <b>{name}</b> version {follows}
              {behind.includes(name) && <strong class="forced"> behind</strong>}
            </li>
          ))}
      </ul>
    </div>
  );
}

function Row({ entry }: { entry: Entry }) {
  const at = new Date(entry.at).toISOString();
  return (
    <tr class={CARRIED_OUT.has(entry.action) ? "carried-out" : ""} data-testid="audit-entry" data-action={entry.action} data-module={entry.name}>
      <td>
        <time dateTime={at} title={at}>
          {clockTime(at, app.now.value)}
        </time>
      </td>
      <td>{entry.who}</td>
      <th scope="row">
        {humanise(entry.name)}: {auditWords(entry.action)}
      </th>
      <td>{entry.before === entry.after ? entry.after : `${entry.before} → ${entry.after}`}</td>
      <td class={entry.why === "" ? "note none" : "note"}>{/\bforced$/u.test(entry.why) ? <strong class="forced">{entry.why}</strong> : entry.why}</td>
      <td class={entry.evidence.length === 0 ? "note none" : "note"}>
        {entry.evidence.length === 0 ? (
          "–"
        ) : (
          <details data-testid="audit-evidence">
            <summary>{entry.evidence.length === 1 ? "1 figure" : `${entry.evidence.length} figures`}</summary>
            <FigureRows figures={entry.evidence} />
          </details>
        )}
      </td>
    </tr>
  );
}

function Audit({ entries }: { entries: readonly Entry[] }) {
  const all = useSignal(false);
  const shown = all.value ? entries : entries.slice(0, FIRST_ENTRIES);
  return (
    <>
      <h3 id="migration-audit">Who did what, and why</h3>
      {entries.length === 0 ? (
        <p class="hint">Nothing was moved yet.</p>
      ) : (
        <div class="scroll" role="region" aria-labelledby="migration-audit" tabIndex={0}>
          <table class="table trail" aria-labelledby="migration-audit">
            <thead>
              <tr>
                <th scope="col">When</th>
                <th scope="col">Who</th>
                <th scope="col">What</th>
                <th scope="col">From where to where</th>
                <th scope="col">Why</th>
                <th scope="col">Evidence</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((entry) => (
                <Row key={entry.id} entry={entry} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {shown.length < entries.length && (
        <button type="button" class="link" data-testid="audit-more" onClick={() => (all.value = true)}>
          Show {entries.length - shown.length} earlier ones
        </button>
      )}
    </>
  );
}

function Known({ found }: { found: Migration }) {
  return (
    <>
      {found.modules.map((module) => (
        <ModuleCard key={module.name} module={module} audit={found.audit} />
      ))}
      <Followers found={found} />
      <Audit entries={found.audit} />
      <p class="hint foot">
        From the command line: <code>quickcomm migrate --help</code>
      </p>
    </>
  );
}

function NotMoving() {
  return (
    <div class="empty" data-testid="migration-none">
      <h2>No module is being moved</h2>
      <p>Where the site runs with quickcomm up, begin with:</p>
      <pre>quickcomm migrate start dashboard</pre>
    </div>
  );
}

/** Why what is shown is not of now; empty where it is. */
function staleWords(error: string, there: boolean | null): string {
  if (error !== "") return `${error} Trying again …`;
  if (there !== false || migration.value === null) return "";
  const seen = clockTime(new Date(seenAt.value).toISOString(), app.now.value);
  return `The controller does not answer; all keep the routes that they have. This is as of ${seen}. Trying again …`;
}

export function MigrationView() {
  const { value: there, error } = useRefreshed(look, REFRESH_MS);
  const stale = staleWords(error, there);
  const found = migration.value;
  return (
    <section class="migration" aria-label="Migration" data-testid="migration" data-stale={stale !== ""}>
      <div class="view-head">
        <a class="button" href={boardLink(NO_FILTERS)}>
          Back to the board
        </a>
        <h2>Migration</h2>
        {found !== null && mayMove() && found.modules.some(isAway) && <KillSwitch />}
      </div>
      {stale !== "" && (
        <p class="failed" role="alert" data-testid="migration-error">
          {stale}
        </p>
      )}
      {notes.value.length > 0 && (
        <p class="hint" role="status" data-testid="migration-notes">
          {notes.value.join(" ")}
        </p>
      )}
      {found !== null && <Known found={found} />}
      {found === null && there === null && error === "" && (
        <p class="hint" role="status">
          Fetching …
        </p>
      )}
      {found === null && there === false && error === "" && <NotMoving />}
    </section>
  );
}
