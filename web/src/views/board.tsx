/** The board: what must be done, by urgency; everything else that was heard beside it. */
import { computed } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { plural } from "../model/format";
import * as app from "../state/app";
import { board, rearrange, scrolled } from "../state/board";
import { onAir } from "../state/captions";
import { clearFilters } from "../state/route";
import { workload } from "../state/sections";
import { listed } from "../state/store";
import { OlderOnes, WorkLeftOut } from "./beyond";
import { Filters } from "./filters";
import { useHolds } from "./hold";
import { Slides } from "./motion";
import { SectionView } from "./section";
import { Strip } from "./strip";

export const work = computed(() => workload(listed.value.map((entry) => entry.card.peek())));

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
  const ready = app.caughtUp.value;
  const some = listed.value.length > 0;
  return (
    <>
      <Strip />
      <WorkLeftOut />
      {!ready && <Loading />}
      {ready && !some && <NothingHeard />}
      {ready && some && <Columns />}
    </>
  );
}

function Columns() {
  const shown = board.value;
  const root = useRef<HTMLDivElement>(null);
  const slides = useRef<Slides | null>(null);
  useHolds();
  useEffect(() => {
    const timer = Number.isFinite(shown.due) ? window.setTimeout(rearrange, shown.due - Date.now() + 1) : 0;
    return () => window.clearTimeout(timer);
  }, [shown]);
  useLayoutEffect(() => {
    if (root.current && !slides.current) slides.current = new Slides(root.current);
    // Where the page is scrolled, the browser itself keeps in its place what is in view.
    slides.current?.settle(scrolled.value);
  }, [shown]);
  useEffect(
    () => () => {
      slides.current?.stop();
    },
    [],
  );
  const sections = Object.values(shown.sections);
  const matching = sections.some((items) => items.length > 0) || Object.values(shown.waiting).some((entries) => entries.length > 0);
  const above = scrolled.value ? Object.values(shown.waiting).reduce((sum, entries) => sum + entries.length, 0) : 0;
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
      <div class="board" ref={root} hidden={!matching} data-testid="board">
        <SectionView section="critical" title="Critical" board={shown} />
        {shown.sections.unclassified.length + shown.waiting.unclassified.length > 0 && (
          <SectionView section="unclassified" title="Not classified or not understood: please read, or listen" wide board={shown} />
        )}
        <div class="columns" data-slides>
          <SectionView section="high" title="High" empty="Nothing urgent." board={shown} />
          <SectionView section="normal" title="Normal" empty="Nothing waiting." board={shown} />
          <div class="column" data-region="side" data-slides>
            <SectionView section="information" title="For information" board={shown} />
            <SectionView section="done" title="Done" board={shown} />
            <OlderOnes />
          </div>
        </div>
      </div>
      {above > 0 && (
        <button type="button" class="newcomers above" data-testid="new-above" onClick={() => window.scrollTo({ top: 0, behavior: "smooth" })}>
          {above} new ↑
        </button>
      )}
    </>
  );
}
