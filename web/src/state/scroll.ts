/** Back finds a view scrolled as it was left: by a card that was in sight, for others may have come above it. */

interface Place {
  /** Id of the card, and how far below the top of the window it was. */
  card: string | null;
  top: number;
  scrolled: number;
}

const places = new Map<number, Place>();
const MAX_PLACES = 100;
const CARD = "[data-utterance-id]";
/** Cards out of sight are drawn when they come into it, and then have another height than was assumed: try until it holds. */
const STEADY = 8;
const MAX_ATTEMPTS = 120;
const TAKES_OVER = ["wheel", "touchstart", "pointerdown", "keydown"];
let current = 0;
let last = 0;

const stepOf = (state: unknown): number | null =>
  typeof state === "object" && state !== null && "step" in state && typeof state.step === "number" ? state.step : null;

function cardInSight(): HTMLElement | null {
  const used = document.activeElement?.closest<HTMLElement>(CARD);
  const inSight = (card: Element): boolean => {
    const { bottom, top } = card.getBoundingClientRect();
    return bottom > 0 && top < window.innerHeight;
  };
  return used && inSight(used) ? used : ([...document.querySelectorAll<HTMLElement>(CARD)].find(inSight) ?? null);
}

/** How far below the top of the window a card is laid out: one that still slides to its place is measured where it will be. */
function topOf(card: HTMLElement): number {
  let top = -window.scrollY;
  for (let at: Element | null = card; at instanceof HTMLElement; at = at.offsetParent) top += at.offsetTop;
  return top;
}

function remember(): void {
  const card = cardInSight();
  places.delete(current);
  places.set(current, {
    card: card?.dataset["utteranceId"] ?? null,
    top: card ? topOf(card) : 0,
    scrolled: window.scrollY,
  });
  for (const step of places.keys()) {
    if (places.size <= MAX_PLACES) break;
    places.delete(step);
  }
}

function restore(place: Place): void {
  let attempts = 0;
  let steady = 0;
  const stop = new AbortController();
  for (const kind of TAKES_OVER) window.addEventListener(kind, () => stop.abort(), { passive: true, signal: stop.signal });
  const attempt = (): void => {
    if (stop.signal.aborted) return;
    const before = window.scrollY;
    const card = place.card === null ? null : document.querySelector<HTMLElement>(`[data-utterance-id="${CSS.escape(place.card)}"]`);
    window.scrollTo(0, card ? before + topOf(card) - place.top : place.scrolled);
    attempts += 1;
    const there = card !== null || place.card === null;
    steady = there && Math.abs(window.scrollY - before) < 1 ? steady + 1 : 0;
    if (steady < STEADY && attempts < MAX_ATTEMPTS) requestAnimationFrame(attempt);
    else stop.abort();
  };
  requestAnimationFrame(attempt);
}

/** Call before the view changes, while the one that is left can still be measured. */
export function followScroll(): void {
  const step = stepOf(history.state);
  if (step === null) {
    if (last > 0) remember();
    last += 1;
    current = last;
    history.replaceState({ step: current }, "");
    window.scrollTo(0, 0);
    return;
  }
  if (step === current) return;
  if (last > 0) remember();
  current = step;
  last = Math.max(last, step);
  const place = places.get(step);
  if (place) restore(place);
}
