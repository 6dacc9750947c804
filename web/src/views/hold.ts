/** Who holds the board still: a mouse that rests on it, a focus moved there with the keyboard, a page that is scrolled. */
import { useEffect } from "preact/hooks";
import type { Region } from "../state/arrange";
import { focusIn, idle, leaveBoard, pointerIn, scrolled, stacked } from "../state/board";

/** A mouse that nobody has moved for this long is forgotten, not resting. */
const IDLE_MS = 5 * 60_000;
/** Below this the page counts as scrolled: the heads of the columns leave the picture. */
const SCROLLED_PX = 60;
const INPUTS = ["pointermove", "pointerdown", "keydown", "wheel", "touchmove"] as const;

/** The gaps between columns belong to the whole. */
const regionAt = (target: EventTarget | null): Region | null => {
  if (!(target instanceof Element) || !target.closest("[data-testid=board]")) return null;
  return (target.closest<HTMLElement>("[data-region]")?.dataset["region"] as Region | undefined) ?? "top";
};

const onPointer = (event: PointerEvent): void => {
  if (event.pointerType === "touch") return;
  pointerIn.value = regionAt(event.target);
};
const onPointerGone = (): void => {
  pointerIn.value = null;
};
// A click leaves the focus behind on its button; only a focus that somebody moves with the keyboard is looked at.
const onFocus = (event: FocusEvent): void => {
  focusIn.value = event.target instanceof Element && event.target.matches(":focus-visible") ? regionAt(event.target) : null;
};
const onBlur = (event: FocusEvent): void => {
  if (event.relatedTarget === null) window.setTimeout(() => document.activeElement === document.body && (focusIn.value = null));
};
const onScroll = (): void => {
  scrolled.value = window.scrollY > SCROLLED_PX;
};

/** Follow them for as long as the board is shown. */
export function useHolds(): void {
  useEffect(() => {
    let forget = 0;
    const onInput = (): void => {
      idle.value = false;
      window.clearTimeout(forget);
      forget = window.setTimeout(() => (idle.value = true), IDLE_MS);
    };
    const narrow = window.matchMedia("(max-width: 1080px)");
    const onNarrow = (): void => {
      stacked.value = narrow.matches;
    };
    onInput();
    onNarrow();
    onScroll();
    const page = document.documentElement;
    for (const input of INPUTS) window.addEventListener(input, onInput, { passive: true });
    narrow.addEventListener("change", onNarrow);
    window.addEventListener("scroll", onScroll, { passive: true });
    document.addEventListener("pointerover", onPointer);
    page.addEventListener("pointerleave", onPointerGone);
    document.addEventListener("focusin", onFocus);
    document.addEventListener("focusout", onBlur);
    return () => {
      window.clearTimeout(forget);
      for (const input of INPUTS) window.removeEventListener(input, onInput);
      narrow.removeEventListener("change", onNarrow);
      window.removeEventListener("scroll", onScroll);
      document.removeEventListener("pointerover", onPointer);
      page.removeEventListener("pointerleave", onPointerGone);
      document.removeEventListener("focusin", onFocus);
      document.removeEventListener("focusout", onBlur);
      leaveBoard();
    };
  }, []);
}
