/** One conversation: its utterances in order, and the account of its audio. */
import { useSignal } from "@preact/signals";
import { useCallback, useEffect } from "preact/hooks";
import { getConversation, getUtterance, getUtterances, type Query } from "../live/api";
import { clockTime, percent, plural, seconds } from "../model/format";
import type { Conversation, Ledger } from "../model/protocol";
import { humanise, writtenBy } from "../model/words";
import * as app from "../state/app";
import { boardLink, conversationLink } from "../state/route";
import { NO_FILTERS } from "../state/sections";
import { conversations, forgetUnlisted, listed, putCard, putConversation, type Entry } from "../state/store";
import { CardView } from "./card";
import { Closing } from "./close";
import { useFetched } from "./fetched";
import { ListStates } from "./lists";

const PAGE = "100";

export const STATE_WORDS = { live: "On the air", interrupted: "Connection broken", ended: "Ended", expired: "Ended after silence" };

export function LedgerView({ ledger, rate }: { ledger: Ledger; rate: number }) {
  const parts = [
    ["speech", "Speech", ledger.speech],
    ["silence", "Silence", ledger.silence],
    ["gap", "Lost (gap)", ledger.gap],
  ] as const;
  const whole = Math.max(1, ledger.received);
  const adrift = ledger.received - ledger.speech - ledger.silence - ledger.gap;
  return (
    <div class="ledger" data-testid="ledger" data-balanced={adrift === 0}>
      <p class="equation">
        <span>
          <b>{seconds(ledger.received, rate)}</b> received
        </span>
        {parts.map(([name, words, samples], at) => (
          <span key={name} data-part={name}>
            <span class="sign">{at === 0 ? "=" : "+"}</span>
            <i class={`swatch l-${name}`} aria-hidden="true" />
            <b>{seconds(samples, rate)}</b> {words.toLowerCase()}
          </span>
        ))}
      </p>
      <div class="ledger-bar" role="img" aria-label={`Speech ${percent(ledger.speech / whole)}, lost ${percent(ledger.gap / whole)}`}>
        {parts.map(([name, , samples]) => (
          <i key={name} class={`l-${name}`} style={{ width: `${(100 * samples) / whole}%` }} />
        ))}
      </div>
      {adrift !== 0 && (
        <p class="failed" role="alert">
          The account does not add up: {seconds(Math.abs(adrift), rate)} unaccounted for.
        </p>
      )}
    </div>
  );
}

function Head({ conversation }: { conversation: Conversation }) {
  const { started_at: start, ended_at: end, archived_at: archived, speakers, state } = conversation;
  return (
    <>
      <p class="facts">
        <span class={`state s-${state}`} data-testid="conversation-state">
          {STATE_WORDS[state]}
        </span>
        <time dateTime={start} title={start}>
          from {clockTime(start, app.now.value)}
        </time>
        {end !== null && (
          <time dateTime={end} title={end}>
            to {clockTime(end, app.now.value)}
          </time>
        )}
        {archived !== null && (
          <time dateTime={archived} title={archived} data-testid="conversation-closed">
            closed by {conversation.archived_by ?? "the site"}, {clockTime(archived, app.now.value)}
          </time>
        )}
        <span>{plural(conversation.utterances, "utterance")}</span>
        {speakers > 1 && <span>{speakers} speakers</span>}
        <code>{conversation.conversation_id}</code>
      </p>
      {conversation.summary && (
        <div class="told" data-testid="summary" data-source={conversation.summary.source}>
          <p>{conversation.summary.text}</p>
          <p class="hint">
            Summary {writtenBy(conversation.summary.source)},{" "}
            <time dateTime={conversation.summary.at}>{clockTime(conversation.summary.at, app.now.value)}</time>
          </p>
        </div>
      )}
      {state === "live" ? (
        <p class="hint">Its audio is accounted for here once it ends or its connection breaks.</p>
      ) : (
        <LedgerView ledger={conversation.ledger} rate={conversation.sample_rate} />
      )}
    </>
  );
}

const openTasks = (entries: readonly Entry[]): number =>
  entries.reduce((sum, entry) => sum + entry.truth.tasks.filter((task) => task.status !== "done").length, 0);

export function ConversationView({ id }: { id: string }) {
  const problem = useSignal("");
  const known = conversations.value.get(id);
  useEffect(() => {
    const stop = new AbortController();
    problem.value = "";
    getConversation(id, stop.signal).then(putConversation, (error: unknown) => {
      if (!stop.signal.aborted) problem.value = error instanceof Error ? error.message : "It could not be fetched.";
    });
    return () => stop.abort();
  }, [id, problem]);
  const get = useCallback(
    async (cursor: string | null, signal: AbortSignal) => {
      const wanted: Query = { conversation: id, limit: PAGE };
      if (cursor !== null) wanted.cursor = cursor;
      const page = await getUtterances(wanted, signal);
      return { items: page.items.map((card) => putCard(card, false)), next_cursor: page.next_cursor };
    },
    [id],
  );
  const fetched = useFetched(get);
  useEffect(() => () => forgetUnlisted(), []);
  const all = new Map<string, Entry>(fetched.items.map((entry) => [entry.id, entry]));
  for (const entry of listed.value) if (entry.truth.conversation_id === id) all.set(entry.id, entry);
  const inOrder = [...all.values()].sort((a, b) => a.spoken - b.spoken || a.truth.seq - b.truth.seq);
  const channel = known?.channel ?? inOrder[0]?.truth.channel ?? "";
  return (
    <section class="conversation" aria-label="Conversation" data-testid="conversation">
      <div class="view-head">
        <a class="button" href={boardLink(NO_FILTERS)}>
          Back to the board
        </a>
        <h2>{humanise(channel) || "Conversation"}</h2>
        {known && <Closing conversation={known} open={fetched.state === "ready" && fetched.next === null ? openTasks(inOrder) : null} />}
      </div>
      {known && <Head conversation={known} />}
      {problem.value !== "" && !known && (
        <p class="failed" role="alert">
          {problem.value}
        </p>
      )}
      {fetched.next !== null && fetched.state === "ready" && (
        <button type="button" class="more" onClick={fetched.more} data-testid="earlier">
          Show earlier utterances
        </button>
      )}
      <div class="cards talk">
        {inOrder.map((entry) => (
          <CardView key={entry.id} entry={entry} />
        ))}
      </div>
      {(fetched.state !== "ready" || inOrder.length === 0) && <ListStates list={fetched} empty="Nothing was said yet." />}
    </section>
  );
}

export function UtteranceView({ id }: { id: string }) {
  const entry = useSignal<Entry | null>(null);
  const problem = useSignal("");
  useEffect(() => {
    const stop = new AbortController();
    entry.value = null;
    problem.value = "";
    getUtterance(id, stop.signal).then(
      (card) => (entry.value = putCard(card, false)),
      (error: unknown) => {
        if (!stop.signal.aborted) problem.value = error instanceof Error ? error.message : "It could not be fetched.";
      },
    );
    return () => stop.abort();
  }, [id, entry, problem]);
  const found = entry.value;
  return (
    <section class="conversation" aria-label="Utterance" data-testid="utterance">
      <div class="view-head">
        <a class="button" href={boardLink(NO_FILTERS)}>
          Back to the board
        </a>
        {found && (
          <a class="button" href={conversationLink(found.truth.conversation_id)}>
            The whole conversation
          </a>
        )}
      </div>
      {problem.value !== "" && (
        <p class="failed" role="alert">
          {problem.value}
        </p>
      )}
      {!found && problem.value === "" && <p class="hint">Fetching …</p>}
      {found && (
        <div class="cards talk">
          <CardView entry={found} />
        </div>
      )}
    </section>
  );
}
