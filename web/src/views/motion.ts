/** What moves on the board slides to its new place, and a button that came under a resting pointer takes no click at first. */
import { isAccident, type Arrival, type Point } from "../state/guard";

const SLIDE_MS = 260;

let pointer: Point | null = null;
const arrivals = new WeakMap<Element, Arrival>();

window.addEventListener("pointermove", (event) => (pointer = { x: event.clientX, y: event.clientY }), { passive: true });
window.addEventListener("pointerdown", (event) => (pointer = { x: event.clientX, y: event.clientY }), { passive: true });

const arrived = (element: Element): void => {
  arrivals.set(element, { at: performance.now(), pointer });
};

/** A `ref` for buttons that act: notes when the button appeared. */
export const guarded = (button: HTMLButtonElement | null): void => {
  if (button && !arrivals.has(button)) arrived(button);
};

/** Return whether a click must not count, for its button came under the pointer just now. Keyboard clicks always count. */
export function accidental(event: MouseEvent): boolean {
  const byPointer = event.detail > 0;
  const button = event.currentTarget;
  if (!byPointer || !(button instanceof Element)) return false;
  const click = { x: event.clientX, y: event.clientY };
  const now = performance.now();
  for (let each: Element | null = button; each; each = each.parentElement) if (isAccident(arrivals.get(each), click, now)) return true;
  return false;
}

interface Place {
  x: number;
  y: number;
  height: number;
}

/** Watches the parts of one container (those with `data-slides`) and lets them slide from where they were last. */
export class Slides {
  private places = new Map<HTMLElement, Place>();
  private width = 0;
  private readonly sizes = new ResizeObserver(() => this.settle());

  constructor(private readonly root: HTMLElement) {
    this.sizes.observe(root);
  }

  stop(): void {
    this.sizes.disconnect();
  }

  /** Look where everything is after a change; `quiet`: take it as it is. */
  settle(quiet = false): void {
    const { root } = this;
    const still = quiet || root.clientWidth !== this.width || window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.width = root.clientWidth;
    const places = new Map<HTMLElement, Place>();
    const moved: [HTMLElement, number, number][] = [];
    for (const part of root.querySelectorAll<HTMLElement>("[data-slides]")) {
      // Of every list that may grow, the size is watched: a card that changes moves those below it.
      if (part.parentElement) this.sizes.observe(part.parentElement);
      // Measured against the part that it lies in (all of them are positioned), whose own slide it shares.
      const place = { x: part.offsetLeft, y: part.offsetTop, height: part.offsetHeight };
      const before = this.places.get(part);
      places.set(part, place);
      if (!before) continue;
      const [x, y] = [before.x - place.x, before.y - place.y];
      if (x === 0 && y === 0 && before.height === place.height) continue;
      arrived(part);
      if (x !== 0 || y !== 0) moved.push([part, x, y]);
    }
    this.places = places;
    if (still) return;
    for (const [part, x, y] of moved) {
      const frames = [{ transform: `translate(${x}px, ${y}px)` }, { transform: "translate(0, 0)" }];
      part.animate(frames, { duration: SLIDE_MS, easing: "ease-out", composite: "add" });
    }
  }
}
