/**
 * The sound for a critical card, and the browser's notification. Both are off until a click: browsers allow neither
 * before one, and whether they are on is remembered in this browser.
 */
import { computed, signal } from "@preact/signals";

/** `waiting`: it is wanted, but the browser keeps silent until something on the page is clicked. */
export type Sound = "off" | "waiting" | "on" | "impossible";
export type Notifying = "asked" | "allowed" | "refused" | "insecure" | "impossible";

const KEY = "quickcomm.sound";
/** Three soft notes, up and down again, in Hz. */
const NOTES = [659, 880, 659];
const NOTE_S = 0.22;
const LOUDNESS = 0.22;

let context: AudioContext | null = null;
const wanted = signal(false);
const running = signal(false);
const possible = signal(typeof AudioContext === "function");
export const notifying = signal<Notifying>(asksFor());

export const sound = computed<Sound>(() => {
  if (!possible.value) return "impossible";
  if (!wanted.value) return "off";
  return running.value ? "on" : "waiting";
});

/** Why the browser says nothing, or null: for the Health panel and beside the control. */
export const silenceWords = computed<string | null>(() => {
  if (sound.value === "impossible") return "This browser cannot make sounds.";
  return sound.value === "waiting" ? "The browser keeps silent until you click anything on this page." : null;
});

const REFUSED: Record<Notifying, string | null> = {
  asked: null,
  allowed: null,
  refused: "Your browser refuses notifications of this page; its settings for this site can allow them.",
  insecure: "Notifications need a secure connection: open this page by https, or on the machine itself.",
  impossible: "This browser has no notifications.",
};
export const notifyingWords = computed<string | null>(() => REFUSED[notifying.value]);

function asksFor(): Notifying {
  if (!window.isSecureContext) return "insecure";
  if (typeof Notification !== "function") return "impossible";
  return ({ granted: "allowed", denied: "refused", default: "asked" } as const)[Notification.permission];
}

function remembered(): boolean {
  try {
    return localStorage.getItem(KEY) === "on";
  } catch {
    return false;
  }
}

function remember(on: boolean): void {
  wanted.value = on;
  try {
    localStorage.setItem(KEY, on ? "on" : "off");
  } catch {
    // Without storage it holds until the page is closed.
  }
}

/** Opens the way to the loudspeaker; allowed to sound at once only in a click. */
async function open(): Promise<void> {
  if (!possible.peek()) return;
  try {
    context ??= new AudioContext();
    context.onstatechange = () => (running.value = context?.state === "running");
    if (context.state !== "running") await context.resume();
    running.value = context.state === "running";
  } catch {
    possible.value = false;
  }
}

/** At the start of the page: as it was left, if the browser lets it; else with the first click anywhere. */
export function rememberSound(): void {
  wanted.value = remembered();
  if (!wanted.value) return;
  void open();
  const onGesture = (): void => {
    if (wanted.peek() && !running.peek()) void open();
  };
  window.addEventListener("pointerdown", onGesture);
  window.addEventListener("keydown", onGesture);
}

/** By a click: the sound is heard once, and the browser asks whether it may notify. Returns what it refuses, in words. */
export async function enableSound(): Promise<string | null> {
  remember(true);
  const asking = notifying.peek() === "asked" ? Notification.requestPermission() : null;
  await open();
  chime();
  if (asking !== null) {
    await asking;
    notifying.value = asksFor();
  }
  return [silenceWords.peek(), notifyingWords.peek()].filter(Boolean).join(" ") || null;
}

export const muteSound = (): void => remember(false);

export function chime(): void {
  if (context === null || sound.peek() !== "on") return;
  const start = context.currentTime + 0.02;
  NOTES.forEach((hertz, nth) => note(context as AudioContext, hertz, start + nth * NOTE_S));
}

/** Swells and fades: a tone that is cut on or off crackles, and startles. */
function note(into: AudioContext, hertz: number, at: number): void {
  const tone = into.createOscillator();
  const volume = into.createGain();
  tone.frequency.value = hertz;
  volume.gain.setValueAtTime(0, at);
  volume.gain.linearRampToValueAtTime(LOUDNESS, at + 0.03);
  volume.gain.linearRampToValueAtTime(0, at + NOTE_S * 1.4);
  tone.connect(volume).connect(into.destination);
  tone.start(at);
  tone.stop(at + NOTE_S * 1.5);
}

/** `tag`: the same in several windows of a browser is shown once. */
export function notifyOutside(title: string, body: string, tag: string, onClick: () => void): void {
  if (!wanted.peek() || notifying.peek() !== "allowed") return;
  try {
    const shown = new Notification(title, { body, tag });
    shown.onclick = () => {
      window.focus();
      shown.close();
      onClick();
    };
  } catch {
    // Some browsers have the name, but only let a service worker use it.
    notifying.value = "impossible";
  }
}
