/** Notes which cards have been in view: those that have not are pointed out at the head of their section. */
import { markSeen } from "../state/board";

const observer = new IntersectionObserver((changes) => {
  const cards = changes.filter((change) => change.isIntersecting).map((change) => change.target);
  for (const card of cards) observer.unobserve(card);
  if (cards.length > 0) markSeen(cards.flatMap((card) => (card instanceof HTMLElement ? (card.dataset["utteranceId"] ?? []) : [])));
});

export function watchSeen(card: HTMLElement): () => void {
  observer.observe(card);
  return () => observer.unobserve(card);
}
