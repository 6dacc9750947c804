/** On the air: a tile for each live channel, who is talking and what is being said. */
import { useSignal, type Signal } from "@preact/signals";
import { memo } from "preact/compat";
import { useLayoutEffect, useRef } from "preact/hooks";
import { clockTime } from "../model/format";
import type { Conversation } from "../model/protocol";
import { humanise } from "../model/words";
import { now } from "../state/app";
import { isTalking, onAir, secondsBehind, tileOf, type Line, type Tile } from "../state/captions";
import { conversationLink } from "../state/route";

/** More than these are scrolled to, or shown in several rows on demand. */
const IN_A_ROW = 6;

/** The recogniser ends every guess with a full stop; the speaker has not. */
const unfinished = (text: string): string => text.replace(/[\s.,…]+$/u, "");

function Said({ line, many }: { line: Line; many: boolean }) {
  return (
    <p class={line.final ? "said final" : "said partial"} data-testid="caption" data-final={line.final}>
      {many && <span class="speaker">Speaker {line.speaker + 1}: </span>}
      {line.final ? line.text : `${unfinished(line.text)} …`}
    </p>
  );
}

/** The radio that is away for the longest counts. */
function brokenWords(conversations: readonly Conversation[]): string {
  const [since] = conversations.flatMap((each) => each.unreachable_since ?? []).sort((a, b) => a.localeCompare(b));
  return since === undefined ? "Connection broken" : `Not reachable since ${clockTime(since, now.value, false)}`;
}

/** `of`: a new one where its channel left the air and came back. */
const TileView = memo(function TileView({ of }: { of: Signal<Tile> }) {
  const tile = of.value;
  const channel = tile.channel;
  const text = useRef<HTMLDivElement>(null);
  // The end of a long sentence stays in view.
  useLayoutEffect(() => text.current?.scrollTo(0, text.current.scrollHeight), [tile]);
  const talking = isTalking(tile);
  const behind = secondsBehind(tile);
  const broken = !talking && tile.conversations.length > 0 && tile.conversations.every((each) => each.state !== "live");
  const state = talking ? "talking" : broken ? "interrupted" : "quiet";
  const words = { talking: "Talking", interrupted: brokenWords(tile.conversations), quiet: "Quiet" }[state];
  const many = tile.conversations.length > 1 || tile.conversations.some((each) => each.speakers > 1);
  const id = tile.conversations[0]?.conversation_id ?? tile.lines[0]?.conversationId;
  return (
    <li class={`tile ${state}`} data-testid="channel-tile" data-channel={channel} data-state={state}>
      <p class="tile-head">
        {id ? <a href={conversationLink(id)}>{humanise(channel) || "No channel"}</a> : <b>{humanise(channel)}</b>}
        {behind > 0 && (
          <span class="tile-behind" data-testid="channel-behind" data-seconds={behind} title="More is said than can be written down in time. Listen to the radio for what is urgent.">
            {behind} s behind
          </span>
        )}
        <span class="tile-state">{words}</span>
      </p>
      <div class="tile-text" ref={text}>
        {tile.lines.length === 0 && <p class="said none">Nothing said yet</p>}
        {[...tile.lines].reverse().map((line) => (
          <Said key={line.key} line={line} many={many} />
        ))}
      </div>
    </li>
  );
});

/** One row high whoever is on the air, so that nothing below it moves. */
export function Strip() {
  const all = useSignal(false);
  const names = onAir.value;
  return (
    <section class={all.value ? "strip all" : "strip"} aria-label="On the air" data-testid="live-strip">
      {names.length === 0 ? (
        <p class="none">Nobody is on the air.</p>
      ) : (
        <ul>
          {names.map((channel) => {
            const tile = tileOf(channel);
            return tile && <TileView key={channel} of={tile} />;
          })}
        </ul>
      )}
      {names.length > IN_A_ROW && (
        <button type="button" class="link" aria-expanded={all.value} onClick={() => (all.value = !all.value)}>
          {all.value ? "One row" : `All ${names.length}`}
        </button>
      )}
    </section>
  );
}
