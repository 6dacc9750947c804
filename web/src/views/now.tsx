/** What needs somebody now, on every view and in a place of its own: nothing moves when it comes or goes. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { act } from "../live/actions";
import { criticalWords, linkOf, markSeen, unseen } from "../live/attend";
import { retryNow } from "../live/client";
import { age, plural } from "../model/format";
import * as app from "../state/app";
import type { AlarmLine } from "../state/alarms";
import type { Critical } from "../state/attention";
import { route } from "../state/route";
import { alarms } from "./health";

/** A click meant for what was here a moment ago must not hit what has just come. */
const SETTLED_MS = 1000;

/** False for a moment after `what` has changed. */
function useSettled(what: string): boolean {
  const settled = useSignal("");
  useEffect(() => {
    const timer = window.setTimeout(() => (settled.value = what), SETTLED_MS);
    return () => window.clearTimeout(timer);
  }, [what, settled]);
  return settled.value === what;
}

/** On the board the card is brought into sight; elsewhere, or where the board does not show it, its own view is opened. */
function showOnBoard(event: MouseEvent, critical: Critical): void {
  const card = document.querySelector<HTMLElement>(`[data-testid="board"] [data-utterance-id="${CSS.escape(critical.utteranceId)}"]`);
  if (route.peek().view !== "board" || card === null) return;
  event.preventDefault();
  card.scrollIntoView({ block: "center" });
  card.querySelector<HTMLElement>("button, a")?.focus({ preventScroll: true });
}

function CriticalBar({ first, count }: { first: Critical; count: number }) {
  const settled = useSettled(first.key);
  const words = criticalWords(first, app.now.value);
  const { task } = first;
  const mayAct = app.session.value?.role === "admin";
  const heedful = (action: () => void) => (event: MouseEvent) => {
    if (!settled || event.detail > 1) {
      event.preventDefault();
      return;
    }
    action();
    if (count === 1) document.getElementById("main")?.focus({ preventScroll: true });
  };
  return (
    <div class="now-critical" role="region" aria-label="Critical, not acknowledged" data-testid="critical-bar" data-count={count} data-utterance-id={first.utteranceId} data-unconfirmed={first.unconfirmed !== null}>
      <p>
        <b>
          <span class="sign" aria-hidden="true">!</span> {count} critical<span class="roomy">, {task ? "not yet acknowledged" : "not yet seen"}</span>:
        </b>{" "}
        <span data-testid="critical-words">{words}</span>
      </p>
      <a
        class="button"
        href={linkOf(first)}
        data-testid="critical-show"
        aria-label={`Show ${words}`}
        onClick={(event) => showOnBoard(event, first)}
      >
        Show
      </a>
      {task && mayAct && (
        <button type="button" aria-disabled={!settled} aria-label={`Acknowledge ${words}`} data-testid="critical-acknowledge" onClick={heedful(() => void act(task, "acknowledge"))}>
          Acknowledge
        </button>
      )}
      {!task && (
        <button
          type="button"
          aria-disabled={!settled}
          aria-label={`Seen: ${words}`}
          title="It has no task. This takes it out of this bar, in this browser; the card stays."
          data-testid="critical-seen"
          onClick={heedful(() => markSeen(first))}
        >
          Seen
        </button>
      )}
    </div>
  );
}

/** `beside`: the critical bar has the room; the words are behind the button. */
function AlarmRow({ gravest, count, beside }: { gravest: AlarmLine; count: number; beside: boolean }) {
  const lost = gravest.code === "connection";
  const more = count > 1 ? `and ${count - 1} more` : "Details";
  return (
    <div class={`now-alarm${gravest.grave ? " grave" : ""}${beside ? " beside" : ""}`} data-testid={lost ? "connection-lost" : "alarm"} data-code={gravest.code}>
      <p title={gravest.text}>{beside ? gravest.short : gravest.text}</p>
      {gravest.since !== null && !beside && (
        <time dateTime={gravest.since} title={gravest.since}>
          for {age(gravest.since, app.now.value).replace("now", "a moment")}
        </time>
      )}
      {gravest.link !== null && !beside && (
        <a class="button" href={gravest.link} data-testid="alarm-link">
          {app.session.value?.role === "admin" ? "Decide" : "Look"}
        </a>
      )}
      {lost && (
        <button type="button" onClick={retryNow} data-testid="try-now">
          Try now
        </button>
      )}
      {(!lost || count > 1) && (
        <button type="button" popovertarget="health" data-testid="alarm-more" aria-label={`${more}: ${plural(count, "alarm")} in the Health panel`}>
          {more}
        </button>
      )}
    </div>
  );
}

export function Now() {
  const waiting = unseen.value;
  const wrong = alarms.value;
  const [first] = waiting;
  const [gravest] = wrong;
  const quiet = !first && !gravest;
  return (
    <div class={quiet ? "now quiet" : "now"} data-testid="now">
      {first && <CriticalBar first={first} count={waiting.length} />}
      {/* Stays in the document: a live region that comes with its words is not read out. */}
      <div class="now-alarms" role="status" data-testid="alarms">
        {gravest && <AlarmRow gravest={gravest} count={wrong.length} beside={first !== undefined} />}
      </div>
      {quiet && app.connection.value === "live" && <p class="all-well" data-testid="all-well">Nothing needs you now: no alarm, and each critical card is in hand.</p>}
    </div>
  );
}
