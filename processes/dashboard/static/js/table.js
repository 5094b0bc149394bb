// The table of markets: sorting, filtering, and moving with the arrow keys.

import { age, commonDecimals, fixed, make, NONE, setText, signed, SILENT_S, stateClass } from "./format.js";

const decimals = new Map(); // by market: decimals of prices and sizes seen so far

/** Decimals of a market's prices and sizes; they only increase, so that columns stay aligned. */
export function decimalsFor(name, prices = [], sizes = []) {
  const known = decimals.get(name) ?? { price: 0, size: 0 };
  known.price = Math.max(known.price, commonDecimals(prices));
  known.size = Math.max(known.size, commonDecimals(sizes));
  decimals.set(name, known);
  return known;
}

const sign = (value) => (value > 0 ? "buy" : value < 0 ? "sell" : "");

const COLUMNS = [
  { key: "name", title: () => "Market", text: true, sort: (row) => row.name },
  { key: "state", title: () => "Book", text: true, sort: (row) => row.book.state },
  {
    key: "heard", title: () => "Heard", hint: "Seconds since the exchange was last heard on the connection of the book, and of the trades. A quiet connection is asked about once per second",
    sort: (row, model) => Math.max(...model.heardAgo(row)), show: (row, d, model) => heardCell(row, model),
  },
  {
    key: "price", title: () => "Price", hint: "Price of the last trade: green for a buy, red for a sell",
    sort: (row) => row.price,
    show: (row, d) => [fixed(row.price, d.price), { Buy: "buy", Sell: "sell" }[row.side] ?? ""],
  },
  {
    key: "spread", title: () => "Spread bps", hint: "Best ask minus best bid, in basis points of the mid price",
    sort: (row) => row.spread_bps, show: (row) => [fixed(row.spread_bps, 3), ""],
  },
  {
    key: "tpm", title: (model) => `TPM ${model.window}`, hint: "Trades per minute; underlined while the window is not fully observed yet",
    sort: (row) => row.tpm,
    show: (row) => [fixed(row.tpm, row.tpm < 100 ? 1 : 0), row.coverage_s < row.window_s ? "warming" : ""],
  },
  {
    key: "delta", title: (model) => `Δ vol ${model.window}`, hint: "Buy volume minus sell volume",
    sort: (row) => row.vol_delta, show: (row, d) => [signed(row.vol_delta, d.size), sign(row.vol_delta)],
  },
  {
    key: "imbalance", title: (model) => `Imb ${model.levels}`, hint: "(bid − ask) / (bid + ask), for the total size of the best levels",
    sort: (row) => row.imbalance, show: (row) => [signed(row.imbalance, 2), sign(row.imbalance)],
  },
  {
    key: "wall", title: () => "Nearest wall, bps", hint: "Side and price of the wall nearest to the mid price, and its distance in basis points",
    sort: (row) => row.wall?.distance_bps,
    show: (row, d) => [wallText(row, d), { bid: "buy", ask: "sell" }[row.wall?.side] ?? ""],
  },
];

const STATE = COLUMNS.findIndex((column) => column.key === "state");
const HEARD = COLUMNS.findIndex((column) => column.key === "heard");

function heardCell(row, model) {
  const ages = model.heardAgo(row);
  if (ages.every((seconds) => seconds === null)) return [NONE, ""];
  const isOld = Math.max(...ages) > SILENT_S || model.reportedAgo(row) > SILENT_S;
  return [ages.map((seconds) => age(seconds).replace(/ s$/, "")).join(" · "), isOld ? "old" : ""];
}

function setCell(cell, [text, className]) {
  setText(cell, text);
  if (cell.className !== className) cell.className = className;
}

function wallText(row, d) {
  if (!row.wall) return row.walls === 0 ? "no wall" : NONE;
  return `${row.wall.side} ${fixed(row.wall.price, d.price)} · ${fixed(row.wall.distance_bps, 1)}`;
}

export class MarketTable {
  constructor(model, onSelect) {
    this.model = model;
    this.onSelect = onSelect;
    this.sortKey = "name";
    this.isDescending = false;
    this.focused = "";
    this.rows = new Map();
    this.body = document.querySelector("#markets tbody");
    this.filter = document.querySelector("#filter");
    this.filter.addEventListener("input", () => this.render());
    this.filter.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") { event.preventDefault(); this.body.querySelector("tr[tabindex]")?.focus(); }
      if (event.key === "Escape") { this.filter.value = ""; this.render(); }
    });
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-name]");
      if (row) this.choose(row.dataset.name);
    });
    this.body.addEventListener("keydown", (event) => this.onKey(event));
    this.body.addEventListener("focusin", (event) => {
      const row = event.target.closest("tr[data-name]");
      if (row) this.moveTabStop(row.dataset.name);
    });
    this.heads = COLUMNS.map((column) => this.makeHead(column));
    document.querySelector("#markets thead tr").append(...this.heads);
  }

  makeHead(column) {
    const head = make("th", column.text ? "text" : "");
    head.scope = "col";
    const button = make("button");
    button.type = "button";
    if (column.hint) button.title = column.hint;
    button.addEventListener("click", () => {
      this.isDescending = this.sortKey === column.key ? !this.isDescending : !column.text;
      this.sortKey = column.key;
      this.render();
    });
    head.append(button);
    return head;
  }

  onKey(event) {
    const names = [...this.body.querySelectorAll("tr[data-name]")].map((row) => row.dataset.name);
    const at = names.indexOf(event.target.closest("tr")?.dataset.name);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: names.length - 1 }[event.key];
    if (to !== undefined && names[to]) {
      event.preventDefault();
      this.rows.get(names[to]).element.focus();
    } else if ((event.key === "Enter" || event.key === " ") && at >= 0) {
      event.preventDefault();
      this.choose(names[at]);
    }
  }

  choose(name) {
    this.moveTabStop(name);
    this.onSelect(name);
  }

  /** Only the row that had the focus last can be reached with the Tab key. */
  moveTabStop(name) {
    this.focused = name;
    for (const [other, row] of this.rows) row.element.tabIndex = other === name ? 0 : -1;
  }

  sorted() {
    const wanted = this.filter.value.trim().toUpperCase();
    const rows = [...this.model.rows.values()].filter((row) => row.name.toUpperCase().includes(wanted));
    const { sort } = COLUMNS.find((column) => column.key === this.sortKey);
    const way = this.isDescending ? -1 : 1;
    return rows.sort((a, b) => {
      const [x, y] = [sort(a, this.model) ?? null, sort(b, this.model) ?? null];
      if (x === null || y === null) return (x === null) - (y === null) || (a.name < b.name ? -1 : 1);
      return x === y ? (a.name < b.name ? -1 : 1) : (x < y ? -1 : 1) * way;
    });
  }

  render() {
    COLUMNS.forEach((column, index) => {
      setText(this.heads[index].firstChild, column.title(this.model));
      if (column.key === this.sortKey) this.heads[index].ariaSort = this.isDescending ? "descending" : "ascending";
      else this.heads[index].removeAttribute("aria-sort");
    });
    const shown = this.sorted();
    const names = new Set(shown.map((row) => row.name));
    for (const [name, row] of this.rows) if (!names.has(name)) { row.element.remove(); this.rows.delete(name); }
    shown.forEach((row, index) => {
      const element = this.renderRow(row);
      if (this.body.children[index] !== element) {
        const hadFocus = document.activeElement === element;
        this.body.insertBefore(element, this.body.children[index] ?? null);
        if (hadFocus) element.focus();
      }
    });
    if (!names.has(this.focused) && shown.length) this.moveTabStop(names.has(this.model.selected) ? this.model.selected : shown[0].name);
    this.scrollToSelected();
    this.renderEmpty(shown.length);
    const all = this.model.rows.size;
    setText(document.querySelector("#markets-count"), shown.length === all ? `${all}` : `${shown.length} of ${all}`);
  }

  /** Once, when another market is selected: the address may name one far down. */
  scrollToSelected() {
    const row = this.rows.get(this.model.selected);
    if (!row || this.scrolledTo === this.model.selected) return;
    this.scrolledTo = this.model.selected;
    row.element.scrollIntoView({ block: "nearest" });
  }

  /** Ages increase between updates. */
  renderAges() {
    for (const [name, { cells }] of this.rows) setCell(cells[HEARD], heardCell(this.model.rows.get(name), this.model));
  }

  renderEmpty(count) {
    this.empty?.remove();
    if (count) return;
    this.empty = make("tr");
    const cell = make("td", "empty", this.model.rows.size ? "No market matches the filter." : "No markets yet.");
    cell.colSpan = COLUMNS.length;
    this.empty.append(cell);
    this.body.append(this.empty);
  }

  renderRow(row) {
    let made = this.rows.get(row.name);
    if (!made) this.rows.set(row.name, (made = this.makeRow(row)));
    const { element, cells } = made;
    const d = decimalsFor(row.name, [row.price, row.best_bid, row.best_ask, row.wall?.price], [row.wall?.size, row.volume]);
    COLUMNS.forEach((column, index) => {
      if (column.show) setCell(cells[index], column.show(row, d, this.model));
    });
    const state = cells[STATE].firstChild;
    const { book, trades } = row;
    const stale = book.state === "live" && ["stale", "silent"].includes(trades.state) ? `trades ${trades.state}` : "";
    const isRejected = book.reason === "rejected";
    setText(state, stale || (isRejected ? "rejected" : [book.state, book.reason].filter(Boolean).join(": ")));
    state.title = state.textContent;
    state.className = stateClass(stale ? "stale" : isRejected ? "rejected" : book.state);
    element.dataset.bookEpoch = book.epoch ?? "";
    element.dataset.bookSeq = book.seq ?? "";
    element.dataset.tradesEpoch = trades.epoch ?? "";
    element.dataset.tradesSeq = trades.seq ?? "";
    element.ariaSelected = String(row.name === this.model.selected);
    return element;
  }

  makeRow(row) {
    const element = make("tr");
    element.dataset.name = row.name;
    element.tabIndex = row.name === this.focused ? 0 : -1;
    const cells = COLUMNS.map((column) => {
      const cell = make("td", column.text ? "text" : "");
      cell.dataset.column = column.key;
      return cell;
    });
    cells[0].className = "text name";
    cells[0].append(row.symbol, make("small", "", row.category));
    cells[STATE].append(make("span", "state"));
    element.append(...cells);
    return { element, cells };
  }
}
