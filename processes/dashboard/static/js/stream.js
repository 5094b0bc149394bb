// The connection to the dashboard process: a stream of updates, reopened whenever it ends.

const SILENT_MS = 1600; // the server sends at least two updates per second; shown within 2 s
const CHECK_MS = 100;
const RETRY_MS = 1000;

export class Stream {
  /** Calls `onUpdate(update)` for every update, and `onLost(reason)` when the stream ends or stalls. */
  constructor(onUpdate, onLost) {
    this.onUpdate = onUpdate;
    this.onLost = onLost;
    this.market = "";
    this.source = null;
    this.receivedAt = performance.now();
    this.retryAt = Infinity;
    this.isPaused = false;
    setInterval(() => this.check(), CHECK_MS);
  }

  /** Open the stream for a market; closes the previous one. */
  open(market) {
    this.market = market;
    if (this.isPaused) return;
    this.source?.close();
    this.receivedAt = performance.now();
    this.retryAt = Infinity;
    const source = new EventSource(`/events?market=${encodeURIComponent(market)}`);
    this.source = source;
    source.onmessage = (message) => {
      if (source !== this.source) return;
      this.receivedAt = performance.now();
      this.onUpdate(JSON.parse(message.data));
    };
    source.onerror = () => {
      if (source === this.source) this.end("The connection to the dashboard was lost");
    };
  }

  /** Close the stream and retry soon. */
  end(reason) {
    this.source.close();
    this.source = null;
    this.retryAt = performance.now() + RETRY_MS;
    this.onLost(reason);
  }

  /** Close the stream while the page is hidden. */
  pause() {
    this.isPaused = true;
    this.source?.close();
    this.source = null;
    this.retryAt = Infinity;
  }

  /** Open a new stream, which starts with the complete state. */
  resume() {
    if (!this.isPaused) return;
    this.isPaused = false;
    this.open(this.market);
  }

  check() {
    const now = performance.now();
    if (this.source && now - this.receivedAt > SILENT_MS) this.end("The dashboard does not respond");
    else if (!this.source && now >= this.retryAt) this.open(this.market);
  }
}
