/** The migration as it was last seen, and how it went since the page was opened. */
import { batch, signal } from "@preact/signals";
import type { Migration } from "../model/migration";
import { sampled, type Sample } from "../model/sides";

/** The last one that there was; null: none yet. */
export const migration = signal<Migration | null>(null);
/** There is one now. */
export const moving = signal(false);
/** When it was last seen, milliseconds. */
export const seenAt = signal(0);
/** What there is to know of the last action on this page. */
export const notes = signal<readonly string[]>([]);
export const samples = signal<readonly Sample[]>([]);

/** `found` null: no controller answers. `acted`: it is the answer to an action. */
export function noteMigration(found: Migration | null, at = Date.now(), acted = false): void {
  batch(() => {
    moving.value = found !== null;
    if (found === null) return;
    migration.value = found;
    if (acted) notes.value = found.notes;
    seenAt.value = at;
    samples.value = sampled(samples.value, found, at);
  });
}

export function forgetMigration(): void {
  batch(() => {
    migration.value = null;
    moving.value = false;
    samples.value = [];
    notes.value = [];
  });
}
