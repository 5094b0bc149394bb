// Numbers and times as text. Absent numbers are a dash, never 0. Pure.

export const NONE = "—";

const formats = new Map();

/** A number with exactly so many decimals, grouped by thousands; a dash if there is none. */
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

/** The same with a sign, for numbers around zero. */
export function signed(value, decimals) {
  const text = fixed(value, decimals);
  return value > 0 && /[1-9]/.test(text) ? `+${text}` : text;
}

/** Whole per cents of a ratio. */
export const percent = (ratio) => (ratio === null || ratio === undefined ? NONE : `${fixed(ratio * 100, 0)}%`);

/** Decimals that a number from the exchange is written with, at most 10. */
export function decimalsOf(value) {
  if (value === null || value === undefined) return 0;
  const [digits, exponent] = String(value).split("e");
  const point = digits.indexOf(".");
  return Math.max(0, Math.min(10, (point < 0 ? 0 : digits.length - point - 1) - Number(exponent ?? 0)));
}

/** The most decimals that any of the numbers is written with. */
export function commonDecimals(values) {
  // More than 8 is not what the exchange wrote but the dust of a sum.
  return values.map(decimalsOf).filter((count) => count <= 8).reduce((most, count) => Math.max(most, count), 0);
}

/** Time of day of a timestamp in ms, in the reader's zone. */
export function timeOfDay(ms) {
  if (ms === null || ms === undefined) return NONE;
  return new Date(ms).toLocaleTimeString("en-GB");
}

/** A duration in seconds for people: `0.43 s`, `12 s`, `3m 05s`, `2h 10m`, `5d 3h`. */
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

/** More than this since a market was heard of is too long: once a second is the rule. */
export const SILENT_S = 3;

/** The age of what is shown, as long as it is small to a tenth of a second: `0.4 s`, `12 s`. */
export const age = (seconds) => (seconds !== null && seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds));

/** Set an element's text if it is another. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** An element with a class and a text. */
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

/** The class of a state: good, bad, or neither. */
export function stateClass(state) {
  if (state === "live" || state === "up") return "state good";
  if (["none", "paused"].includes(state) || state === "unknown" || !state) return "state none";
  return ["stale", "silent", "lost", "flapping", "failed"].includes(state) ? "state bad" : "state";
}
