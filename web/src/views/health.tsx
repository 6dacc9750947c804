/** Whether everything works: the pill at the top, and the panel behind it with what is wrong and how long things take. */
import { computed } from "@preact/signals";
import { notifying, notifyingWords, silenceWords, sound } from "../live/sound";
import { age, clockTime, duration } from "../model/format";
import { STAGES, type Health as HealthTold } from "../model/protocol";
import { STAGE_WORDS } from "../model/words";
import { alarmLines, type AlarmLine } from "../state/alarms";
import * as app from "../state/app";

const CONNECTION_WORDS = { live: "Live", connecting: "Connecting …", waiting: "Connection lost", offline: "This device is offline" };

let lastLive = Date.now();
app.connection.subscribe((state) => {
  if (state !== "live") return;
  lastLive = Date.now();
});
app.health.subscribe(() => {
  lastLive = Date.now();
});

/** The pill and the row of what needs somebody say the same: both have it from here. */
export const alarms = computed<AlarmLine[]>(() => {
  const state = app.connection.value;
  const lost = state === "waiting" || state === "offline" ? CONNECTION_WORDS[state] : null;
  return alarmLines(app.health.value, lost, clockTime(new Date(lastLive).toISOString(), app.now.value));
});

export function Health() {
  const state = app.connection.value;
  const live = state === "live";
  const worried = live && (app.health.value?.status === "degraded" || alarms.value.length > 0);
  const look = live ? (worried ? "worried" : "fine") : "broken";
  return (
    <>
      <button type="button" class={`pill ${look}`} popovertarget="health" data-testid="connection" data-state={state} data-worried={worried}>
        <i class="dot" aria-hidden="true" />
        {CONNECTION_WORDS[state]}
        {worried && <span class="pill-note">· degraded</span>}
      </button>
      <div id="health" popover="auto" class="panel" role="region" aria-label="Health" data-testid="health">
        <h2>Health</h2>
        {alarms.value.length > 0 && <AlarmList />}
        <Facts />
        <Stages health={app.health.value} />
      </div>
    </>
  );
}

function AlarmList() {
  return (
    <ul class="alarm-list" aria-label="Alarms">
      {alarms.value.map((alarm) => (
        <li key={alarm.code} class={alarm.grave ? "grave" : ""} data-testid="health-alarm" data-code={alarm.code}>
          <p>
            {alarm.text}
            {alarm.since !== null && (
              <time dateTime={alarm.since} title={alarm.since}>
                {" "}
                For {age(alarm.since, app.now.value).replace("now", "a moment")}.
              </time>
            )}
          </p>
          {alarm.link !== null && (
            <a href={alarm.link} data-testid="health-alarm-link" onClick={() => document.getElementById("health")?.hidePopover()}>
              Look at the operations
            </a>
          )}
          {!alarm.text.startsWith(alarm.detail) && alarm.code !== "connection" && <p class="hint">{alarm.detail}</p>}
        </li>
      ))}
    </ul>
  );
}

function Facts() {
  const health = app.health.value;
  return (
    <dl>
      <dt>Connection</dt>
      <dd>{CONNECTION_WORDS[app.connection.value]}</dd>
      <dt>Conversations heard now</dt>
      <dd data-testid="health-sessions">{health?.sessions ?? "–"}</dd>
      <dt>Speech waiting to be written</dt>
      <dd data-testid="health-backlog">{health ? `${health.stt_backlog_s.toFixed(1)} s` : "–"}</dd>
      <dt>Understanding</dt>
      <dd data-testid="health-classifier">{classifierWords()}</dd>
      <dt>Sound for critical cards</dt>
      <dd data-testid="health-sound">{silenceWords.value ?? (sound.value === "on" ? "On" : "Off")}</dd>
      <dt>Notifications, while you look elsewhere</dt>
      <dd data-testid="health-notifications">{notifyingWords.value ?? notificationWords()}</dd>
      <dt>Version</dt>
      <dd>{app.session.value?.version ?? "–"}</dd>
    </dl>
  );
}

function notificationWords(): string {
  if (notifying.value === "asked") return "Off; asked for when the sound is enabled";
  return sound.value === "off" ? "Off, like the sound" : "On";
}

function classifierWords(): string {
  const classifier = app.health.value?.classifier;
  if (!classifier) return "–";
  const model = classifier.model ? ` (${classifier.model})` : "";
  if (classifier.message && classifier.state !== "up") return classifier.message;
  if (classifier.degraded) return "Running on the local classifier: the language model is away";
  return classifier.source === "llm" ? `Language model${model}` : `Local classifier${model}`;
}

function Stages({ health }: { health: HealthTold | null }) {
  if (health?.budget.total === undefined) return null;
  return (
    <details>
      <summary>Time allowed from the last word to this page: {duration(health.budget.total)}</summary>
      <table class="budgets" data-testid="budgets">
        <thead>
          <tr>
            <th scope="col">Last minutes</th>
            <th scope="col">p50</th>
            <th scope="col">p95</th>
            <th scope="col">p99</th>
            <th scope="col">allowed</th>
          </tr>
        </thead>
        <tbody>
          {([...STAGES, "painted", "total"] as const).map((stage) => {
            const allowed = health.budget[stage];
            const lately = health.stages.find((one) => one.stage === stage);
            return allowed === undefined ? null : (
              <tr key={stage} data-stage={stage} data-count={lately?.count ?? 0} class={lately?.breach ? "over" : ""}>
                <th scope="row">{STAGE_WORDS[stage]}</th>
                {([lately?.p50_ms, lately?.p95_ms, lately?.p99_ms] as const).map((ms, at) => (
                  <td key={at}>{ms === undefined ? "–" : duration(ms)}</td>
                ))}
                <td>{duration(allowed)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {health.stages.map((one) => one.breach !== "" && <p key={one.stage} class="hint" data-testid="breach" data-stage={one.stage}>{one.breach}</p>)}
    </details>
  );
}
