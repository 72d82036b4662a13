/* One picture, large: its own slider, and the group under the pointer pointed out. */
import { button, byId, el } from "./dom.js";
import { explain } from "./errors.js";
import { count } from "./numbers.js";
import { drawPicture, groupAt } from "./overlay.js";
import { ratioSlider } from "./packing.js";
import { requestKey } from "./preview.js";

const MAX_WIDTH = 720;

export class Viewer {
  #dialog = byId("viewer");
  #canvas = el("canvas", { role: "img", tabindex: "0" });
  #chosen = -1;
  #caption = el("p", { class: "caption", "aria-live": "polite" });
  #title = el("h2", { id: "viewer-title" });
  #slider;
  #picture = null;
  #overlay = null;
  #cells = null;
  #said = "";
  #abort = null;

  constructor(previews) {
    this.previews = previews;
    this.#slider = ratioSlider("viewer-ratio", (ratio) => this.#load(ratio));
    this.#canvas.addEventListener("pointermove", (e) => this.#point(e));
    this.#canvas.addEventListener("pointerleave", () => this.#draw(-1));
    this.#canvas.addEventListener("keydown", (e) => this.#step(e));
    this.#dialog.append(
      el(
        "div",
        { class: "sheet" },
        el("header", {}, this.#title, button("close", "Close", () => this.#dialog.close())),
        el("div", { class: "stage" }, this.#canvas),
        this.#slider.node,
        this.#caption,
      ),
    );
    this.#dialog.addEventListener("click", (e) => e.target === this.#dialog && this.#dialog.close());
  }

  open(picture, ratio) {
    this.#picture = picture;
    this.#overlay = null;
    this.#title.textContent = picture.name;
    this.#dialog.showModal();
    this.#slider.show(ratio);
    this.#draw(-1);
    this.#load(ratio);
  }

  async #load(ratio) {
    this.#abort?.abort();
    this.#abort = new AbortController();
    const turns = [{ role: "user", text: "", pictures: [this.#picture] }];
    const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url: this.#picture.url } }] }];
    try {
      const [preview] = await this.previews.get(requestKey(turns, ""), messages, [{ profile: null, ratio }], this.#abort.signal);
      const image = preview.images[0];
      this.#overlay = image.overlay;
      this.#said =
        image.rows_out < image.rows_in
          ? `${count(image.rows_in)} patches in ${count(image.rows_out)} rows. Point at the picture, or use the arrow keys on it, to see one row.`
          : `All ${count(image.rows_in)} patches are kept.`;
      this.#draw(-1);
    } catch (error) {
      if (error.name !== "AbortError") {
        const { title, todo } = explain(error);
        this.#caption.textContent = `${title}. ${todo}`;
      }
    }
  }

  #width() {
    const high = (window.innerHeight * 0.6 * this.#picture.bitmap.width) / this.#picture.bitmap.height;
    return Math.max(160, Math.min(MAX_WIDTH, window.innerWidth - 64, high));
  }

  #draw(group) {
    this.#chosen = group;
    const width = this.#width();
    this.#canvas.style.width = `${width}px`;
    this.#cells = drawPicture(this.#canvas, this.#picture.bitmap, this.#overlay, width, group);
    this.#canvas.setAttribute("aria-label", this.#picture.name);
    const g = group >= 0 ? this.#cells.groups[group] : null;
    this.#caption.textContent = !g
      ? this.#said
      : g.state === "protected"
        ? "Protected: this patch stays as it is."
        : g.size > 1
          ? `${g.size} patches became this one row.`
          : "This patch has a row of its own.";
  }

  /* The arrow keys go from row to row. */
  #step(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const n = this.#cells?.groups.length ?? 0;
    if (by && n > 0) {
      event.preventDefault();
      this.#draw(this.#chosen < 0 ? (by > 0 ? 0 : n - 1) : (this.#chosen + by + n) % n);
    }
  }

  #point(event) {
    if (this.#cells) {
      this.#draw(groupAt(this.#canvas, this.#cells, event));
    }
  }
}
