/** Signs in and out, keeps the live connection. */
import { batch } from "@preact/signals";
import * as app from "../state/app";
import { forgetMigration } from "../state/migration";
import { endSession, getChannels, getSession, Problem, signInWith } from "./api";
import { LiveConnection } from "./connection";
import { after, forgetEverything, take, whenGreeted } from "./intake";
import { reportTo } from "./painted";

const PROBE_MS = 3000;

const live = new LiveConnection({
  after,
  message: take,
  state: (state, retryAt) => {
    batch(() => {
      if (state === "live" && app.connection.value !== "live") app.politeText.value = "Connected.";
      if (state !== "live" && app.connection.value === "live") app.politeText.value = "Connection lost. Trying again.";
      // Attempts in between are no news: the page stays "waiting" until one of them works.
      app.connection.value = state === "connecting" && app.connection.value === "waiting" ? "waiting" : state;
      app.retryAt.value = retryAt;
    });
  },
  stillSignedIn: async () => {
    try {
      app.session.value = await getSession();
      return true;
    } catch (error) {
      if (!(error instanceof Problem) || (error.status !== 401 && error.status !== 403)) return true;
      leave("Your session has ended. Sign in again.");
      return false;
    }
  },
});

reportTo((message) => live.send(message));
whenGreeted(() => void fetchChannels());

export const retryNow = live.retry;

function enter(): void {
  app.access.value = "in";
  app.signInError.value = null;
  live.start();
}

function leave(why: string | null): void {
  live.stop();
  batch(() => {
    forgetEverything();
    forgetMigration();
    app.session.value = null;
    app.health.value = null;
    app.signInError.value = why;
    app.access.value = "out";
  });
}

/** The key of an admin link, taken out of the address before anything else can see it. */
export function takeKeyFromAddress(): string | null {
  const match = /^#(?:.*&)?key=([^&]+)/u.exec(location.hash);
  if (!match?.[1]) return null;
  history.replaceState(null, "", `${location.pathname}${location.search}#/`);
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return match[1];
  }
}

export async function begin(key: string | null): Promise<void> {
  if (key !== null) {
    await signIn(key);
    return;
  }
  try {
    app.session.value = await getSession();
    enter();
  } catch (error) {
    if (error instanceof Problem && (error.status === 401 || error.status === 403)) {
      app.access.value = "out";
      return;
    }
    app.access.value = "unreachable";
    window.setTimeout(() => void begin(null), PROBE_MS);
  }
}

export async function signIn(key: string): Promise<void> {
  app.signInError.value = null;
  try {
    const session = await signInWith(key.trim());
    // Signed in already, as somebody else perhaps: nothing of the former session stays.
    if (app.access.value === "in") leave(null);
    app.session.value = session;
    enter();
  } catch (error) {
    app.access.value = "out";
    app.signInError.value = signInWords(error);
  }
}

function signInWords(error: unknown): string {
  if (!(error instanceof Problem)) return "Signing in failed.";
  if (error.status === 401) return "That key is not known here, or has been revoked.";
  if (error.status === 403) return "That key may not see this page. It needs the role read or admin.";
  if (error.status === 0) return "The server cannot be reached. Is it running?";
  return error.message;
}

export async function signOut(): Promise<void> {
  try {
    await endSession();
  } catch (error) {
    if (!(error instanceof Problem && error.status === 401)) {
      app.notify(`Signing out failed. ${error instanceof Error ? error.message : ""}`);
      return;
    }
  }
  leave(null);
}

async function fetchChannels(): Promise<void> {
  try {
    app.channels.value = (await getChannels()).map((each) => each.channel);
  } catch (error) {
    // Only the choice of channels is poorer for it; a lost connection is told elsewhere.
    if (!(error instanceof Problem)) throw error;
  }
}
