// The selected market: heading, order book, trade windows and walls.

import { age, duration, fixed, make, NONE, percent, setText, signed, SILENT_S, stateClass } from "./format.js";
import { decimalsFor } from "./table.js";

const $ = (id) => document.getElementById(id);

const MEASURES = [
  ["Trades", (w) => fixed(w.trades, 0)],
  ["Trades per minute", (w) => fixed(w.tpm, 1)],
  ["Volume", (w, d) => fixed(w.volume, d.size)],
  ["Bought", (w, d) => fixed(w.buy_volume, d.size), "buy"],
  ["Sold", (w, d) => fixed(w.sell_volume, d.size), "sell"],
  ["Δ volume", (w, d) => signed(w.vol_delta, d.size), (w) => (w.vol_delta > 0 ? "buy" : w.vol_delta < 0 ? "sell" : "")],
  ["Buy share", (w) => percent(w.buy_share)],
  ["VWAP", (w, d) => fixed(w.vwap, d.price)],
  ["High", (w, d) => fixed(w.high, d.price)],
  ["Low", (w, d) => fixed(w.low, d.price)],
  ["Covered", (w) => duration(w.coverage_s)],
];

export function renderMarket(model) {
  const row = model.rows.get(model.selected);
  const { book, trades } = model;
  const d = decimalsFor(
    model.selected,
    [trades?.last_price, ...levels(book).map(([price]) => price)],
    [trades?.last_size, ...levels(book).map(([, size]) => size)],
  );
  renderHead(model, row, d);
  renderAges(model);
  renderLadder(model, row, d);
  renderWindows(model, row, d);
  renderWalls(model, row, d);
}

const levels = (book) => [...(book?.bids ?? []), ...(book?.asks ?? [])];

function renderHead(model, row, d) {
  const { book, trades } = model;
  const title = $("symbol-title");
  const name = row ? `${row.symbol} ${row.category}` : "No market selected";
  if (title.dataset.name !== name) {
    title.dataset.name = name;
    title.replaceChildren(row?.symbol ?? name, make("span", "dim", row ? ` ${row.category}` : ""));
  }
  const state = $("symbol-state");
  state.className = stateClass(row?.book.reason === "rejected" ? "rejected" : row?.book.state);
  setText(state, row ? [`book ${row.book.state}`, row.book.reason].filter(Boolean).join(": ") : "");
  const side = { Buy: "buy", Sell: "sell" }[trades?.last_side] ?? "";
  $("symbol-price").className = side;
  setText($("symbol-price"), fixed(trades?.last_price, d.price));
  setText($("symbol-side"), trades?.last_price == null ? "" : `${trades.last_side} ${fixed(trades.last_size, d.size)}`);
  facts([
    ["Mid", fixed(book?.mid_price, d.price + 1)],
    ["Spread", book?.spread == null ? NONE : `${fixed(book.spread, d.price)} · ${fixed(book.spread_bps, 3)} bps`],
    [`Imbalance ${model.levels}`, signed(book?.imbalance?.[model.levels], 2)],
    ["CVD", signed(trades?.cvd, d.size)],
    ["Trades/s", fixed(trades?.tps, 1)],
  ]);
}

/** How long ago the pipeline reported on the market, and how long ago something changed in it. */
export function renderAges(model) {
  const row = model.rows.get(model.selected);
  const ago = (what, seconds) => (seconds === null ? "" : `${what} ${age(seconds)} ago`);
  const reported = row ? model.reportedAgo(row) : null;
  const [book, trades] = row ? model.heardAgo(row) : [null, null];
  setText($("symbol-heard"), [ago("book heard", book), ago("trades heard", trades)].filter(Boolean).join(" · "));
  $("symbol-heard").className = Math.max(book, trades) > SILENT_S ? "old" : "";
  const texts = row ? [ago("book changed", model.ago(row.book.changed_ms)), ago("last trade", model.ago(row.trades.changed_ms))] : [];
  setText($("symbol-updated"), ago("updated", reported));
  $("symbol-updated").className = reported > SILENT_S ? "old" : "";
  setText($("symbol-changed"), texts.filter(Boolean).join(" · "));
}

function facts(pairs) {
  const list = $("symbol-facts");
  while (list.children.length < pairs.length) {
    const pair = make("div");
    pair.append(make("dt"), make("dd"));
    list.append(pair);
  }
  pairs.forEach(([term, text], index) => {
    setText(list.children[index].firstChild, term);
    setText(list.children[index].lastChild, text);
  });
}

// -- the order book ---------------------------------------------------------------------------

function renderLadder(model, row, d) {
  const { book } = model;
  const isLive = book?.state === "live";
  const ladder = $("ladder");
  ladder.dataset.epoch = book?.epoch ?? "";
  ladder.dataset.seq = book?.seq ?? "";
  setText($("ladder-note"), isLive || !row ? "" : `no numbers: the book is ${row.book.state}`);
  const bids = isLive ? book.bids : [];
  const asks = isLive ? book.asks : [];
  const largest = Math.max(...levels({ bids, asks }).map(([, size]) => size), 0);
  const walls = new Map((book?.densities ?? []).map((wall) => [`${wall.side} ${wall.price}`, wall]));
  fillSide($("asks"), "ask", asks, walls, largest, d);
  fillSide($("bids"), "bid", bids, walls, largest, d);
  setText($("spread-row").firstChild, isLive ? `spread ${fixed(book.spread, d.price)}` : NONE);
}

function fillSide(body, side, pairs, walls, largest, d) {
  let total = 0;
  const rows = pairs.map(([price, size]) => [price, size, (total += size)]);
  if (side === "ask") rows.reverse();
  fit(body, rows.length, 3);
  rows.forEach(([price, size, sum], index) => {
    const row = body.children[index];
    const wall = walls.get(`${side} ${price}`);
    row.style.setProperty("--fill", largest ? `${((100 * size) / largest).toFixed(1)}%` : "0%");
    row.classList.toggle("wall", Boolean(wall));
    if (wall) row.title = `Wall: ${fixed(wall.strength, 1)} times the median level size, ${duration(wall.age_ms / 1000)} old`;
    else row.removeAttribute("title");
    setText(row.children[0], fixed(price, d.price));
    setText(row.children[1], fixed(size, d.size));
    setText(row.children[2], fixed(sum, d.size));
  });
}

/** Add or remove rows until there are `rows`, each with `cells` cells. */
function fit(body, rows, cells) {
  while (body.children.length > rows) body.lastChild.remove();
  while (body.children.length < rows) {
    const row = make("tr");
    for (let index = 0; index < cells; index += 1) row.append(make("td"));
    body.append(row);
  }
}

// -- windows and walls ------------------------------------------------------------------------

function renderWindows(model, row, d) {
  const { trades } = model;
  const names = Object.keys(trades?.windows ?? {});
  const table = $("windows");
  table.dataset.epoch = trades?.epoch ?? "";
  table.dataset.seq = trades?.seq ?? "";
  const note = { warming: "windows not fully observed yet", live: "" }[row?.trades.state];
  setText($("windows-note"), row ? note ?? `no numbers: the trades are ${row.trades.state}` : "");
  const key = names.join(" ");
  if (table.dataset.windows !== key) {
    table.dataset.windows = key;
    const heads = ["", ...names].map((name) => { const head = make("th", "", name); head.scope = "col"; return head; });
    table.tHead.rows[0].replaceChildren(...heads);
    table.tBodies[0].replaceChildren(...MEASURES.map(([title]) => {
      const line = make("tr");
      const head = make("th", "", title);
      head.scope = "row";
      line.append(head, ...names.map(() => make("td")));
      return line;
    }));
  }
  MEASURES.forEach(([, show, style], index) => {
    names.forEach((name, column) => {
      const cell = table.tBodies[0].rows[index].cells[column + 1];
      const window = trades.windows[name];
      setText(cell, show(window, d));
      cell.className = typeof style === "function" ? style(window) : style ?? "";
    });
  });
}

function renderWalls(model, row, d) {
  const { book } = model;
  const walls = book?.state === "live" ? book.densities : [];
  const sorted = [...walls].sort((a, b) => b.price - a.price);
  const body = $("walls").tBodies[0];
  fit(body, sorted.length, 7);
  $("walls").tHead.hidden = !sorted.length;
  setText($("walls-note"), book?.state !== "live" ? (row ? "unknown" : "") : walls.length ? "" : "none in range");
  sorted.forEach((wall, index) => {
    const texts = [wall.side, fixed(wall.price, d.price), fixed(wall.size, d.size), fixed(wall.distance_bps, 1),
      fixed(wall.strength, 1), duration(wall.age_ms / 1000), percent(wall.eaten_ratio)];
    texts.forEach((text, column) => setText(body.rows[index].cells[column], text));
    body.rows[index].cells[0].className = wall.side === "bid" ? "buy" : "sell";
  });
}
