/** How both sides of audio heard the same conversations. */
import { duration, percent, plural } from "../model/format";
import type { Hearings } from "../model/migration";
import { DifferenceLinks } from "./understood";

export function Heard({ found }: { found: Hearings }) {
  const { utterances, words, wrong, missed, extra, start_p95_ms, end_p95_ms, shed, lost } = found;
  return (
    <div data-testid="heard" data-utterances={utterances} data-wrong={wrong}>
      <h4>Heard on both sides</h4>
      <p>
        {utterances === 0 ? "No utterance was compared yet." : `${plural(utterances, "utterance")}, ${plural(words, "word")}: ${percent(words === 0 ? 0 : wrong / words)} otherwise.`}{" "}
        {missed} missed, {extra} too many.
      </p>
      {start_p95_ms !== null && end_p95_ms !== null && (
        <p class="hint">
          95 % begin within {duration(start_p95_ms)} and end within {duration(end_p95_ms)} of each other.
        </p>
      )}
      {shed + lost > 0 && (
        <p class="hint">
          Not compared: {shed} left out, {lost} broken off.
        </p>
      )}
      <DifferenceLinks found={found.differences} />
    </div>
  );
}
