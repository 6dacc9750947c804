/** Which section of the board a card belongs to, what the filters leave, and how much there is to do. Pure. */
import type { Card, TaskStatus, Urgency } from "../model/protocol";

export type Section = "critical" | "unclassified" | "high" | "normal" | "information" | "done";
export type StatusFilter = "all" | TaskStatus;

export interface Filters {
  department: string;
  channel: string;
  status: StatusFilter;
}

const RANK: Record<Urgency, number> = { low: 0, normal: 1, high: 2, critical: 3 };

export const mostUrgent = (all: readonly { urgency: Urgency }[]): Urgency =>
  all.reduce<Urgency>((top, each) => (RANK[each.urgency] > RANK[top] ? each.urgency : top), "low");

/** What is left to do decides; a card with nothing left sinks, whatever it was. */
export function sectionOf(card: Card): Section {
  const left = card.tasks.filter((task) => task.status !== "done");
  if (left.length > 0) {
    const urgency = mostUrgent(left);
    return urgency === "low" ? "normal" : urgency;
  }
  if (card.tasks.length > 0) return "done";
  if (card.insights.length === 0) return card.status === "ok" ? "unclassified" : "information";
  return mostUrgent(card.insights) === "critical" ? "critical" : "information";
}

export function passes(card: Card, filters: Filters): boolean {
  if (filters.channel !== "" && card.channel !== filters.channel) return false;
  if (filters.department !== "" && !departmentsOf(card).includes(filters.department)) return false;
  return filters.status === "all" || card.tasks.some((task) => task.status === filters.status);
}

export function departmentsOf(card: Card): string[] {
  return [...new Set([...card.insights.map((i) => i.department), ...card.tasks.map((t) => t.department)])];
}

export interface Workload {
  open: number;
  critical: number;
}

/** Work left by department, "" for all of it. */
export function workload(cards: Iterable<Card>): Map<string, Workload> {
  const found = new Map<string, Workload>([["", { open: 0, critical: 0 }]]);
  const add = (department: string, critical: boolean): void => {
    const load = found.get(department) ?? { open: 0, critical: 0 };
    load.open += 1;
    load.critical += critical ? 1 : 0;
    found.set(department, load);
  };
  for (const card of cards) {
    for (const task of card.tasks) {
      if (task.status === "done") continue;
      add(task.department, task.urgency === "critical");
      add("", task.urgency === "critical");
    }
  }
  return found;
}

export const NO_FILTERS: Filters = { department: "", channel: "", status: "all" };
