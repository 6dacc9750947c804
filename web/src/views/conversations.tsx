/** All conversations, newest first, with their state and what became of their audio. */
import { useCallback } from "preact/hooks";
import { getConversations } from "../live/api";
import { clockTime, seconds } from "../model/format";
import type { Conversation } from "../model/protocol";
import { humanise } from "../model/words";
import * as app from "../state/app";
import { boardLink, conversationLink } from "../state/route";
import { NO_FILTERS } from "../state/sections";
import { conversations } from "../state/store";
import { STATE_WORDS } from "./conversation";
import { useFetched } from "./fetched";
import { ListStates } from "./lists";

function Row({ conversation: c }: { conversation: Conversation }) {
  return (
    <tr data-testid="conversation-row" data-conversation-id={c.conversation_id}>
      <th scope="row">
        <a href={conversationLink(c.conversation_id)}>{humanise(c.channel) || "No channel"}</a>
        {c.summary && <p class="row-summary">{c.summary.text}</p>}
      </th>
      <td>
        <span class={`state s-${c.state}`}>{STATE_WORDS[c.state]}</span>
        {c.archived_at !== null && `, closed by ${c.archived_by ?? "the site"}`}
        {c.unreachable_since !== null && ` (not reachable since ${clockTime(c.unreachable_since, app.now.value, false)})`}
      </td>
      <td>
        <time dateTime={c.started_at} title={c.started_at}>
          {clockTime(c.started_at, app.now.value, false)}
        </time>
      </td>
      <td class="number">{c.utterances}</td>
      <td class="number">{c.state === "live" ? "–" : seconds(c.ledger.speech, c.sample_rate)}</td>
      <td class="number">{c.ledger.gap > 0 ? seconds(c.ledger.gap, c.sample_rate) : c.state === "live" ? "–" : "none"}</td>
    </tr>
  );
}

export function ConversationsView() {
  const get = useCallback(
    (cursor: string | null, signal: AbortSignal) => getConversations(cursor === null ? {} : { cursor }, signal),
    [],
  );
  const fetched = useFetched(get);
  const rows = new Map(fetched.items.map((each) => [each.conversation_id, each]));
  // What the live connection says is newer than what was fetched.
  for (const [id, each] of conversations.value) if (rows.has(id) || each.state === "live") rows.set(id, each);
  const newestFirst = [...rows.values()].sort((a, b) => b.started_at.localeCompare(a.started_at));
  return (
    <section class="conversations" aria-label="Conversations" data-testid="conversations">
      <div class="view-head">
        <a class="button" href={boardLink(NO_FILTERS)}>
          Back to the board
        </a>
        <h2>Conversations</h2>
      </div>
      {newestFirst.length > 0 && (
        <div class="scroll">
          <table class="table">
            <thead>
              <tr>
                <th scope="col">Channel</th>
                <th scope="col">State</th>
                <th scope="col">Started</th>
                <th scope="col" class="number">
                  Utterances
                </th>
                <th scope="col" class="number">
                  Speech
                </th>
                <th scope="col" class="number">
                  Lost
                </th>
              </tr>
            </thead>
            <tbody>
              {newestFirst.map((each) => (
                <Row key={each.conversation_id} conversation={each} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {newestFirst.length === 0 || fetched.state !== "ready" || fetched.next !== null ? (
        <ListStates list={fetched} empty="Nothing heard yet." />
      ) : null}
    </section>
  );
}
