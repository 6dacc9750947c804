/** What the board does not show, and where it is: never left out in silence. */
import { whole } from "../model/format";
import type { LeftOut } from "../model/protocol";
import * as app from "../state/app";
import { shiftLink } from "../state/route";
import { boardRule, someHidden } from "../state/store";

const KINDS: [keyof Omit<LeftOut, "older">, string][] = [
  ["critical", "critical"],
  ["high", "high"],
  ["normal", "normal"],
  ["low", "low"],
  ["unclassified", "not yet classified"],
];

/** Work beyond what one page can have. The most urgent is shown, so this is the rest. */
export function WorkLeftOut() {
  const left = KINDS.flatMap(([kind, words]) => {
    const count = app.leftOut.value?.[kind] ?? 0;
    return count > 0 ? [{ count, words }] : [];
  });
  if (left.length === 0) return null;
  const sum = left.reduce((all, each) => all + each.count, 0);
  return (
    <p class="alarm grave" role="status" data-testid="left-out">
      <span>
        {whole(sum)} older open tasks are not shown: {left.map(({ count, words }) => `${whole(count)} ${words}`).join(", ")}. Finish what is
        shown and load the page again, or see the oldest in the <a href={shiftLink("")}>shift report</a>.
      </span>
    </p>
  );
}

export function OlderOnes() {
  if (app.leftOut.value?.older !== true && !someHidden.value) return null;
  const { recent, done } = boardRule.value;
  return (
    <p class="hint foot" data-testid="older">
      Besides open work, the board shows the newest {recent} cards and the last {done} tasks done. Older ones: search, or look
      into the <a href="#/conversations">conversations</a>.
    </p>
  );
}
