/** The shift report: what came in, what is open, what was slow; made to be printed. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { getShift } from "../live/api";
import { clockTime, lasting, plural, whole } from "../model/format";
import type { Counted, ShiftReport, TimedTask, Times } from "../model/reports";
import { departmentWords, intentWords, URGENCY_WORDS, writtenBy } from "../model/words";
import * as app from "../state/app";
import { boardLink, replaceRoute, route, shiftLink, utteranceLink, type Since } from "../state/route";
import { NO_FILTERS } from "../state/sections";

const HOUR_MS = 3_600_000;
const HOURS: readonly Since[] = ["1", "8", "24"];
const USUAL = "8";

const urgencyWords = (name: string): string => (URGENCY_WORDS as Record<string, string>)[name] ?? name;

function Counts({ title, rows, words }: { title: string; rows: Counted[]; words: (name: string) => string }) {
  return (
    <table class="table counts">
      <thead>
        <tr>
          <th scope="col">{title}</th>
          <th scope="col" class="number">
            Requests
          </th>
          <th scope="col" class="number">
            Done
          </th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.name} data-testid="count-row" data-name={row.name}>
            <th scope="row">{words(row.name)}</th>
            <td class="number">{whole(row.requests)}</td>
            <td class="number">{whole(row.done)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

interface ListProps {
  id: string;
  rows: TimedTask[];
  time: string;
  missing?: string;
}

function TaskList({ id, rows, time, missing = "–" }: ListProps) {
  return (
    <div class="scroll">
      <table class="table tasks" data-testid={id}>
        <thead>
          <tr>
            <th scope="col" class="number">
              {time}
            </th>
            <th scope="col">What</th>
            <th scope="col">Rooms</th>
            <th scope="col">Department</th>
            <th scope="col">Said</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(({ task, seconds }) => (
            <tr key={task.task_id} class={task.urgency === "critical" ? "critical" : ""} data-task-id={task.task_id}>
              <td class="number">{seconds === null ? <b class="missing">{missing}</b> : lasting(seconds)}</td>
              <th scope="row">
                <a href={utteranceLink(task.utterance_id)}>{task.summary || intentWords("unclear")}</a>
                {task.status === "acknowledged" && <span class="hint"> acknowledged</span>}
              </th>
              <td>{task.rooms.join(", ")}</td>
              <td>{departmentWords(task.department)}</td>
              <td>
                <time dateTime={task.created_at} title={task.created_at}>
                  {clockTime(task.created_at, app.now.value, false)}
                </time>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Took({ words, times }: { words: string; times: Times }) {
  return (
    <div>
      <dt>{words}</dt>
      <dd>
        {times.p50 === null || times.p95 === null ? (
          "–"
        ) : (
          <>
            half within <b>{lasting(times.p50)}</b>, 95 % within <b>{lasting(times.p95)}</b>{" "}
            <span class="hint">({plural(times.count, "request")})</span>
          </>
        )}
      </dd>
    </div>
  );
}

function Figures({ report }: { report: ShiftReport }) {
  const figures: [string, string, number, boolean][] = [
    ["utterances", "Utterances", report.utterances, false],
    ["requests", "Requests", report.requests, false],
    ["done", "Of them done", report.done.count, false],
    ["open", "Open now", report.openNow, false],
    ["emergencies", "Emergencies", report.emergencies, report.emergenciesUnseen > 0],
  ];
  return (
    <dl class="figures">
      {figures.map(([name, words, value, grave]) => (
        <div key={name} class={grave ? "grave" : ""}>
          <dt>{words}</dt>
          <dd data-testid={`shift-${name}`}>{whole(value)}</dd>
        </div>
      ))}
    </dl>
  );
}

function Report({ report }: { report: ShiftReport }) {
  const { narrative } = report;
  return (
    <>
      <div class="told" data-testid="narrative" data-source={narrative.source}>
        <p>{narrative.text}</p>
        <p class="hint">Written {writtenBy(narrative.source)}.</p>
      </div>
      <Figures report={report} />
      {report.emergency.length > 0 && (
        <>
          <h3>Emergencies</h3>
          <TaskList id="shift-emergency" rows={report.emergency} time="Seen after" missing="not seen yet" />
        </>
      )}
      <h3>Open now, oldest first</h3>
      {report.open.length === 0 ? (
        <p class="none">Nothing is open.</p>
      ) : (
        <TaskList id="shift-open-tasks" rows={report.open} time="For" />
      )}
      {report.openNow > report.open.length && (
        <p class="hint">And {plural(report.openNow - report.open.length, "more", "more")}; the board has them all.</p>
      )}
      {report.requests > 0 && (
        <>
          <h3>How long it took</h3>
          <dl class="took">
            <Took words="From request to acknowledged" times={report.acknowledged} />
            <Took words="From request to done" times={report.done} />
            {report.emergencies > 0 && <Took words="Emergencies, until somebody had seen them" times={report.emergenciesSeen} />}
          </dl>
          {report.slowest.length > 0 && <TaskList id="shift-slowest" rows={report.slowest} time="Took" />}
          <h3>What came in</h3>
          <div class="side-by-side">
            <Counts title="Department" rows={report.byDepartment} words={departmentWords} />
            <Counts title="Kind" rows={report.byIntent} words={intentWords} />
            <Counts title="Urgency" rows={report.byUrgency} words={urgencyWords} />
          </div>
        </>
      )}
    </>
  );
}

export function ShiftView() {
  const found = useSignal<ShiftReport | null>(null);
  const problem = useSignal("");
  const again = useSignal(0);
  const hours = route.value.since || USUAL;
  const asked = again.value;
  useEffect(() => {
    const stop = new AbortController();
    const since = new Date(Date.now() - Number(hours) * HOUR_MS).toISOString();
    const fetchBoth = async (): Promise<void> => {
      try {
        problem.value = "";
        found.value = await getShift(since, "local", stop.signal);
        found.value = await getShift(since, "any", stop.signal);
      } catch (error) {
        if (!stop.signal.aborted) problem.value = error instanceof Error ? error.message : "It could not be fetched.";
      }
    };
    void fetchBoth();
    return () => stop.abort();
  }, [hours, asked, found, problem]);
  const report = found.value;
  return (
    <section class="shift" aria-label="Shift report" data-testid="shift">
      <div class="view-head">
        <a class="button" href={boardLink(NO_FILTERS)}>
          Back to the board
        </a>
        <h2>Shift report</h2>
        <label>
          Last{" "}
          <select
            value={hours}
            data-testid="shift-hours"
            onChange={(event) => replaceRoute(shiftLink(event.currentTarget.value as Since))}
          >
            {HOURS.map((each) => (
              <option key={each} value={each}>
                {plural(Number(each), "hour")}
              </option>
            ))}
          </select>
        </label>
        <button type="button" onClick={() => (again.value += 1)} data-testid="shift-again">
          Refresh
        </button>
        <button type="button" onClick={() => window.print()}>
          Print
        </button>
      </div>
      {problem.value !== "" && (
        <p class="failed" role="alert">
          {problem.value}
        </p>
      )}
      {report === null && problem.value === "" && <p class="hint">Fetching …</p>}
      {report !== null && (
        <>
          <p class="facts">
            <span>{app.session.value?.site}</span>
            <span>
              <time dateTime={report.since}>{clockTime(report.since, app.now.value, false)}</time> to{" "}
              <time dateTime={report.until}>{clockTime(report.until, app.now.value, false)}</time>
            </span>
          </p>
          <Report report={report} />
        </>
      )}
    </section>
  );
}
