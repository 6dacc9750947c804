/** Numbers and times as people read them. Pure; the clock is handed in. */

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const SHORT = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });

/** Local time of day; with the day where it is not today. */
export function clockTime(rfc3339: string, now: number, withSeconds = true): string {
  const at = new Date(rfc3339);
  if (Number.isNaN(at.getTime())) return "–";
  const time = (withSeconds ? TIME : SHORT).format(at);
  return at.toDateString() === new Date(now).toDateString() ? time : `${DAY.format(at)}, ${SHORT.format(at)}`;
}

/** "now", "40 s", "3 min", "2 h", "4 d": how long ago. */
export function age(rfc3339: string, now: number): string {
  const since = Math.round((now - Date.parse(rfc3339)) / 1000);
  if (Number.isNaN(since)) return "";
  if (since < 10) return "now";
  if (since < 60) return `${Math.floor(since / 10) * 10} s`;
  if (since < 3600) return `${Math.floor(since / 60)} min`;
  if (since < 86_400) return `${Math.floor(since / 3600)} h`;
  return `${Math.floor(since / 86_400)} d`;
}

/** "840 ms" below a second, "1.24 s" above. */
export function duration(ms: number): string {
  if (ms < 999.5) return `${ms < 9.95 ? Math.round(ms * 10) / 10 : Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 9995 ? 2 : 1)} s`;
}

/** Samples as seconds: "75.3 s"; with minutes from two minutes on: "12 min 05 s". */
export function seconds(samples: number, rate: number): string {
  const s = rate > 0 ? samples / rate : 0;
  if (s < 120) return `${s.toFixed(1)} s`;
  return `${Math.floor(s / 60)} min ${String(Math.floor(s % 60)).padStart(2, "0")} s`;
}

export const percent = (share: number): string => `${Math.round(share * 100)} %`;

export const plural = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`;

/** Seconds as people say them: "40 s", "12 min", "3 h 20 min", "2 d 4 h". */
export function lasting(s: number): string {
  const whole = Math.max(0, Math.round(s));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  const [big, unit, rest, small] =
    whole < 86_400
      ? [Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min"]
      : [Math.floor(whole / 86_400), "d", Math.floor((whole % 86_400) / 3600), "h"];
  return rest > 0 ? `${big} ${unit} ${rest} ${small}` : `${big} ${unit}`;
}

/** Two digits behind the point, four below a cent's worth; the currency is only a label. */
export function money(amount: number, currency: string): string {
  const digits = amount !== 0 && amount < 0.1 ? 4 : 2;
  return `${amount.toFixed(digits)}${currency ? ` ${currency}` : ""}`;
}

const WHOLE = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
export const whole = (n: number): string => WHOLE.format(n);
