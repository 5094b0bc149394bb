// Numbers and times as text; an unknown number is a dash, never 0.

export const NONE = "—";

const formats = new Map();

/** A number with a fixed number of decimals, grouped by thousands; a dash if unknown. */
export function fixed(value, decimals) {
  if (value === null || value === undefined) return NONE;
  let format = formats.get(decimals);
  if (!format) {
    const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
    formats.set(decimals, (format = new Intl.NumberFormat("en-US", digits)));
  }
  const text = format.format(value);
  return /^-[0.,]*$/.test(text) ? text.slice(1) : text;
}

/** A number with a sign. */
export function signed(value, decimals) {
  const text = fixed(value, decimals);
  return value > 0 && /[1-9]/.test(text) ? `+${text}` : text;
}

/** A ratio in percent, without decimals. */
export const percent = (ratio) => (ratio === null || ratio === undefined ? NONE : `${fixed(ratio * 100, 0)}%`);

/** The number of decimals of a parsed number, at most 10. */
export function decimalsOf(value) {
  if (value === null || value === undefined) return 0;
  const [digits, exponent] = String(value).split("e");
  const point = digits.indexOf(".");
  return Math.max(0, Math.min(10, (point < 0 ? 0 : digits.length - point - 1) - Number(exponent ?? 0)));
}

/** The largest number of decimals among some numbers. */
export function commonDecimals(values) {
  // The exchange uses at most 8; more are rounding errors of a sum.
  return values.map(decimalsOf).filter((count) => count <= 8).reduce((most, count) => Math.max(most, count), 0);
}

/** Local time of day of a timestamp in ms. */
export function timeOfDay(ms) {
  if (ms === null || ms === undefined) return NONE;
  return new Date(ms).toLocaleTimeString("en-GB");
}

/** A duration in seconds as text: `0.43 s`, `12 s`, `3m 05s`, `2h 10m`, `5d 3h`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 10) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  const hours = Math.floor(whole / 3600);
  if (hours < 48) return `${hours}h ${two(Math.floor(whole / 60) % 60)}m`;
  return `${Math.floor(hours / 24)}d ${hours % 24}h`;
}

/** A market is published, and a connection heard, about once per second; older data are marked. */
export const SILENT_S = 2;

/** An age in seconds as text: `0.4 s`, `12 s`. */
export const age = (seconds) => (seconds !== null && seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds));

/** Set the text of an element if it differs. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Create an element with a class and a text. */
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

/** The CSS classes of a state: good, bad, or neither. */
export function stateClass(state) {
  if (state === "live" || state === "up") return "state good";
  if (["none", "paused"].includes(state) || state === "unknown" || !state) return "state none";
  if (state === "rejected") return "state none";
  return ["stale", "silent", "lost", "flapping", "failed"].includes(state) ? "state bad" : "state";
}
