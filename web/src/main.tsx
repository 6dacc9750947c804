/** Where the page starts: the key leaves the address first, then the session is looked for, then the page is drawn. */
import { render } from "preact";
import { startAttending } from "./live/attend";
import { begin, takeKeyFromAddress } from "./live/client";
import { rememberSound } from "./live/sound";
import * as app from "./state/app";
import { followAddress } from "./state/route";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/board.css";
import "./styles/card.css";
import "./styles/task.css";
import "./styles/views.css";
import "./styles/prompts.css";
import "./styles/reports.css";
import "./styles/migration.css";
import "./styles/operations.css";
import "./styles/narrow.css";
import "./styles/now.css";
import { App } from "./views/app";

const CLOCK_MS = 5000;

let key: string | null = null;
let started = false;
followAddress(() => {
  const found = takeKeyFromAddress();
  if (started && found !== null) void begin(found);
  else key = found;
});
window.setInterval(() => (app.now.value = Date.now()), CLOCK_MS);

rememberSound();
startAttending();
const root = document.getElementById("app");
if (root) render(<App />, root);
started = true;
void begin(key);
