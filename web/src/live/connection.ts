/** The live connection: opens `WS /v1/live`, notices when it is dead, comes back with back-off where it left off. */
import { parseLive } from "../model/parse";
import type { LiveMessage, PageMessage } from "../model/protocol";
import type { Connection } from "../state/app";
import { address } from "./api";

const FIRST_WAIT_MS = 400;
/** Another server shows this page from now on: it is there already. */
const MOVED_CODE = 1012;
const MOVED_WAIT_MS = 40;
const LONGEST_WAIT_MS = 10_000;
/** Health comes every 2 s; silence this long is a dead connection behind a healthy socket. */
const SILENCE_MS = 8000;
const CONNECT_MS = 10_000;
/** Cards a message until the board is complete: a browser takes a few large messages faster than a thousand small ones. */
const BATCH = 50;

export interface LiveHandlers {
  /** The last change that the page has, with the side that counts it, or null for a fresh start. */
  after(): string | null;
  message(message: LiveMessage, receivedAt: number): void;
  state(state: Connection, retryAt: number | null): void;
  /** The server refused before the connection opened: is there still a session? False ends the attempts. */
  stillSignedIn(): Promise<boolean>;
}

export class LiveConnection {
  private socket: WebSocket | null = null;
  private attempts = 0;
  private watchdog = 0;
  private timer = 0;
  private stopped = true;

  constructor(private readonly handlers: LiveHandlers) {}

  start(): void {
    if (!this.stopped) return;
    this.stopped = false;
    this.attempts = 0;
    window.addEventListener("online", this.hurry);
    document.addEventListener("visibilitychange", this.hurry);
    this.open();
  }

  stop(): void {
    this.stopped = true;
    window.removeEventListener("online", this.hurry);
    document.removeEventListener("visibilitychange", this.hurry);
    window.clearTimeout(this.timer);
    window.clearTimeout(this.watchdog);
    this.socket?.close(1000);
    this.socket = null;
  }

  send(message: PageMessage): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Tries now instead of waiting any longer. */
  readonly retry = (): void => {
    if (this.stopped || this.socket) return;
    window.clearTimeout(this.timer);
    this.attempts = 0;
    this.open();
  };

  private readonly hurry = (): void => {
    if (document.visibilityState === "visible") this.retry();
  };

  private open(): void {
    this.handlers.state("connecting", null);
    const url = address("v1/live");
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("batch", String(BATCH));
    const after = this.handlers.after();
    if (after !== null) url.searchParams.set("after", after);
    const socket = new WebSocket(url);
    let opened = false;
    this.socket = socket;
    this.expectWithin(CONNECT_MS, socket);
    socket.onopen = () => {
      opened = true;
      this.expectWithin(SILENCE_MS, socket);
      this.send({ type: "watch", channels: ["*"] });
    };
    socket.onmessage = (event: MessageEvent<unknown>) => {
      const receivedAt = performance.now();
      this.expectWithin(SILENCE_MS, socket);
      if (typeof event.data !== "string") return;
      const message = parseLive(event.data);
      if (message === null) return;
      if (message.type === "hello") {
        this.attempts = 0;
        this.handlers.state("live", null);
      }
      this.handlers.message(message, receivedAt);
    };
    socket.onclose = (event) => {
      if (this.socket === socket) void this.closed(opened, event.code);
    };
  }

  private expectWithin(ms: number, socket: WebSocket): void {
    window.clearTimeout(this.watchdog);
    this.watchdog = window.setTimeout(() => {
      if (this.socket !== socket) return;
      // close() waits for the other side, which is not there: go on without it.
      socket.onclose = null;
      socket.onmessage = null;
      socket.close();
      void this.closed(true, 1006);
    }, ms);
  }

  private async closed(opened: boolean, code: number): Promise<void> {
    this.socket = null;
    window.clearTimeout(this.watchdog);
    if (this.stopped) return;
    this.attempts += 1;
    const moved = code === MOVED_CODE && this.attempts === 1;
    const longest = moved ? MOVED_WAIT_MS : Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (this.attempts - 1));
    const wait = longest / 2 + (Math.random() * longest) / 2;
    this.handlers.state(navigator.onLine ? "waiting" : "offline", Date.now() + wait);
    this.timer = window.setTimeout(() => this.open(), wait);
    // A browser does not tell why a handshake failed, so a refusal is asked about.
    if ((!opened || code === 1008 || code === 4401) && !(await this.handlers.stillSignedIn())) this.stop();
  }
}
