/** How both sides of intelligence understood the same utterances: what is alike, how long it took, what it cost. */
import { clockTime, duration, money, percent, plural } from "../model/format";
import type { SideUnderstanding, Spending, Understandings } from "../model/migration";
import { humanise } from "../model/words";
import * as app from "../state/app";
import { utteranceLink } from "../state/route";

function spentWords({ calls, prompt_tokens, completion_tokens, cost }: Spending): string {
  if (calls === 0) return "–";
  const price = cost > 0 ? `, ${money(cost, "")}` : "";
  return `${plural(calls, "call")}, ${plural(prompt_tokens + completion_tokens, "token")}${price}`;
}

function SideRow({ side }: { side: SideUnderstanding }) {
  return (
    <tr data-testid="understood-side" data-side={side.side}>
      <th scope="row">{humanise(side.side)}</th>
      <td>{side.p50_ms === null ? "–" : duration(side.p50_ms)}</td>
      <td>{side.p95_ms === null ? "–" : duration(side.p95_ms)}</td>
      <td>{spentWords(side.served)}</td>
      <td>{spentWords(side.shadow)}</td>
    </tr>
  );
}

function leftOut({ unanswered, unserved, degraded, shed }: Understandings): string {
  const counted: [number, string][] = [
    [unanswered, "without an answer"],
    [unserved, "not served"],
    [degraded, "served without the model"],
    [shed, "left out"],
  ];
  return counted
    .filter(([count]) => count > 0)
    .map(([count, words]) => `${count} ${words}`)
    .join(", ");
}

export function Understood({ found }: { found: Understandings }) {
  const others = leftOut(found);
  return (
    <div data-testid="understood" data-compared={found.compared} data-alike={found.alike}>
      <h4>Understood on both sides</h4>
      <p>{found.compared === 0 ? "No utterance was compared yet." : `${found.alike} of ${plural(found.compared, "utterance")} alike.`}</p>
      {found.compared > 0 && (
        <ul class="agreements">
          {found.fields.map(({ name, alike, of }) => (
            <li key={name} data-testid="agreement" data-field={name}>
              {humanise(name)} <b>{of === 0 ? "–" : percent(alike / of)}</b>
            </li>
          ))}
        </ul>
      )}
      <div class="scroll">
        <table class="table" aria-label="Understood on both sides">
          <thead>
            <tr>
              <th scope="col">Side</th>
              <th scope="col">Half within</th>
              <th scope="col">95 % within</th>
              <th scope="col">Served</th>
              <th scope="col">In the shadow</th>
            </tr>
          </thead>
          <tbody>
            {found.sides.map((side) => (
              <SideRow key={side.side} side={side} />
            ))}
          </tbody>
        </table>
      </div>
      {others !== "" && <p class="hint">Not compared: {others}.</p>}
      {found.differences.length > 0 && (
        <details data-testid="understood-differences">
          <summary>{plural(found.differences.length, "difference")} to look into</summary>
          <ul class="differing">
            {found.differences.map((each) => (
              <li key={each.utterance_id}>
                {clockTime(new Date(each.at).toISOString(), app.now.value)} <a href={utteranceLink(each.utterance_id)}>{each.utterance_id}</a>: {each.fields.join(", ")}
              </li>
            ))}
          </ul>
        </details>
      )}
    </div>
  );
}
