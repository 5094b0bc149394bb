// Best prices and trades per minute in JavaScript (Node 18 or newer).
//
//     cd scripts/examples && npm install
//     node subscribe.mjs BTCUSDT ETHUSDT
//     node subscribe.mjs --endpoint tcp://127.0.0.1:5556 --count 20
//
// A message has two frames: topic and msgpack map. The numbers of a book are null unless it is live. A
// jump in seq means missed messages; the same seq again is a repeat for a new subscriber. Times in
// nanoseconds exceed 2^53: decode with { useBigInt64: true } if you need them exactly.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { decode } from "@msgpack/msgpack";
import { Subscriber } from "zeromq";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    endpoint: { type: "string" },
    "run-dir": { type: "string" },
    count: { type: "string" },
    seconds: { type: "string" },
  },
});

function findEndpoint(runDir) {
  const runtime = process.env.XDG_RUNTIME_DIR;
  const usual = runtime ? `${runtime}/bybit-pipeline` : `/tmp/bybit-pipeline-${process.getuid()}`;
  try {
    return JSON.parse(readFileSync(`${runDir ?? usual}/endpoints.json`, "utf8")).metrics;
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    console.error(`no pipeline runs in ${runDir ?? usual}; start one with scripts/up`);
    process.exit(69);
  }
}

const typed = positionals.map((symbol) => symbol.toUpperCase());
const symbols = typed.length ? typed : ["BTCUSDT", "ETHUSDT"];
const wanted = new Set(symbols.flatMap((s) => [`trades.linear.${s}`, `orderbook.linear.${s}`]));
const socket = new Subscriber();
socket.connect(options.endpoint ?? findEndpoint(options["run-dir"]));
for (const topic of wanted) socket.subscribe(topic);
if (options.seconds) setTimeout(() => socket.close(), 1000 * Number(options.seconds));

const last = new Map();
let count = 0;
let lost = 0;
for await (const [frame, payload] of socket) {
  const topic = frame.toString();
  if (!wanted.has(topic)) continue; // subscriptions are prefixes: BTCUSDT matches BTCUSDT-27NOV26 too
  const message = decode(payload);
  const key = `${topic} ${message.epoch}`;
  const before = last.get(key) ?? message.seq - 1;
  if (message.seq <= before) continue;
  lost += message.seq - before - 1;
  last.set(key, message.seq);
  let text = `bid=${message.best_bid} ask=${message.best_ask}`;
  if (message.state === "stale") {
    text = `stale: ${message.reason}`;
  } else if (message.kind === "trades") {
    const window = message.windows["60s"];
    text = `tpm=${window.tpm} vol_delta=${window.vol_delta}`;
  }
  console.log(`${message.source} ${topic} ${text} lost=${lost}`);
  count += 1;
  if (count === Number(options.count)) break;
}
process.exit(0); // otherwise the threads of the socket keep the process alive
