// Puts the page together: updates into the model, the model onto the page.

import { Charts } from "./charts.js";
import { duration, make, setText, timeOfDay } from "./format.js";
import { renderAges, renderMarket } from "./market.js";
import { Model } from "./model.js";
import { renderEvents, renderGaps, renderProcesses } from "./panels.js";
import { Stream } from "./stream.js";
import { MarketTable } from "./table.js";

const CLOCK_MS = 500;
const BADGES = {
  live: "LIVE", sim: "SIMULATED · NOT REAL PRICES", replay: "REPLAY · RECORDED DATA", stale: "STALE", paused: "PAUSED", none: "NO DATA YET",
};
const $ = (id) => document.getElementById(id);

const model = new Model();
const stream = new Stream(onUpdate, onLost);
const table = new MarketTable(model, select);
const charts = new Charts(model);

function onUpdate(update) {
  model.apply(update);
  if (!model.selected && model.rows.size) {
    select(table.sorted()[0].name);
    return;
  }
  render();
}

function onLost(reason) {
  model.lose(reason);
  render();
}

/** Show a market; the address says which, so that it can be kept and sent. */
function select(name) {
  if (name === model.selected) return;
  model.select(name);
  history.replaceState(null, "", `#${name}`);
  stream.open(name);
  render();
}

function render() {
  renderHead();
  table.render();
  renderMarket(model);
  charts.render();
  renderProcesses(model);
  renderGaps(model);
  renderEvents(model);
  document.body.dataset.version = String(Number(document.body.dataset.version ?? 0) + 1);
}

function renderHead() {
  const { pipeline, feed, source, connection } = model;
  document.body.dataset.source = source;
  document.body.dataset.connection = connection;
  document.body.dataset.feed = feed.state;
  setText($("source"), connection === "connecting" ? "CONNECTING" : BADGES[source]);
  const row = model.rows.get(model.selected);
  const price = $("symbol-price").textContent;
  if (connection === "paused") document.title = "paused · bybit-pipeline";
  else document.title = row ? `${price} ${row.symbol}${source === "live" ? "" : ` · ${source.toUpperCase()}`}` : "bybit-pipeline";
  renderReady(pipeline);
  setText($("facts"), pipeline.version ? [`v${pipeline.version}`, source === "live" ? pipeline.network : ""].filter(Boolean).join(" · ") : "");
  const banner = $("banner");
  const trouble = troubleText();
  banner.hidden = !trouble;
  setText(banner, trouble);
}

function renderReady(pipeline) {
  const isKnown = typeof pipeline.ready === "boolean";
  $("ready").dataset.ready = isKnown ? (pipeline.ready ? "yes" : "no") : "unknown";
  setText($("ready-text"), isKnown ? (pipeline.ready ? "Ready" : `Not ready: ${pipeline.reasons.length}`) : "Readiness unknown");
  const reasons = isKnown ? (pipeline.ready ? ["Every process is up, every topic served, every book live."] : pipeline.reasons) : ["Nothing is heard of the pipeline."];
  const list = $("ready-reasons");
  if (list.textContent !== reasons.join("")) list.replaceChildren(...reasons.map((reason) => make("li", "", reason)));
}

function troubleText() {
  if (model.connection === "lost") {
    return `${model.lostReason}, since ${timeOfDay(model.lostSinceMs)}. Numbers are hidden; trying again.`;
  }
  if (model.feed.state === "lost") return `The metrics socket is gone since ${timeOfDay(model.feed.since_ms)}. Numbers are hidden until it is back.`;
  if (model.feed.state === "silent") return `No metrics arrive since ${timeOfDay(model.feed.since_ms)}. Numbers are hidden.`;
  return "";
}

/** A page that nobody sees costs the pipeline nothing, and shows nothing old when it is seen again. */
function onVisibility() {
  if (document.hidden) {
    stream.pause();
    model.lose("", "paused");
    render();
  } else {
    stream.resume();
  }
}

setInterval(() => {
  setText($("time"), timeOfDay(Date.now()));
  table.renderAges();
  renderAges(model);
  const silent = model.connection === "paused" || model.heardAt === undefined ? null : (performance.now() - model.heardAt) / 1000;
  setText($("age"), silent === null || silent < 1.5 ? "" : `last update ${duration(silent)} ago`);
}, CLOCK_MS);

document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement && event.target.type === "search";
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    $("filter").focus();
  }
  if (event.key === "Escape") $("ready").open = false;
});
$("only-selected").addEventListener("change", () => renderEvents(model));
document.addEventListener("visibilitychange", onVisibility);
addEventListener("hashchange", () => select(decodeURIComponent(location.hash.slice(1))));

model.selected = decodeURIComponent(location.hash.slice(1));
renderHead();
stream.open(model.selected);
if (document.hidden) onVisibility();
