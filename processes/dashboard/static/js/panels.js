// The processes, the gaps and the events.

import { duration, fixed, make, NONE, percent, setText, stateClass, timeOfDay } from "./format.js";
import { decimalsFor } from "./table.js";

const $ = (id) => document.getElementById(id);
const EVENTS_SHOWN = 150;
const GAPS_SHOWN = 100;

const PROCESS_COLUMNS = [
  ["Process", (p) => p.process, "text"],
  ["State", (p) => p.state, "text"],
  ["Restarts", (p) => fixed(p.restarts, 0)],
  ["Uptime", (p) => duration(p.uptime_s)],
  ["CPU", (p) => (p.cpu === null || p.cpu === undefined ? NONE : `${fixed(p.cpu * 100, 1)}%`)],
  ["Memory", (p) => (p.rss_bytes === null ? NONE : `${fixed(p.rss_bytes / 1e6, 0)} MB`)],
  ["Lag", (p) => (p.lag_s === null ? "" : `${fixed(p.lag_s * 1000, 1)} ms`)],
  ["Lost", (p) => (p.lost === null ? "" : fixed(p.lost, 0))],
  ["Link", (p, model) => linkText(p, model), "text"],
];

function linkText(process, model) {
  if (process.role !== "connector" || process.connected === null) return "";
  if (!process.connected) {
    const next = process.next_attempt_ts_ms == null ? "" : `next attempt in ${duration(Math.max(0, (process.next_attempt_ts_ms - model.nowMs) / 1000))}`;
    return ["NOT CONNECTED", [process.failure, next].filter(Boolean).join(", ")].filter(Boolean).join(": ");
  }
  const ping = process.ping_rtt_ms === null ? "" : ` ${fixed(process.ping_rtt_ms, 0)} ms`;
  const again = process.reconnects ? `, reconnects ${process.reconnects}` : "";
  return `connected${ping}${again}`;
}

const GAP_COLUMNS = [
  ["Start", (gap) => timeOfDay(startMs(gap)), "text"],
  ["Market", (gap) => `${gap.symbol} ${gap.category}`, "text"],
  ["Stream", (gap) => gap.stream, "text"],
  ["Reason", (gap) => gap.reason ?? NONE, "text"],
  ["Duration", gapLength],
  ["Update ids", (gap) => (gap.stream === "book" ? `${gap.update_id_before ?? "…"} → ${gap.update_id_after ?? "…"}` : "")],
];

function gapLength(gap, model) {
  if (gap.is_superseded) return "unknown: worker ended";
  if (!gap.is_open) return gap.duration_s === null ? "unsubscribed" : duration(gap.duration_s);
  return `open, ${duration(Math.max(0, (model.nowMs - startMs(gap)) / 1000))}`;
}

/** Start of a gap, from what is known: our opening time, our closing time and its duration, or the exchange's time. */
function startMs(gap) {
  if (gap.opened_ts_ns !== null) return gap.opened_ts_ns / 1e6;
  if (gap.closed_ts_ns !== null && gap.duration_s !== null) return gap.closed_ts_ns / 1e6 - gap.duration_s * 1000;
  if (gap.stream === "trades" && gap.source !== "replay") return gap.start_ms;
  return gap.noted_ms;
}

/** Fill a table and reuse its rows: only cells with a new text change. */
function fill(table, columns, items, model, onRow) {
  const head = table.tHead.rows[0];
  if (!head.children.length) {
    head.append(...columns.map(([title, , kind]) => { const cell = make("th", kind, title); cell.scope = "col"; return cell; }));
  }
  const body = table.tBodies[0];
  while (body.rows.length > items.length) body.lastChild.remove();
  while (body.rows.length < items.length) {
    const row = make("tr");
    row.append(...columns.map(([, , kind]) => make("td", kind)));
    body.append(row);
  }
  items.forEach((item, index) => {
    columns.forEach(([, show], column) => setText(body.rows[index].cells[column], show(item, model)));
    onRow?.(body.rows[index], item);
  });
}

export function renderProcesses(model) {
  fill($("processes"), PROCESS_COLUMNS, model.processes, model, (row, process) => {
    row.dataset.process = process.process;
    row.dataset.pid = process.pid ?? "";
    const cell = row.cells[1];
    if (!cell.firstElementChild) cell.replaceChildren(make("span", "", process.state));
    cell.firstElementChild.className = stateClass(process.state);
    row.title = process.url ?? "";
  });
  const up = model.processes.filter((process) => process.state === "up").length;
  setText($("processes-count"), model.processes.length ? `${up} of ${model.processes.length} up` : "");
}

export function renderGaps(model) {
  const gaps = [...model.gaps.values()].reverse();
  const open = gaps.filter((gap) => gap.is_open);
  const closed = gaps.filter((gap) => !open.includes(gap));
  fill($("gaps"), GAP_COLUMNS, [...open, ...closed].slice(0, GAPS_SHOWN), model, (row, gap) => {
    row.classList.toggle("open", open.includes(gap));
  });
  setText($("gaps-count"), gaps.length ? `${open.length} open, ${closed.length} closed` : "none");
}

const COMPLETENESS_COLUMNS = [
  ["Market", (day) => `${day.symbol} ${day.category}`, "text"],
  ["Trades", (day) => completeness(day.trades_percent)],
  ["Book", (day) => completeness(day.book_percent)],
];

/** Rounded down by the supervisor: 100% means that nothing is missing. */
function completeness(percent) {
  return percent === null ? NONE : `${fixed(percent, 4)}%`;
}

export function renderCompleteness(model) {
  fill($("completeness"), COMPLETENESS_COLUMNS, model.completeness, model, (row, day) => {
    row.classList.toggle("open", [day.trades_percent, day.book_percent].some((percent) => percent !== null && percent < 100));
  });
}

let drawnEvents = "";

export function renderEvents(model) {
  const only = $("only-selected").checked ? model.selected : "";
  const walls = model.walls.map((wall) => ({ ...wall, isWall: true, market: `${wall.category}.${wall.symbol}` }));
  const events = [...walls.filter((wall) => !only || wall.market === only), ...model.events];
  events.sort((a, b) => b.ts_ms - a.ts_ms || b.version - a.version);
  const shown = events.slice(0, EVENTS_SHOWN);
  const key = `${only} ${shown.length} ${shown[0]?.version} ${shown.at(-1)?.version}`;
  if (key === drawnEvents) return;
  drawnEvents = key;
  const items = shown.map((event) => {
    const item = make("li");
    const level = event.isWall ? "wall" : event.level;
    item.append(make("time", "", timeOfDay(event.ts_ms)));
    item.append(make("span", `what ${level}`, event.isWall ? `wall ${event.event}` : event.level === "bad" ? "warning" : "info"));
    item.append(make("span", "", event.isWall ? wallText(event) : `${event.subject}: ${event.text}`));
    return item;
  });
  $("events").replaceChildren(...(items.length ? items : [make("li", "dim", "No events yet.")]));
}

function wallText(wall) {
  const d = decimalsFor(wall.market, [wall.price], [wall.peak_size]);
  const fate = { eaten: `, ${percent(wall.eaten_ratio)} eaten`, pulled: `, ${percent(wall.pulled_ratio)} cancelled` }[wall.event] ?? "";
  const age = wall.age_ms ? `, after ${duration(wall.age_ms / 1000)}` : "";
  return `${wall.symbol} ${wall.side} ${fixed(wall.peak_size, d.size)} @ ${fixed(wall.price, d.price)}${fate}${age}`;
}
