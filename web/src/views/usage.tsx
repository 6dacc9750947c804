/** What the language model costs: today against the cap, by day, and by conversation. */
import { getUsage } from "../live/api";
import { clockTime, money, percent, whole } from "../model/format";
import type { CapState, Spent, Usage } from "../model/reports";
import * as app from "../state/app";
import { boardLink, conversationLink } from "../state/route";
import { NO_FILTERS } from "../state/sections";
import { useRefreshed } from "./fetched";

const REFRESH_MS = 5000;

const STATE_WORDS: Record<CapState, string> = {
  off: "No language model is connected: everything runs on the built-in classifier and costs nothing.",
  none: "There is no daily cap.",
  below: "Below the daily cap.",
  near: "Near the daily cap. Once it is reached, the built-in classifier takes over until midnight.",
  reached: "The daily cap is reached: the built-in classifier answers until midnight, or until the cap is raised.",
};

const tokens = (spent: Spent): number => spent.prompt_tokens + spent.completion_tokens;

function Today({ usage }: { usage: Usage }) {
  const { cap, today, currency } = usage;
  const shares = [cap.cost > 0 ? today.cost / cap.cost : 0, cap.tokens > 0 ? tokens(today) / cap.tokens : 0];
  const share = Math.max(...shares);
  const limits = [cap.cost > 0 ? money(cap.cost, currency) : "", cap.tokens > 0 ? `${whole(cap.tokens)} tokens` : ""];
  return (
    <>
      <p class={usage.state === "reached" ? "failed" : "cap-state"} data-testid="cap-state" data-state={usage.state}>
        {STATE_WORDS[usage.state]}
      </p>
      <dl class="figures">
        <div>
          <dt>Today</dt>
          <dd data-testid="usage-cost">{money(today.cost, currency)}</dd>
        </div>
        <div>
          <dt>Tokens</dt>
          <dd data-testid="usage-tokens">{whole(tokens(today))}</dd>
        </div>
        <div>
          <dt>Calls</dt>
          <dd>{whole(today.calls)}</dd>
        </div>
      </dl>
      {share > 0 && (
        <p class="cap">
          <meter min={0} max={1} high={0.8} optimum={0} value={Math.min(1, share)} aria-label="Share of the daily cap" />{" "}
          {percent(share)} of {limits.filter((each) => each !== "").join(" or ")}
          {cap.resets_at !== null && <span class="hint"> until {clockTime(cap.resets_at, app.now.value, false)}</span>}
        </p>
      )}
    </>
  );
}

interface Row extends Spent {
  key: string;
  name: preact.ComponentChildren;
}

function Spending({ id, title, rows, currency }: { id: string; title: string; rows: Row[]; currency: string }) {
  return (
    <div class="scroll">
      <table class="table" data-testid={id}>
        <thead>
          <tr>
            <th scope="col">{title}</th>
            <th scope="col" class="number">
              Calls
            </th>
            <th scope="col" class="number">
              Tokens in
            </th>
            <th scope="col" class="number">
              Tokens out
            </th>
            <th scope="col" class="number">
              Cost
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.key}>
              <th scope="row">{row.name}</th>
              <td class="number">{whole(row.calls)}</td>
              <td class="number">{whole(row.prompt_tokens)}</td>
              <td class="number">{whole(row.completion_tokens)}</td>
              <td class="number">{money(row.cost, currency)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Also for other views that are about the model. */
export function UsagePanel() {
  const { value: usage, error } = useRefreshed(getUsage, REFRESH_MS);
  return (
    <div class="usage" data-testid="usage">
      {error !== "" && (
        <p class="failed" role="alert">
          {error}
        </p>
      )}
      {usage === null && error === "" && <p class="hint">Fetching …</p>}
      {usage !== null && <Today usage={usage} />}
      {usage !== null && usage.days.length > 0 && (
        <>
          <h3>By day</h3>
          <Spending
            id="usage-days"
            title={usage.time_zone === "local" ? "Day" : `Day (${usage.time_zone})`}
            rows={usage.days.map((day) => ({ ...day, key: day.day, name: day.day }))}
            currency={usage.currency}
          />
        </>
      )}
      {usage !== null && usage.conversations.length > 0 && (
        <>
          <h3>Conversations, the last first</h3>
          <Spending
            id="usage-conversations"
            title="Conversation"
            rows={usage.conversations.map((each) => ({
              ...each,
              key: each.conversation_id,
              name: each.conversation_id ? (
                <a href={conversationLink(each.conversation_id)}>{each.conversation_id}</a>
              ) : (
                "Reports"
              ),
            }))}
            currency={usage.currency}
          />
        </>
      )}
    </div>
  );
}

export function ModelView() {
  return (
    <section class="model" aria-label="Model" data-testid="model">
      <div class="view-head">
        <a class="button" href={boardLink(NO_FILTERS)}>
          Back to the board
        </a>
        <h2>What the language model costs</h2>
      </div>
      <UsagePanel />
    </section>
  );
}
