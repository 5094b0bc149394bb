// Charts of the selected market: mid price with trades, volume delta, imbalance. Drawn by uPlot.

import { fixed, NONE, signed } from "./format.js";
import { decimalsFor } from "./table.js";

const { uPlot } = window;
const colours = () => getComputedStyle(document.documentElement);
const colour = (name) => colours().getPropertyValue(`--${name}`).trim();
const STEPS = [];
for (let power = -10; power <= 12; power += 1) for (const digit of [1, 2, 5]) STEPS.push(Number(`${digit}e${power}`));
const AXIS_FONT = '11px ui-monospace, "DejaVu Sans Mono", monospace';

export class Charts {
  constructor(model) {
    this.model = model;
    this.spanS = 300;
    const sync = { key: "market" };
    const price = {
      format: (value) => fixed(value, this.decimals.price),
      series: [{ label: "mid", stroke: () => colour("accent"), width: 1.5, points: { show: false } }],
      range: () => this.priceRange(),
      draw: (plot) => this.drawTrades(plot),
    };
    const bars = uPlot.paths.bars({ size: [0.9, 100] });
    const delta = {
      format: (value) => compact(value),
      series: [
        { label: "buyers", fill: () => colour("buy"), stroke: () => colour("buy"), width: 0, paths: bars, points: { show: false } },
        { label: "sellers", fill: () => colour("sell"), stroke: () => colour("sell"), width: 0, paths: bars, points: { show: false } },
      ],
      range: () => this.aroundZero(2),
    };
    const imbalance = {
      format: (value) => signed(value, 1),
      series: delta.series.map((series) => ({ ...series })),
      range: () => [-1, 1],
    };
    this.plots = [
      this.make("chart-price", price, sync, false),
      this.make("chart-delta", delta, sync, false),
      this.make("chart-imbalance", imbalance, sync, true),
    ];
    for (const input of document.querySelectorAll("input[name=span]")) {
      input.addEventListener("change", () => { this.spanS = Number(input.value); this.render(); });
    }
    const observer = new ResizeObserver(() => this.resize());
    this.plots.forEach((plot) => observer.observe(plot.root.parentElement));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plots.forEach((plot) => plot.redraw(false)));
  }

  get decimals() {
    return decimalsFor(this.model.selected);
  }

  make(id, { format, series, range, draw }, sync, hasTime) {
    const box = document.getElementById(id);
    const axis = { stroke: () => colour("dim"), font: AXIS_FONT, grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false } };
    const times = (plot, values, index, space, step) => values.map((value) => new Date(value * 1000).toLocaleTimeString("en-GB").slice(0, step < 60 ? 8 : 5));
    const options = {
      width: box.clientWidth || 300,
      height: box.clientHeight,
      padding: [8, 8, hasTime ? 0 : 4, 12],
      cursor: { sync, y: false, points: { size: 5 }, drag: { x: false, y: false } },
      legend: { show: false },
      scales: { x: { time: true, range: () => this.timeRange() }, y: { range } },
      axes: [
        { ...axis, show: true, size: hasTime ? 22 : 4, values: hasTime ? times : () => [], incrs: [10, 15, 30, 60, 120, 300], space: 90 },
        { ...axis, side: 1, size: 68, incrs: STEPS, values: (plot, values) => values.map(format), space: box.clientHeight < 150 ? 14 : 20 },
      ],
      series: [{}, ...series],
      hooks: { draw: draw ? [draw] : [] },
    };
    return new uPlot(options, [[], ...series.map(() => [])], box);
  }

  timeRange() {
    const end = this.model.nowMs / 1000;
    return [end - this.spanS, end];
  }

  priceRange() {
    const [start] = this.timeRange();
    const values = [
      ...this.model.points.filter(([ms, mid]) => ms / 1000 >= start && mid !== null).map(([, mid]) => mid),
      ...this.model.chartTrades.filter(([ms]) => ms / 1000 >= start).map(([, price]) => price),
    ];
    if (!values.length) return [0, 1];
    const low = Math.min(...values);
    const high = Math.max(...values);
    const margin = (high - low) * 0.06 || high * 1e-5 || 1;
    return [low - margin, high + margin];
  }

  aroundZero(column) {
    const [start] = this.timeRange();
    const largest = Math.max(0, ...this.model.points.filter(([ms]) => ms / 1000 >= start).map((point) => Math.abs(point[column] ?? 0)));
    return largest ? [-largest * 1.1, largest * 1.1] : [-1, 1];
  }

  drawTrades(plot) {
    const { ctx } = plot;
    const [start] = this.timeRange();
    const trades = this.model.chartTrades.filter(([ms]) => ms / 1000 >= start);
    const largest = Math.max(...trades.map(([, , size]) => size), 0);
    ctx.save();
    ctx.beginPath();
    ctx.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
    ctx.clip();
    ctx.globalAlpha = 0.7;
    for (const isBuy of [true, false]) {
      ctx.fillStyle = colour(isBuy ? "buy" : "sell");
      for (const [ms, price, size, side] of trades) {
        if (side !== isBuy) continue;
        const radius = (1.3 + 3.2 * Math.sqrt(size / largest)) * devicePixelRatio;
        ctx.beginPath();
        ctx.arc(plot.valToPos(ms / 1000, "x", true), plot.valToPos(price, "y", true), radius, 0, 2 * Math.PI);
        ctx.fill();
      }
    }
    ctx.restore();
  }

  resize() {
    for (const plot of this.plots) {
      const box = plot.root.parentElement;
      if (box.clientWidth !== plot.width) plot.setSize({ width: box.clientWidth, height: box.clientHeight });
    }
  }

  render() {
    const { points, levels, window: name } = this.model;
    const times = points.map(([ms]) => ms / 1000);
    const part = (column, way) => points.map((point) => (point[column] === null ? null : way * point[column] >= 0 ? point[column] : 0));
    this.plots[0].setData([times, points.map(([, mid]) => mid)]);
    this.plots[1].setData([times, part(2, 1), part(2, -1)]);
    this.plots[2].setData([times, part(3, 1), part(3, -1)]);
    document.getElementById("caption-delta").textContent = `Volume delta, ${name}`;
    document.getElementById("caption-imbalance").textContent = `Imbalance, ${levels} levels`;
    this.describe();
  }

  /** Describe the charts in words, for screen readers. */
  describe() {
    const [start] = this.timeRange();
    const shown = this.model.points.filter(([ms]) => ms / 1000 >= start);
    const range = (column, format) => {
      const values = shown.map((point) => point[column]).filter((value) => value !== null);
      if (!values.length) return "no data";
      const now = shown.at(-1)[column];
      return `from ${format(Math.min(...values))} to ${format(Math.max(...values))}, now ${now === null ? NONE : format(now)}`;
    };
    const span = `over ${this.spanS / 60} min`;
    const { price, size } = this.decimals;
    const labels = [
      `Mid price ${span}: ${range(1, (value) => fixed(value, price))}`,
      `Volume delta ${span}: ${range(2, (value) => signed(value, size))}`,
      `Imbalance ${span}: ${range(3, (value) => signed(value, 2))}`,
    ];
    this.plots.forEach((plot, index) => { plot.root.parentElement.ariaLabel = labels[index]; });
  }
}

const compactFormat = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const compact = (value) => compactFormat.format(value);
