/** A section of the board: its head, which says what waits to come in or came in below, and its cards. */
import { signal, type Signal } from "@preact/signals";
import { plural } from "../model/format";
import * as app from "../state/app";
import { regionOf, unseen, type Board } from "../state/arrange";
import { bringIn, seen } from "../state/board";
import { mostUrgent, type Section } from "../state/sections";
import type { Entry } from "../state/store";
import { CardView } from "./card";

const FIRST = 25;
/** Few enough that the work below is not pushed out of sight; the heading says how many there are. */
const FIRST_CRITICAL = 12;
const MORE = 50;
/** How many are drawn: kept while another view is looked at, so that Back finds the board as it was. */
const limits: Record<Section, Signal<number>> = {
  critical: signal(FIRST_CRITICAL),
  unclassified: signal(FIRST),
  high: signal(FIRST),
  normal: signal(FIRST),
  information: signal(FIRST),
  done: signal(FIRST),
};

interface SectionProps {
  section: Section;
  title: string;
  /** What to say where there is nothing. */
  empty?: string;
  wide?: boolean;
  board: Board<Entry>;
}

const cardOf = (id: string): HTMLElement | null => document.querySelector(`[data-testid="card"][data-utterance-id="${CSS.escape(id)}"]`);

function Waiting({ section, waiting }: { section: Section; waiting: readonly Entry[] }) {
  const critical = waiting.filter((entry) => mostUrgent(entry.card.value.insights) === "critical").length;
  return (
    <button
      type="button"
      class={critical > 0 ? "newcomers critical" : "newcomers"}
      data-testid={`new-${section}`}
      data-critical={critical}
      onClick={() => bringIn(section)}
    >
      {waiting.length} new{critical > 0 && (critical === waiting.length ? " critical" : `, ${critical} critical`)}
      <span class="visually-hidden"> held back while you are here: show</span>
    </button>
  );
}

export function SectionView({ section, title, empty, wide, board }: SectionProps) {
  const limit = limits[section];
  const all = board.sections[section];
  const waiting = board.waiting[section];
  const below = section === "information" || section === "done" ? [] : unseen(all, seen.value, app.now.value);
  const first = below[0];
  const showBelow = (): void => {
    if (!first) return;
    limit.value = Math.max(limit.value, all.indexOf(first) + 1);
    requestAnimationFrame(() => requestAnimationFrame(() => cardOf(first.id)?.scrollIntoView({ block: "center", behavior: "smooth" })));
  };
  const here = all.filter((item) => !item.leaving).length;
  return (
    <section class={`group g-${section}${wide ? " wide" : ""}${here > 0 ? "" : " bare"}`} aria-label={title} data-region={regionOf(section)} data-slides data-testid={`section-${section}`}>
      <div class="group-head">
        <h2>
          {title} <span class="count">{here}</span>
        </h2>
        {waiting.length > 0 && <Waiting section={section} waiting={waiting} />}
        {waiting.length === 0 && below.length > 0 && (
          <button type="button" class="newcomers" data-testid={`below-${section}`} onClick={showBelow}>
            {below.length} new below ↓
          </button>
        )}
      </div>
      {all.length === 0 && empty !== undefined && <p class="none">{empty}</p>}
      <div class="cards">
        {all.slice(0, limit.value).map((item) => (
          // A card that skips its layout out of sight (content-visibility) counts as moved when it slides itself.
          <div key={item.id} class="slot" data-slides>
            <CardView entry={item.entry} place={section} undo={item.undo} watched={item.came > 0} />
          </div>
        ))}
      </div>
      {all.length > limit.value && (
        <button type="button" class="more" onClick={() => (limit.value += MORE)} data-slides data-testid={`more-${section}`}>
          Show {Math.min(MORE, all.length - limit.value)} more of {plural(all.length - limit.value, "card")}
        </button>
      )}
    </section>
  );
}
