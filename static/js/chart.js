// The loss chart of a job: raw curve faint, smoothed curve strong, held-out rows as points; a second panel shares the cursor.

import { colour } from "./shared/theme.js";

const HEIGHT = 260;
const SECOND_HEIGHT = 150;
const WHOLE_STEPS = [1, 2, 5].flatMap((one) => Array.from({ length: 7 }, (_, power) => one * 10 ** power)).sort((a, b) => a - b);

/** Exponential moving average, without the pull of its start towards zero. */
export function smoothed(values, weight) {
  let mean = 0;
  let share = 0;
  return values.map((value) => {
    mean = weight * mean + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return mean / share;
  });
}

/** Columns of progress and evaluation; a step that comes again (after a resume) replaces what lay beyond it. */
export class Curves {
  constructor(data) {
    Object.assign(this, data);
  }

  addProgress(event) {
    this.#forget(["steps", "loss", "learning_rate", "grad_norm"], event.step);
    this.steps.push(event.step);
    this.loss.push(event.loss);
    this.learning_rate.push(event.learning_rate);
    this.grad_norm.push(event.grad_norm);
  }

  addEvaluation(event) {
    this.#forget(["eval_steps", "eval_loss"], event.step);
    this.eval_steps.push(event.step);
    this.eval_loss.push(event.loss);
  }

  #forget(columns, step) {
    let keep = this[columns[0]].length;
    while (keep && this[columns[0]][keep - 1] >= step) keep -= 1;
    for (const column of columns) this[column].length = keep;
  }
}

export class Chart {
  #plots = [];
  #due = false;

  constructor(curves, { main, second, smoothing, more, empty, controls }) {
    Object.assign(this, { curves, main, second, smoothing, more, empty, controls });
    smoothing.addEventListener("input", () => this.update());
    more.addEventListener("change", () => this.#build());
    document.addEventListener("themechange", () => this.#build());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#build());
    new ResizeObserver(() => this.#resize()).observe(main);
    this.#build();
  }

  /** Redraw soon; many events in a moment make one drawing. */
  update() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.empty.hidden = this.curves.steps.length > 0;
      this.controls.hidden = !this.empty.hidden;
      this.main.hidden = !this.#hasPoints();
      if (!this.#plots.length && this.#hasPoints()) return this.#build();
      this.#columns().forEach((columns, index) => this.#plots[index]?.setData(columns));
      this.#describe();
    });
  }

  #hasPoints() {
    return this.curves.steps.length + this.curves.eval_steps.length > 0;
  }

  /** What the drawing says, for those who do not see it. */
  #describe() {
    const { steps, loss } = this.curves;
    if (!steps.length) return;
    const said = `Loss of the training and of held-out rows: ${loss.at(-1).toFixed(4)} at step ${steps.at(-1)}`;
    this.main.setAttribute("aria-label", said);
  }

  #columns() {
    const { steps, loss, eval_steps, eval_loss, learning_rate, grad_norm } = this.curves;
    const curve = smoothed(loss, Number(this.smoothing.value));
    return [
      window.uPlot.join([[steps, loss, curve], [eval_steps, eval_loss]]),
      [steps, learning_rate, grad_norm],
    ];
  }

  #build() {
    for (const plot of this.#plots) plot.destroy();
    this.#plots = [];
    this.second.hidden = !this.more.checked || !this.curves.steps.length;
    if (!this.#hasPoints()) return;
    this.#describe();
    const [first, second] = this.#columns();
    this.#plots.push(new window.uPlot(this.#options(HEIGHT, this.#lossSeries()), first, this.main));
    if (!this.second.hidden) {
      this.#plots.push(new window.uPlot(this.#options(SECOND_HEIGHT, this.#rateSeries(), true), second, this.second));
    }
  }

  #resize() {
    const width = this.main.clientWidth;
    for (const plot of this.#plots) if (width && plot.width !== width) plot.setSize({ width, height: plot.height });
  }

  #lossSeries() {
    const accent = colour("--accent");
    return [
      { label: "loss of a step", stroke: colour("--edge"), width: 1, points: { show: false }, spanGaps: true, value: figures },
      { label: "smoothed", stroke: accent, width: 2, points: { show: false }, spanGaps: true, value: figures },
      { label: "held out", stroke: colour("--warn"), width: 1.5, dash: [4, 4], spanGaps: true,
        points: { show: true, size: 7, fill: colour("--warn") }, value: figures },
    ];
  }

  #rateSeries() {
    return [
      { label: "learning rate", stroke: colour("--accent"), width: 1.5, points: { show: false }, scale: "y",
        value: (plot, value) => (value == null ? "–" : value.toExponential(2)) },
      { label: "gradient norm", stroke: colour("--good"), width: 1.5, points: { show: false }, scale: "norm", value: figures },
    ];
  }

  #options(height, series, two = false) {
    const ink = colour("--ink-2");
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: ink, grid, ticks: grid, font: "11px JetBrains Mono, monospace" };
    const axes = [{ ...axis, incrs: WHOLE_STEPS }, { ...axis, size: 60, values: two ? (plot, ticks) => ticks.map(short) : undefined }];
    if (two) axes.push({ ...axis, scale: "norm", side: 1, grid: { show: false } });
    return {
      width: this.main.clientWidth || 600,
      height,
      scales: { x: { time: false } },
      cursor: { sync: { key: "job" }, drag: { x: true, y: false } },
      series: [{ label: "step", value: (plot, value) => value ?? "–" }, ...series],
      axes,
      hooks: { setCursor: [showNewest], setData: [showNewest], ready: [showNewest] },
    };
  }
}

/** While no step is pointed at, the legend tells the newest. */
function showNewest(plot) {
  if (plot.cursor.idx == null) plot.setLegend({ idx: plot.data[0].length - 1 }, false);
}

function figures(plot, value) {
  return value == null ? "–" : value.toFixed(4);
}

function short(value) {
  return value === 0 ? "0" : value.toExponential(0);
}
