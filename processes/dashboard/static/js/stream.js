// The connection to the dashboard process: one stream of updates, opened again whenever it ends.

const SILENT_MS = 3000; // the server speaks at least once a second
const CHECK_MS = 250;
const RETRY_MS = 1000;

export class Stream {
  /** `onUpdate(update)` for every update, `onLost(reason)` when it ends or falls silent. */
  constructor(onUpdate, onLost) {
    this.onUpdate = onUpdate;
    this.onLost = onLost;
    this.market = "";
    this.source = null;
    this.heard = performance.now();
    this.retryAt = Infinity;
    this.isPaused = false;
    setInterval(() => this.check(), CHECK_MS);
  }

  /** Start, or start again for another market. */
  open(market) {
    this.market = market;
    if (this.isPaused) return;
    this.source?.close();
    this.heard = performance.now();
    this.retryAt = Infinity;
    const source = new EventSource(`/events?market=${encodeURIComponent(market)}`);
    this.source = source;
    source.onmessage = (message) => {
      if (source !== this.source) return;
      this.heard = performance.now();
      this.onUpdate(JSON.parse(message.data));
    };
    source.onerror = () => {
      if (source === this.source) this.end("The connection to the dashboard is lost");
    };
  }

  /** Give the stream up and try again soon. */
  end(reason) {
    this.source.close();
    this.source = null;
    this.retryAt = performance.now() + RETRY_MS;
    this.onLost(reason);
  }

  /** Nobody looks: let go of the server until `resume`. */
  pause() {
    this.isPaused = true;
    this.source?.close();
    this.source = null;
    this.retryAt = Infinity;
  }

  /** Somebody looks again: a new stream, which begins with everything. */
  resume() {
    if (!this.isPaused) return;
    this.isPaused = false;
    this.open(this.market);
  }

  check() {
    const now = performance.now();
    if (this.source && now - this.heard > SILENT_MS) this.end("The dashboard does not answer");
    else if (!this.source && now >= this.retryAt) this.open(this.market);
  }
}
