/** Keeps the focus where it was when what had it goes away. */
import type { RefObject } from "preact";
import { useLayoutEffect } from "preact/hooks";

/** Give the focus to the element itself when a part of it loses it by a change, instead of to nothing. */
export function useKeptFocus(ref: RefObject<HTMLElement | null>): void {
  const had = ref.current?.contains(document.activeElement) ?? false;
  useLayoutEffect(() => {
    const active = document.activeElement;
    if (had && (active === null || active === document.body)) ref.current?.focus({ preventScroll: true });
  });
}
