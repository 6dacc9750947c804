/** Reads fields of JSON of which nothing is known: a value of another type becomes a harmless one. */

/** By the names of T and no others: what is read here is what the server sends. */
export type Fields<T extends object> = { readonly [Name in keyof T]?: unknown };

export const fields = <T extends object>(raw: unknown): Fields<T> => (typeof raw === "object" && raw !== null ? raw : {});
export const text = (raw: unknown, fallback = ""): string => (typeof raw === "string" ? raw : fallback);
export const textOrNull = (raw: unknown): string | null => (typeof raw === "string" ? raw : null);
export const count = (raw: unknown, fallback = 0): number => (typeof raw === "number" && Number.isFinite(raw) ? raw : fallback);
export const countOrNull = (raw: unknown): number | null => (typeof raw === "number" && Number.isInteger(raw) ? raw : null);
export const list = <T>(raw: unknown, each: (item: unknown) => T | null): T[] =>
  Array.isArray(raw) ? raw.map(each).filter((item): item is T => item !== null) : [];
export const texts = (raw: unknown): string[] => list(raw, textOrNull);
export const oneOf = <T extends string>(raw: unknown, known: readonly T[], fallback: T): T => (known.includes(raw as T) ? (raw as T) : fallback);
