/* What is packed of a request, seen: the slider, each picture with its patches, the text
 * with its groups, and what it saves. */
import { explain } from "./errors.js";
import { button, el } from "./dom.js";
import { count, duration, times } from "./numbers.js";
import { drawPicture } from "./overlay.js";
import { nearestRatio, NO_PLAN, planName, ratioName, RATIOS } from "./plan.js";
import { reasonWords, stageWords } from "./reasons.js";
import { legendNode, segmentsNode } from "./segments.js";

const PICTURE_WIDTH = 330; /* where the card is not laid out yet */

/* A slider over RATIOS. onratio gets the ratio. */
export function ratioSlider(id, onratio) {
  const input = el("input", {
    type: "range",
    id,
    min: 0,
    max: RATIOS.length - 1,
    step: 1,
  });
  const output = el("output", { for: id });
  /* null: not known yet what the plan makes of the pictures */
  const show = (ratio) => {
    if (ratio === null) {
      input.value = RATIOS.indexOf(4);
      input.setAttribute("aria-valuetext", "as planned");
      output.textContent = "as planned";
      return;
    }
    input.value = RATIOS.indexOf(ratio);
    input.setAttribute("aria-valuetext", ratio === 1 ? "off" : `${ratio} patches in one row`);
    output.textContent = ratioName(ratio);
  };
  input.addEventListener("input", () => {
    const ratio = RATIOS[Number(input.value)];
    show(ratio);
    onratio(ratio);
  });
  const node = el(
    "div",
    { class: "slider" },
    el("div", { class: "slider-head" }, el("label", { for: id }, "Merge patches of pictures"), output),
    input,
    el("div", { class: "marks", "aria-hidden": "true" }, el("span", {}, "off"), el("span", {}, "4×"), el("span", {}, "16×")),
  );
  return { node, show };
}

function pictureFigure(picture, image, width, onopen) {
  const canvas = el("canvas", { role: "img" });
  canvas.setAttribute("aria-label", `${picture.name}, ${image.rows_in} patches in ${image.rows_out} rows`);
  drawPicture(canvas, picture.bitmap, image.overlay, width);
  return el(
    "figure",
    {},
    el("button", { type: "button", class: "picture", "aria-label": `Look closely at ${picture.name}`, onclick: () => onopen(picture) }, canvas),
    el("figcaption", {}, el("span", {}, picture.name), el("b", {}, `${count(image.rows_in)} → ${count(image.rows_out)}`)),
  );
}

function savings(preview, unpacked) {
  const { original_tokens: before, compressed_tokens: after, estimated } = preview;
  const merged = after < before;
  const facts = [
    merged ? ["Rows", `${count(before)} → ${count(after)}`, times(preview.ratio)] : ["Rows", count(before), "nothing merged"],
    ["First token, about", duration(estimated.first_token_ms), merged ? `${duration(unpacked.estimated.first_token_ms)} unpacked` : ""],
  ];
  if (merged) {
    facts.push(["Work of the CPU", times(estimated.cost_ratio), "less"]); /* of "off" over this plan */
  }
  return el(
    "dl",
    { class: "savings" },
    facts.map(([name, value, more]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("b", {}, value), " ", el("small", {}, more)))),
  );
}

export class Packing {
  #body = el("div", { class: "packing-body", "aria-live": "off" });
  #profile = el("select", { id: "profile" });
  #slider;

  /* handlers: onprofile(name | null), onratio(ratio), onopen(picture), onclose() */
  constructor(section, handlers) {
    this.handlers = handlers;
    this.#slider = ratioSlider("ratio", handlers.onratio);
    this.profiles([], "");
    this.#profile.addEventListener("change", () => handlers.onprofile(this.#profile.value || null));
    section.append(
      el("header", {}, el("h2", { id: "packing-title" }, "Packing"), button("close", "Close", handlers.onclose, { class: "quiet narrow-only" })),
      el("div", { class: "select" }, el("label", { for: "profile" }, "Plan"), this.#profile),
      this.#slider.node,
      this.#body,
    );
    this.#slider.node.hidden = true;
    this.empty();
  }

  /* names as the server lists them, and which of them it takes by itself */
  profiles(names, byItself) {
    const own = byItself ? `server's own: ${byItself}` : "server's own";
    this.#profile.replaceChildren(el("option", { value: "" }, own), ...names.map((p) => el("option", { value: p }, p)));
  }

  empty() {
    this.#body.replaceChildren(
      el("p", { class: "empty" }, "Add a picture or write a question: here you see which patches and words become one row, and what that saves."),
    );
  }

  busy(on) {
    this.#body.setAttribute("aria-busy", String(on));
  }

  /* The controls follow the plan. vision: does the model read pictures? */
  controls(plan, vision) {
    this.#profile.value = plan.profile ?? "";
    this.#slider.node.hidden = !vision;
    if (plan.ratio !== null) {
      this.#slider.show(plan.ratio);
    } else {
      this.#slider.show(plan.profile === NO_PLAN.profile ? 1 : null);
    }
  }

  /* request: {turns, messages, pictures}; previews of its plan and of "off". */
  show(plan, request, preview, unpacked) {
    const images = preview.images ?? [];
    const seen = images.reduce((sum, i) => [sum[0] + i.rows_in, sum[1] + i.rows_out], [0, 0]);
    if (plan.ratio === null && seen[1] > 0) {
      this.#slider.show(nearestRatio(seen[0] / seen[1]));
    }
    const skipped = preview.skipped ?? [];
    const width = this.#body.clientWidth || PICTURE_WIDTH;
    this.#body.replaceChildren(
      savings(preview, unpacked),
      el(
        "div",
        { class: "figures-of" },
        images.map((image, i) => request.pictures[i] && pictureFigure(request.pictures[i], image, width, this.handlers.onopen)),
      ),
      preview.segments?.length ? el("div", {}, el("h3", {}, "Text"), segmentsNode(preview.segments, request.messages), legendNode(preview.segments)) : "",
      skipped.length
        ? el("ul", { class: "notes" }, skipped.map((s) => el("li", {}, `${stageWords(s.stage)} not packed: ${reasonWords(s.reason)}.`)))
        : "",
      el("p", { class: "caption" }, `Under ${planName(plan)}, before anything is answered.`),
    );
  }

  failed(error) {
    const { title, detail, todo } = explain(error);
    this.#body.replaceChildren(el("p", { class: "empty" }, `${title}. ${detail} ${todo}`));
  }
}
