/** The switch for the sound and the notifications of critical cards. Off is said as plainly as on. */
import { enableSound, muteSound, notifyingWords, silenceWords, sound } from "../live/sound";
import * as app from "../state/app";

function Bell({ on }: { on: boolean }) {
  return (
    <svg viewBox="0 0 20 20" width="16" height="16" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round">
      <path d="M10 3a4.5 4.5 0 0 0-4.5 4.5c0 4-1.5 5-1.5 6h12c0-1-1.5-2-1.5-6A4.5 4.5 0 0 0 10 3ZM8.3 16.3a2 2 0 0 0 3.4 0" />
      {!on && <path d="M3 2.5 17 17.5" stroke-width="2.2" />}
    </svg>
  );
}

async function enable(): Promise<void> {
  const refused = await enableSound();
  if (refused !== null) app.notify(sound.value === "on" ? `Sound is on. ${refused}` : refused);
}

export function SoundSwitch() {
  const on = sound.value === "on";
  const title = [on ? "A click mutes it." : "A click turns on a sound, and a notification while you look elsewhere, for each new critical card.", silenceWords.value, notifyingWords.value];
  return (
    <button
      type="button"
      class={on ? "sound" : "sound off"}
      data-testid="sound"
      data-state={sound.value}
      title={title.filter(Boolean).join(" ")}
      onClick={() => (on ? muteSound() : void enable())}
    >
      <Bell on={on} />
      {on ? "Sound on" : <span>Sound is off<span class="how"> – click to enable</span></span>}
    </button>
  );
}
