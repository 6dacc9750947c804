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
/** Cards out of sight are drawn when they come into it, and then have another height than was assumed. */
const ATTEMPTS = 8;
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

function remember(): void {
  const card = cardInSight();
  places.delete(current);
  places.set(current, {
    card: card?.dataset["utteranceId"] ?? null,
    top: card?.getBoundingClientRect().top ?? 0,
    scrolled: window.scrollY,
  });
  for (const step of places.keys()) {
    if (places.size <= MAX_PLACES) break;
    places.delete(step);
  }
}

function restore(place: Place, attempts = ATTEMPTS): void {
  requestAnimationFrame(() => {
    const card = place.card === null ? null : document.querySelector(`[data-utterance-id="${CSS.escape(place.card)}"]`);
    if (card) window.scrollBy(0, card.getBoundingClientRect().top - place.top);
    else window.scrollTo(0, place.scrolled);
    if (attempts > 1) restore(place, attempts - 1);
  });
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
