/** Filters of the board: department (with the work left there), channel, status. */
import { computed } from "@preact/signals";
import { departmentWords, humanise, STATUS_WORDS } from "../model/words";
import * as app from "../state/app";
import { filters, setFilters } from "../state/route";
import { departmentsOf, type StatusFilter, type Workload } from "../state/sections";
import { listed } from "../state/store";

const ORDER = ["housekeeping", "engineering", "front_desk", "food_beverage", "guest_services", "security", "management"];
const rank = (name: string): number => (ORDER.includes(name) ? ORDER.indexOf(name) : name === "none" ? 99 : 50);

let order: readonly string[] = [];

/** Sorted at first; what turns up later goes to the end, so that no chip moves under the pointer. */
function inSteadyOrder(found: ReadonlySet<string>): readonly string[] {
  const sorted = [...found].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  const known = app.caughtUp.value ? order : [];
  order = [...known, ...sorted.filter((name) => !known.includes(name))];
  return order;
}

const names = computed(() => {
  const departments = new Set<string>();
  const channels = new Set<string>(app.channels.value);
  for (const entry of listed.value) {
    const card = entry.card.peek();
    for (const department of departmentsOf(card)) departments.add(department);
    channels.add(card.channel);
  }
  return {
    departments: inSteadyOrder(departments),
    channels: [...channels].sort((a, b) => a.localeCompare(b)),
  };
});

function Chip({ name, load }: { name: string; load: Workload | undefined }) {
  const chosen = filters.value.department === name;
  return (
    <button
      type="button"
      class={load?.critical ? "chip has-critical" : "chip"}
      aria-pressed={chosen}
      data-testid="filter-department"
      data-department={name || "all"}
      onClick={() => setFilters({ department: chosen ? "" : name })}
    >
      {name === "" ? "All departments" : departmentWords(name)}
      <span class="count" title={`${load?.open ?? 0} to do`}>
        {load?.open ?? 0}
        <span class="visually-hidden"> to do</span>
      </span>
    </button>
  );
}

export function Filters({ work }: { work: Map<string, Workload> }) {
  const current = filters.value;
  const { departments, channels: known } = names.value;
  const channels = current.channel === "" || known.includes(current.channel) ? known : [...known, current.channel];
  const statuses: StatusFilter[] = ["all", "open", "acknowledged", "done"];
  return (
    <div class="filters" role="group" aria-label="Filters" data-testid="filters">
      <div class="chips">
        {["", ...departments].map((name) => (
          <Chip key={name} name={name} load={work.get(name)} />
        ))}
      </div>
      <label class="pick">
        <span class="visually-hidden">Channel</span>
        <select data-testid="filter-channel" value={current.channel} onChange={(event) => setFilters({ channel: event.currentTarget.value })}>
          <option value="">All channels</option>
          {channels.map((channel) => (
            <option key={channel} value={channel}>
              {humanise(channel) || "No channel"}
            </option>
          ))}
        </select>
      </label>
      <label class="pick">
        <span class="visually-hidden">Status</span>
        <select data-testid="filter-status" value={current.status} onChange={(event) => setFilters({ status: event.currentTarget.value as StatusFilter })}>
          {statuses.map((status) => (
            <option key={status} value={status}>
              {status === "all" ? "Any status" : STATUS_WORDS[status]}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}
