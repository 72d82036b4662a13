/* The server, live: read from /metrics every two seconds while anybody looks. */
import { explain } from "./errors.js";
import { getText } from "./api.js";
import { button, el, svg } from "./dom.js";
import { parseMetrics } from "./metrics.js";
import { count } from "./numbers.js";
import { figures, rates } from "./panel-figures.js";

const EVERY_MS = 2000;
const WINDOW = 30; /* scrapes: a minute */

function sparkline(values) {
  const top = Math.max(...values, 1);
  const x = (i) => (100 * i) / (WINDOW - 1);
  const y = (v) => 29 - (27 * v) / top;
  const from = WINDOW - values.length;
  const points = values.map((v, i) => `${x(from + i).toFixed(1)},${y(v).toFixed(1)}`);
  const area = `${x(from)},30 ${points.join(" ")} 100,30`;
  return svg(
    "svg",
    { viewBox: "0 0 100 30", preserveAspectRatio: "none", class: "spark", role: "img", "aria-label": `Tokens a second in the last minute, at most ${count(top)}` },
    svg("polygon", { points: area, class: "area" }),
    svg("polyline", { points: points.join(" "), class: "line" }),
  );
}

export class Panel {
  #body = el("div", { class: "live" });
  #scrapes = []; /* {at, samples, rate} */
  #timer = 0;
  #section;

  constructor(section, onclose) {
    this.#section = section;
    section.append(
      el("header", {}, el("h2", { id: "server-title" }, "Server"), button("close", "Close", onclose, { class: "quiet narrow-only" })),
      this.#body,
    );
    document.addEventListener("visibilitychange", () => this.wake());
  }

  /* Called whenever the panel may have become visible. */
  wake() {
    clearTimeout(this.#timer);
    if (!this.#section.hidden && !document.hidden) {
      this.#tick();
    }
  }

  async #tick() {
    clearTimeout(this.#timer);
    try {
      this.#add(parseMetrics(await getText("/metrics")));
      this.#show();
    } catch (error) {
      const { title, todo } = explain(error);
      this.#scrapes = [];
      this.#body.replaceChildren(el("p", { class: "empty" }, `${title}. ${todo}`));
    }
    clearTimeout(this.#timer);
    if (!this.#section.hidden && !document.hidden) {
      this.#timer = setTimeout(() => this.#tick(), EVERY_MS);
    }
  }

  #add(samples) {
    const at = performance.now();
    const last = this.#scrapes.at(-1);
    const rate = rates(last?.samples, samples, last ? (at - last.at) / 1000 : 0);
    this.#scrapes.push({ at, samples, rate });
    this.#scrapes.splice(0, this.#scrapes.length - WINDOW);
  }

  #show() {
    const now = this.#scrapes.at(-1);
    const list = figures(this.#scrapes[0].samples, now.samples, now.rate);
    this.#body.replaceChildren(
      sparkline(this.#scrapes.map((s) => s.rate.answer + s.rate.prompt)),
      el("p", { class: "caption" }, "Rows and tokens a second, last minute"),
      el(
        "dl",
        { class: "figures" },
        list.map(([name, value, more]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("b", {}, value), el("small", {}, more)))),
      ),
    );
  }
}
