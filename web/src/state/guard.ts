/** Whether a click is meant for the button that it hits: not, if the button has just come under a resting pointer. Pure. */

/** Too short for anybody to have seen what came, and to have decided to click on it. */
export const UNSEEN_MS = 400;
/** A hand on a mouse moves it by this much without meaning to, in px. */
const JITTER_PX = 10;

export interface Point {
  x: number;
  y: number;
}

/** A button moved or appeared: when (ms), and where the pointer was then, if anywhere. */
export interface Arrival {
  at: number;
  pointer: Point | null;
}

/** Return whether this click, at a time in ms, hits a button that came under the pointer too recently to be meant. */
export function isAccident(arrival: Arrival | undefined, click: Point, now: number): boolean {
  if (!arrival?.pointer || now - arrival.at >= UNSEEN_MS) return false;
  return Math.hypot(click.x - arrival.pointer.x, click.y - arrival.pointer.y) < JITTER_PX;
}
