// What the page knows: the updates of the stream, put together. No document in sight.

const POINTS_MAX = 600;
const WALLS_MAX = 200;
const NOTICES_MAX = 100;
const GAPS_MAX = 200;

export class Model {
  constructor() {
    this.selected = "";
    this.connection = "connecting"; // connecting | open | lost
    this.lostReason = "";
    this.lostSinceMs = null;
    this.clear();
  }

  clear() {
    this.rows = new Map();
    this.gaps = new Map();
    this.walls = [];
    this.notices = [];
    this.processes = [];
    this.pipeline = {};
    this.feed = { state: "starting", since_ms: 0 };
    this.window = "60s";
    this.levels = "10";
    this.links = {};
    this.clearMarket();
  }

  clearMarket() {
    this.trades = null;
    this.book = null;
    this.points = [];
    this.prints = [];
  }

  apply(update) {
    if (update.full) this.clear();
    this.connection = "open";
    this.serverMs = update.now_ms;
    this.heardAt = performance.now();
    for (const key of ["feed", "window", "levels", "links"]) if (key in update) this[key] = update[key];
    for (const row of update.rows) this.rows.set(row.name, row);
    for (const gap of update.gaps) this.gaps.set(gap.id, gap);
    while (this.gaps.size > GAPS_MAX) this.gaps.delete(this.gaps.keys().next().value);
    push(this.walls, update.walls, WALLS_MAX);
    push(this.notices, update.notices, NOTICES_MAX);
    if (update.processes) this.takeProcesses(update.processes, update.pipeline);
    if (update.market && update.market.name === this.selected) {
      this.trades = update.market.trades;
      this.book = update.market.orderbook;
    }
    push(this.points, update.points ?? [], POINTS_MAX);
    push(this.prints, update.prints ?? [], POINTS_MAX);
  }

  /** CPU use is the difference of two readings of the processor time. */
  takeProcesses(processes, pipeline) {
    const before = new Map(this.processes.map((process) => [process.process, process]));
    for (const process of processes) {
      const last = before.get(process.process);
      const isSame = last && last.pid === process.pid && process.publish_ts_ns !== last.publish_ts_ns;
      const seconds = isSame ? (process.publish_ts_ns - last.publish_ts_ns) / 1e9 : 0;
      const known = seconds > 0 && process.cpu_seconds !== null && last.cpu_seconds !== null;
      const used = known ? (process.cpu_seconds - last.cpu_seconds) / seconds : null;
      process.cpu = used === null || last.cpu === null || last.cpu === undefined ? used : 0.7 * last.cpu + 0.3 * used;
    }
    this.processes = processes;
    this.pipeline = pipeline;
  }

  /** The connection is gone, or `paused` by us: names stay, every number goes. */
  lose(reason, connection = "lost") {
    if (this.connection !== connection) this.lostSinceMs = Date.now();
    this.connection = connection;
    this.lostReason = reason;
    const nothing = { state: this.connection, reason: null, epoch: null, seq: null };
    for (const row of this.rows.values()) {
      for (const key of Object.keys(row)) if (!["name", "category", "symbol"].includes(key)) row[key] = null;
      row.book = row.trades = nothing;
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

  /** What the source badge says: live, sim, replay, stale, or none yet. */
  get source() {
    if (this.connection === "paused") return "paused";
    if (this.connection === "lost" || ["lost", "silent"].includes(this.feed.state)) return "stale";
    const sources = new Set([...this.rows.values()].map((row) => row.source).filter(Boolean));
    if (this.pipeline.source) sources.add(this.pipeline.source);
    return ["sim", "replay", "live"].find((name) => sources.has(name)) ?? "none";
  }

  /**
   * Seconds since the pipeline last spoke of a market; null if it never has.
   *
   * Of its trades it speaks once a second. A book is published when it changes; in between, that
   * its worker is up is what is said of it.
   */
  heardAgo(row) {
    const worker = this.processes.find(({ process, state }) => process === row.book.process && state === "up");
    const book = Math.max(row.book.heard_ms ?? -Infinity, worker ? worker.publish_ts_ns / 1e6 : -Infinity);
    return this.ago(Math.min(row.trades.heard_ms ?? Infinity, row.book.heard_ms == null ? Infinity : book));
  }

  /** Seconds since a time of the pipeline's clock, in ms; null if there is none. */
  ago(ms) {
    return Number.isFinite(ms ?? NaN) ? Math.max(0, (this.nowMs - ms) / 1000) : null;
  }

  /** The pipeline's time now, in ms: that of the last update and what has passed since. */
  get nowMs() {
    return this.serverMs === undefined ? Date.now() : this.serverMs + performance.now() - this.heardAt;
  }
}

function push(list, items, most) {
  list.push(...items);
  if (list.length > most) list.splice(0, list.length - most);
}
