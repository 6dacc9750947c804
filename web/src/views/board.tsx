/** The board: what must be done, by urgency; everything else that was heard beside it. */
import { computed, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import { plural } from "../model/format";
import * as app from "../state/app";
import { onAir } from "../state/captions";
import { clearFilters, filters } from "../state/route";
import { passes, sectionOf, workload, type Section } from "../state/sections";
import { listed, type Entry } from "../state/store";
import { OlderOnes, WorkLeftOut } from "./beyond";
import { CardView } from "./card";
import { Filters } from "./filters";
import { Strip } from "./strip";

const FIRST = 25;
/** Few enough that the work below is not pushed out of sight; the heading says how many there are. */
const FIRST_CRITICAL = 12;
const MORE = 50;
/** Unclassified for this long: somebody must read it. */
const UNREAD_MS = 15_000;

export const work = computed(() => workload(listed.value.map((entry) => entry.card.peek())));

const sections = computed(() => {
  const found: Record<Section, Entry[]> = { critical: [], unclassified: [], high: [], normal: [], information: [], done: [] };
  const wanted = filters.value;
  for (const entry of listed.value) {
    const card = entry.card.peek();
    if (passes(card, wanted)) found[sectionOf(card)].push(entry);
  }
  // Somebody has those already; those that nobody has come first.
  found.critical.sort((a, b) => Number(inHand(a)) - Number(inHand(b)));
  return found;
});

const inHand = (entry: Entry): boolean => {
  const { tasks } = entry.card.peek();
  return tasks.length > 0 && tasks.every((task) => task.status !== "open");
};

/** How many are drawn: kept while another view is looked at, so that Back finds the board as it was. */
const limits: Record<Section, Signal<number>> = {
  critical: signal(FIRST_CRITICAL),
  unclassified: signal(FIRST),
  high: signal(FIRST),
  normal: signal(FIRST),
  information: signal(FIRST),
  done: signal(FIRST),
};

interface GroupProps {
  section: Section;
  title: string;
  /** What to say where there is nothing; without it the group is not shown then. */
  empty?: string;
  wide?: boolean;
  entries: ReadonlySignal<Record<Section, Entry[]>>;
}

function Group({ section, title, empty, wide, entries }: GroupProps) {
  const limit = limits[section];
  const all = entries.value[section];
  if (all.length === 0 && empty === undefined) return null;
  return (
    <section class={`group g-${section}${wide ? " wide" : ""}`} aria-label={title} data-testid={`section-${section}`}>
      <h2>
        {title} <span class="count">{all.length}</span>
      </h2>
      {all.length === 0 && <p class="none">{empty}</p>}
      <div class="cards">
        {all.slice(0, limit.value).map((entry) => (
          <CardView key={entry.id} entry={entry} />
        ))}
      </div>
      {all.length > limit.value && (
        <button type="button" class="more" onClick={() => (limit.value += MORE)} data-testid={`more-${section}`}>
          Show {Math.min(MORE, all.length - limit.value)} more of {all.length - limit.value}
        </button>
      )}
    </section>
  );
}

function NothingHeard() {
  const command = `quickcomm ingest shift.wav --url ${location.origin} --key KEY --channel Housekeeping`;
  return (
    <div class="empty" data-testid="empty">
      <h2>Nothing heard yet</h2>
      {onAir.value.length > 0 ? <p>Listening to {plural(onAir.value.length, "channel")}. What is said will appear here.</p> : null}
      <p>Start with:</p>
      <pre>{command}</pre>
      <p class="hint">
        A radio plugged into this machine works as well: <code>quickcomm ingest --device NAME</code>. For a recorded shift, try{" "}
        <code>quickcomm demo</code>.
      </p>
    </div>
  );
}

function Loading() {
  return (
    <div class="loading" role="status" data-testid="loading">
      <p>Fetching what was heard …</p>
      <div class="bones" aria-hidden="true">
        <i />
        <i />
        <i />
      </div>
    </div>
  );
}

export function Board() {
  const some = listed.value.length > 0;
  return (
    <>
      <Strip />
      <WorkLeftOut />
      {!some && !app.caughtUp.value && <Loading />}
      {!some && app.caughtUp.value && <NothingHeard />}
      {some && <Columns />}
    </>
  );
}

function Columns() {
  const unread = sections.value.unclassified.some((entry) => app.classifierAway.value || app.now.value - entry.spoken > UNREAD_MS);
  const matching = Object.values(sections.value).some((group) => group.length > 0);
  return (
    <>
      <Filters work={work.value} />
      {!matching && (
        <div class="empty" data-testid="no-match">
          <h2>Nothing here with these filters</h2>
          <button type="button" onClick={clearFilters}>
            Show everything
          </button>
        </div>
      )}
      {matching && (
        <div class="board" data-testid="board">
          <Group section="critical" title="Critical" entries={sections} />
          {unread && <Group section="unclassified" title="Not yet classified: please read" wide entries={sections} />}
          <div class="columns">
            <Group section="high" title="High" empty="Nothing urgent." entries={sections} />
            <Group section="normal" title="Normal" empty="Nothing waiting." entries={sections} />
            <div class="column">
              {!unread && <Group section="unclassified" title="Just heard" entries={sections} />}
              <Group section="information" title="For information" entries={sections} />
              <Group section="done" title="Done" entries={sections} />
              <OlderOnes />
            </div>
          </div>
        </div>
      )}
    </>
  );
}
