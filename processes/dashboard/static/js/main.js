// Entry point: applies updates to the model and renders the model.

import { Charts } from "./charts.js";
import { duration, make, setText, timeOfDay } from "./format.js";
import { renderAges, renderMarket } from "./market.js";
import { Model } from "./model.js";
import { renderCompleteness, renderEvents, renderGaps, renderProcesses } from "./panels.js";
import { Stream } from "./stream.js";
import { MarketTable } from "./table.js";

const CLOCK_MS = 500;
const BADGES = {
  live: "LIVE", sim: "SIMULATED · NOT REAL PRICES", replay: "REPLAY · RECORDED DATA", stale: "STALE", paused: "PAUSED", none: "NO DATA YET",
  waiting: "NO LIVE DATA YET", offline: "NO CONNECTION",
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

/** Show a market and put its name into the address, so that it can be bookmarked. */
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
  renderCompleteness(model);
  renderEvents(model);
  document.body.dataset.version = String(Number(document.body.dataset.version ?? 0) + 1);
}

function renderHead() {
  const { pipeline, metrics, source, connection } = model;
  document.body.dataset.source = source;
  document.body.dataset.connection = connection;
  document.body.dataset.metrics = metrics.state;
  setText($("source"), connection === "connecting" ? "CONNECTING" : BADGES[source] ?? pipeline.feed.host);
  const row = model.rows.get(model.selected);
  const price = $("symbol-price").textContent;
  if (connection === "paused") document.title = "paused · bybit-pipeline";
  else document.title = row ? `${price} ${row.symbol}${source === "live" ? "" : ` · ${source.toUpperCase()}`}` : "bybit-pipeline";
  renderReady(pipeline);
  setText($("facts"), pipeline.version ? [`v${pipeline.version}`, source === "live" ? pipeline.network : ""].filter(Boolean).join(" · ") : "");
  const banner = $("banner");
  const warning = warningText();
  banner.hidden = !warning;
  setText(banner, warning);
}

function renderReady(pipeline) {
  const isKnown = typeof pipeline.ready === "boolean";
  $("ready").dataset.ready = isKnown ? (pipeline.ready ? "yes" : "no") : "unknown";
  setText($("ready-text"), isKnown ? (pipeline.ready ? "Ready" : `Not ready: ${pipeline.reasons.length}`) : "Readiness unknown");
  const reasons = isKnown ? (pipeline.ready ? ["Every process is up, every topic is delivering and every book is live."] : pipeline.reasons) : ["No status received from the pipeline."];
  const list = $("ready-reasons");
  if (list.textContent !== reasons.join("")) list.replaceChildren(...reasons.map((reason) => make("li", "", reason)));
}

function warningText() {
  if (model.connection === "lost") {
    return `${model.lostReason} at ${timeOfDay(model.lostSinceMs)}. Numbers are hidden. Retrying …`;
  }
  if (model.metrics.state === "lost") return `The metrics socket was lost at ${timeOfDay(model.metrics.since_ms)}. Numbers are hidden until it is back.`;
  if (model.metrics.state === "silent") return `No metrics since ${timeOfDay(model.metrics.since_ms)}. Numbers are hidden.`;
  return "";
}

/** A hidden page has no stream, and shows no old numbers when it becomes visible again. */
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
  const silentS = model.connection === "paused" || model.receivedAt === undefined ? null : (performance.now() - model.receivedAt) / 1000;
  setText($("age"), silentS === null || silentS < 1.5 ? "" : `last update ${duration(silentS)} ago`);
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
