/** Keeps a card as high as it was while it is only kept in its place. */
import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

/** While `kept`, do not let the element get lower than it was before. */
export function useKeptHeight(ref: RefObject<HTMLElement | null>, kept: boolean): void {
  const height = useRef(0);
  // Asked for before the change is drawn, and only where it matters: this makes the browser lay the page out.
  if (kept && height.current === 0) height.current = ref.current?.getBoundingClientRect().height ?? 0;
  if (!kept) height.current = 0;
  useLayoutEffect(() => {
    if (ref.current) ref.current.style.minHeight = kept && height.current > 0 ? `${height.current}px` : "";
  });
}
