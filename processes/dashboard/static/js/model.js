// The state of the page, built from the updates of the stream. Does not use the document.

const POINTS_MAX = 600;
const WALLS_MAX = 200;
const EVENTS_MAX = 100;
const GAPS_MAX = 200;

export class Model {
  constructor() {
    this.selected = "";
    this.connection = "connecting"; // connecting | open | lost | paused
    this.lostReason = "";
    this.lostSinceMs = null;
    this.clear();
  }

  clear() {
    this.rows = new Map();
    this.gaps = new Map();
    this.completeness = [];
    this.walls = [];
    this.events = [];
    this.processes = [];
    this.pipeline = {};
    this.metrics = { state: "starting", since_ms: 0 };
    this.window = "60s";
    this.levels = "10";
    this.clearMarket();
  }

  clearMarket() {
    this.trades = null;
    this.book = null;
    this.points = [];
    this.chartTrades = [];
  }

  apply(update) {
    if (update.full) this.clear();
    this.connection = "open";
    this.serverMs = update.now_ms;
    this.receivedAt = performance.now();
    for (const key of ["metrics", "window", "levels", "completeness"]) if (key in update) this[key] = update[key];
    for (const row of update.rows) this.rows.set(row.name, row);
    for (const gap of update.gaps) this.gaps.set(gap.id, gap);
    while (this.gaps.size > GAPS_MAX) this.gaps.delete(this.gaps.keys().next().value);
    push(this.walls, update.walls, WALLS_MAX);
    push(this.events, update.events, EVENTS_MAX);
    if (update.processes) this.takeProcesses(update.processes, update.pipeline);
    if (update.market && update.market.name === this.selected) {
      this.trades = update.market.trades;
      this.book = update.market.orderbook;
    }
    push(this.points, update.points ?? [], POINTS_MAX);
    push(this.chartTrades, update.chart_trades ?? [], POINTS_MAX);
  }

  /** Processor use is the difference of two readings of the processor time, smoothed. */
  takeProcesses(processes, pipeline) {
    const previous = new Map(this.processes.map((process) => [process.process, process]));
    for (const process of processes) {
      const last = previous.get(process.process);
      const isSame = last && last.pid === process.pid && process.publish_ts_ns !== last.publish_ts_ns;
      const seconds = isSame ? (process.publish_ts_ns - last.publish_ts_ns) / 1e9 : 0;
      const known = seconds > 0 && process.cpu_seconds !== null && last.cpu_seconds !== null;
      const used = known ? (process.cpu_seconds - last.cpu_seconds) / seconds : null;
      process.cpu = used === null || last.cpu === null || last.cpu === undefined ? used : 0.7 * last.cpu + 0.3 * used;
    }
    this.processes = processes;
    this.pipeline = pipeline;
  }

  /** The connection was lost, or paused by the page: drop every number, keep the names. */
  lose(reason, connection = "lost") {
    if (this.connection !== connection) this.lostSinceMs = Date.now();
    this.connection = connection;
    this.lostReason = reason;
    const unknown = { state: this.connection, reason: null, epoch: null, seq: null };
    for (const row of this.rows.values()) {
      for (const key of Object.keys(row)) if (!["name", "category", "symbol"].includes(key)) row[key] = null;
      row.book = row.trades = unknown;
    }
    for (const process of this.processes) {
      for (const key of Object.keys(process)) if (!["process", "role"].includes(key)) process[key] = null;
      process.state = "unknown";
    }
    this.pipeline = {};
    this.trades = this.book = null;
    if (this.points.length) this.points.push([this.points.at(-1)[0] + 1, null, null, null]);
  }

  select(name) {
    this.selected = name;
    this.clearMarket();
  }

  /** The source for the badge: stale, paused, none, or the kind of the feed (live, custom, sim, replay, waiting, offline). */
  get source() {
    if (this.connection === "paused") return "paused";
    if (this.connection === "lost" || ["lost", "silent"].includes(this.metrics.state)) return "stale";
    const sources = new Set([...this.rows.values()].map((row) => row.source).filter(Boolean));
    return ["sim", "replay"].find((name) => sources.has(name)) ?? this.pipeline.feed?.kind ?? "none";
  }

  /** Seconds since the pipeline last published book and trades of a market, whichever is older; null if it never has. */
  reportedAgo(row) {
    return this.ago(Math.min(row.trades.published_ms ?? Infinity, row.book.published_ms ?? Infinity));
  }

  /** Seconds since the exchange was last heard on the streams of a market: book and trades; null if it was not. */
  heardAgo(row) {
    return [this.ago(row.book.heard_ms), this.ago(row.trades.heard_ms)];
  }

  /** Seconds since a time in ms of the pipeline's clock; null if unknown. */
  ago(ms) {
    return Number.isFinite(ms ?? NaN) ? Math.max(0, (this.nowMs - ms) / 1000) : null;
  }

  /** The pipeline's current time in ms: that of the last update plus the time since. */
  get nowMs() {
    return this.serverMs === undefined ? Date.now() : this.serverMs + performance.now() - this.receivedAt;
  }
}

function push(list, items, most) {
  list.push(...items);
  if (list.length > most) list.splice(0, list.length - most);
}
