/** A card: one utterance, what it asks for, who must act, the words themselves, and its receipt. */
import { useSignal } from "@preact/signals";
import { memo } from "preact/compat";
import { useEffect, useRef } from "preact/hooks";
import { age, clockTime, percent } from "../model/format";
import { pieces } from "../model/evidence";
import type { Card, Insight, Task, Understood } from "../model/protocol";
import { confidenceWords, copiesWords, departmentWords, humanise, intentWords, LISTEN_WORDS, sourceWords, URGENCY_WORDS } from "../model/words";
import { cardMounted } from "../live/painted";
import * as app from "../state/app";
import { conversationLink, utteranceLink } from "../state/route";
import { mostUrgent, sectionOf, type Section } from "../state/sections";
import { revisionOf, type Entry } from "../state/store";
import { useKeptFocus } from "./focus";
import { useKeptHeight } from "./height";
import { Receipt } from "./receipt";
import { watchSeen } from "./seen";
import { TaskRow } from "./task";

/** Unclassified for longer than this is worth saying. */
const CLASSIFY_MS = 6000;

/** A card that waited longer for its text says so. */
const BEHIND_MS = 3000;

const NOBODY_CLASSIFIES = "The service that understands cannot work now. This is classified when it can.";

const EVIDENCE_TITLES = { rooms: "Heard as the room", items: "Heard as what is asked for", urgency: "Why it is urgent" };

function Words({ card }: { card: Card }) {
  if (card.text.trim() === "") return null;
  const evidence = card.insights.map((insight) => insight.evidence);
  return (
    <blockquote class="words" data-testid="card-words">
      {pieces(card.text, evidence, card.words).map((piece, at) => {
        const unsure = piece.unsure ? <span class="unsure" title="Not heard clearly">{piece.text}</span> : piece.text;
        return piece.kind ? (
          <mark key={at} class={`ev ev-${piece.kind}`} title={EVIDENCE_TITLES[piece.kind]} data-evidence={piece.kind}>
            {unsure}
          </mark>
        ) : (
          unsure
        );
      })}
    </blockquote>
  );
}

function Rooms({ insight }: { insight: Insight }) {
  if (insight.rooms.length === 0) return null;
  return (
    <p class="rooms" data-testid="card-rooms">
      <span class="visually-hidden">{insight.rooms.length === 1 ? "Room " : "Rooms "}</span>
      {insight.rooms.map((room, at) => {
        const unknown = insight.unverified.includes(room);
        return (
          <span key={`${at}-${room}`} class={unknown ? "room unverified" : "room"} title={unknown ? "Not in the list of rooms" : undefined}>
            {room}
            {unknown && <span class="room-note"> not on the list</span>}
          </span>
        );
      })}
    </p>
  );
}

function Age({ spokenAt }: { spokenAt: string }) {
  return <span class="age">{age(spokenAt, app.now.value)}</span>;
}

/** `since`: when it was said, for the first block of a card. */
function InsightBlock({ insight, tasks, since, undo }: { insight: Insight; tasks: readonly Task[]; since: string | null; undo?: ReadonlySet<string> | undefined }) {
  const done = tasks.length > 0 && tasks.every((task) => task.status === "done");
  const source = sourceWords(insight);
  return (
    <section class={`insight u-${insight.urgency}${done ? " is-done" : ""}`} data-testid="insight" data-intent={insight.intent}>
      <p class="kicker">
        <span class={`badge u-${insight.urgency}`} data-testid="card-urgency">
          {URGENCY_WORDS[insight.urgency]}
        </span>
        <span class="department" data-testid="card-department">
          {insight.department === "none" ? intentWords(insight.intent) : departmentWords(insight.department)}
        </span>
        {insight.department !== "none" && <span class="intent">{intentWords(insight.intent)}</span>}
        {since !== null && <Age spokenAt={since} />}
      </p>
      <div class="ask">
        <Rooms insight={insight} />
        <div class="what">
          <p class="summary" data-testid="card-summary">
            {insight.summary || intentWords(insight.intent)}
          </p>
          {insight.items.length > 0 && (
            <ul class="items" data-testid="card-items">
              {insight.items.map((item, at) => (
                <li key={at}>
                  {item.quantity !== 1 && <b>{item.quantity} × </b>}
                  {item.name}
                </li>
              ))}
            </ul>
          )}
        </div>
      </div>
      {source !== null && (
        <p class="mark" data-testid="card-degraded">
          {source}
        </p>
      )}
      {tasks.map((task) => (
        <TaskRow key={task.task_id} task={task} undoable={undo?.has(task.task_id) ?? false} />
      ))}
    </section>
  );
}

/** What the card asks for. Of words that were not understood only a danger, not confirmed, says so. */
const asked = (card: Card): readonly Insight[] =>
  card.status === "ok" ? card.insights : card.insights.filter((insight) => insight.urgency === "critical");

function NotYet({ card }: { card: Card }) {
  const away = app.classifierAway.value;
  const late = away || app.now.value - Date.parse(card.spoken_at) > CLASSIFY_MS;
  return (
    <p class="kicker" data-testid="card-unclassified">
      <span class={late ? "badge waiting late" : "badge waiting"} title={away ? NOBODY_CLASSIFIES : undefined}>
        {late ? "Not yet classified" : "Being understood …"}
      </span>
      <Age spokenAt={card.spoken_at} />
    </p>
  );
}

/** Instead of what it asks for: nobody knows that. */
function Listen({ card, status }: { card: Card; status: Exclude<Understood, "ok"> }) {
  return (
    <div data-testid="card-listen" data-status={status}>
      <p class="kicker">
        <span class="badge late">Please listen</span>
        <Age spokenAt={card.spoken_at} />
      </p>
      <p class="words lost">{LISTEN_WORDS[status]}</p>
    </div>
  );
}

function Meta({ entry, card }: { entry: Entry; card: Card }) {
  const insights = card.insights;
  const waited = card.latency_ms.stt ?? 0;
  const behind = waited >= BEHIND_MS ? Math.round(waited / 1000) : 0;
  const lowest = insights.length > 0 && card.status === "ok" ? Math.min(...insights.map((insight) => insight.confidence)) : null;
  const sources = [...new Set(insights.map((insight) => (insight.source === "llm" ? "language model" : "local classifier")))];
  const models = [...new Set(insights.map((insight) => insight.model).filter(Boolean))].join(", ");
  return (
    <footer class="meta">
      <a class="channel" href={conversationLink(card.conversation_id)} data-testid="card-channel" title="Open this conversation">
        {humanise(card.channel) || "No channel"}
        {card.speaker > 0 && ` · speaker ${card.speaker + 1}`}
      </a>
      <a class="time" href={utteranceLink(card.utterance_id)}>
        <time dateTime={card.spoken_at} title={card.spoken_at} data-testid="card-time">
          {clockTime(card.spoken_at, app.now.value)}
        </time>
      </a>
      {behind > 0 && (
        <span class="behind" data-testid="card-behind" title="So long it waited to be written down">
          {behind} s behind
        </span>
      )}
      {lowest !== null && (
        <span class={`confidence c-${confidenceWords(lowest).replace(" ", "-")}`} data-testid="card-confidence" title={`Confidence ${percent(lowest)}, by ${sources.join(" and ")} ${models}`}>
          {percent(lowest)} sure
        </span>
      )}
      {insights.some((insight) => insight.source === "local" && !insight.degraded) && (
        <span class="source" data-testid="card-source" title={models}>
          local
        </span>
      )}
      <Receipt entry={entry} latency={card.latency_ms} />
    </footer>
  );
}

/** A person has corrected the words. What was heard stays to be seen. */
function CorrectedMark({ card }: { card: Card }) {
  if (card.corrected === null) return null;
  const { by, at, heard } = card.corrected;
  return (
    <p class="mark" data-testid="card-corrected" title={at}>
      Corrected by {by || "the site"}. Heard: <del>{heard || "nothing"}</del>
    </p>
  );
}

/** One transmission, more than one receiver: which ones, and on which card the work is. */
function Receivers({ card }: { card: Card }) {
  const others = copiesWords(card);
  return (
    <>
      {others !== null && (
        <p class="mark" data-testid="card-copies">
          {others}
        </p>
      )}
      {card.relates_to !== null && (
        <p class="mark" data-testid="card-copy-of">
          The same transmission as <a href={utteranceLink(card.relates_to.utterance_id)}>another card</a>
        </p>
      )}
    </>
  );
}

interface CardProps {
  entry: Entry;
  /** The section of the board that shows it; none in other views. */
  place?: Section;
  /** Tasks that were closed while the card was in sight. */
  undo?: ReadonlySet<string>;
  /** It came in lately: note when somebody has it in view. */
  watched?: boolean;
}

export const CardView = memo(function CardView({ entry, place, undo, watched = false }: CardProps) {
  const card = entry.card.value;
  const fresh = useSignal(Date.now() - entry.spoken < 10_000);
  const article = useRef<HTMLElement>(null);
  useKeptFocus(article);
  useEffect(() => cardMounted(entry.id), [entry.id]);
  useEffect(() => (watched && article.current ? watchSeen(article.current) : undefined), [watched]);
  const section = sectionOf(card);
  const stub = place !== undefined && place !== "done" && section === "done";
  useKeptHeight(article, stub);
  const urgency = card.insights.length > 0 ? mostUrgent(card.insights) : "none";
  // Only what is left to do is coloured; done work is quiet.
  const classes = ["card", `s-${section}`, `u-${section === "done" ? "none" : urgency}`];
  if (fresh.value) classes.push("fresh");
  if (stub) classes.push("stub");
  if (section === "critical" && card.tasks.length > 0 && card.tasks.every((task) => task.status !== "open")) classes.push("in-hand");
  return (
    <article
      ref={article}
      tabIndex={-1}
      class={classes.join(" ")}
      data-stub={stub}
      data-testid="card"
      data-utterance-id={card.utterance_id}
      data-section={section}
      data-urgency={urgency}
      data-revision={revisionOf(card)}
      aria-label={`${card.insights[0]?.summary ?? card.text}, ${humanise(card.channel)}`}
    >
      {card.status !== "ok" && <Listen card={card} status={card.status} />}
      {card.insights.length === 0 && card.status === "ok" && <NotYet card={card} />}
      {asked(card).map((insight, at) => (
        <InsightBlock
          key={insight.index}
          insight={insight}
          tasks={card.tasks.filter((task) => task.insight_index === insight.index)}
          since={at === 0 && card.status === "ok" ? card.spoken_at : null}
          undo={undo}
        />
      ))}
      <Words card={card} />
      <CorrectedMark card={card} />
      <Receivers card={card} />
      <Meta entry={entry} card={card} />
    </article>
  );
});
