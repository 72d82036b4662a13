/* The conversation as nodes. A turn has one node for its life; what streams in changes
 * only the node of its answer. */
import { billNode } from "./bill.js";
import { button, el } from "./dom.js";
import { explain } from "./errors.js";
import { parse, render } from "./markdown.js";
import { count, duration, times } from "./numbers.js";
import { drawPicture } from "./overlay.js";
import { planName } from "./plan.js";

const PICTURE_WIDTH = 200;

async function copy(text, node) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "sr" }); /* a page that is not on localhost or https */
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = node.getAttribute("aria-label");
  node.setAttribute("aria-label", "Copied");
  node.classList.add("done");
  setTimeout(() => {
    node.setAttribute("aria-label", before);
    node.classList.remove("done");
  }, 1500);
}

function codeButtons(root) {
  for (const pre of root.querySelectorAll("pre")) {
    const b = button("copy", "Copy the code", () => copy(pre.textContent, b), { class: "quiet small" });
    const frame = el("div", { class: "code" });
    pre.replaceWith(frame);
    frame.append(pre, b);
  }
}

/* overlays: of the preview under the plan that the question was sent with, if there was one. */
export function userNode(turn, overlays, onopen) {
  const pictures = turn.pictures.map((p, i) => {
    const canvas = el("canvas", { role: "img", "aria-label": p.name });
    drawPicture(canvas, p.bitmap, overlays?.[i] ?? null, PICTURE_WIDTH);
    return el("button", { type: "button", class: "picture", "aria-label": `Look closely at ${p.name}`, onclick: () => onopen(p) }, canvas);
  });
  return el(
    "li",
    { class: "turn user" },
    el("span", { class: "sr" }, "You: "),
    pictures.length ? el("div", { class: "pictures" }, pictures) : null,
    turn.text ? el("p", { class: "bubble" }, turn.text) : null,
  );
}

/* One answer: text that grows, then its bill or what went wrong. */
export class AnswerNode {
  #text = el("div", { class: "text" });
  #foot = el("div", { class: "foot" });
  #frame = 0;
  node = el("div", { class: "answer" }, this.#text, this.#foot);

  /* handlers: onretry(), onsettings(); head: words above it, or null */
  constructor(answer, handlers, head) {
    this.answer = answer;
    this.handlers = handlers;
    if (head) {
      this.node.prepend(el("p", { class: "head" }, head));
    }
    this.waiting("Reading");
  }

  waiting(words) {
    this.#text.replaceChildren(el("p", { class: "waiting" }, words, el("span", { class: "dots", "aria-hidden": "true" })));
  }

  /* As often as the screen changes, not as often as tokens come. */
  grow() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#render();
    });
  }

  #render() {
    this.#text.replaceChildren(...render(parse(this.answer.text), document));
  }

  /* estimates: of billNode */
  end(estimates) {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#render();
    codeButtons(this.#text);
    const { answer } = this;
    const error = answer.error ? this.#errorNode(answer.error) : null;
    const tools = [];
    if (answer.text) {
      const b = button("copy", "Copy the answer", () => copy(answer.text, b), { class: "quiet small" });
      tools.push(b);
    }
    tools.push(button("retry", "Ask again", this.handlers.onretry, { class: "quiet small" }));
    this.#foot.replaceChildren(
      ...[
        answer.stopped ? el("p", { class: "stopped" }, "Stopped.") : null,
        answer.finish === "length" ? el("p", { class: "stopped" }, "Cut at the longest answer; Settings can make it longer.") : null,
        error,
        el("div", { class: "ledger" }, answer.bill ? billNode(answer.bill, estimates) : null, el("div", { class: "tools" }, tools)),
      ].filter(Boolean),
    );
  }

  #errorNode(problem) {
    const { title, detail, todo, action } = explain(problem);
    const act =
      action === "settings"
        ? button("sliders", "Open settings", this.handlers.onsettings, { text: true })
        : action === "retry"
          ? button("retry", "Try again", this.handlers.onretry, { text: true })
          : null;
    return el(
      "div",
      { class: "error", role: "alert" },
      el("p", {}, el("b", {}, title)),
      detail ? el("p", { class: "detail" }, detail) : null,
      el("p", {}, todo),
      act,
    );
  }
}

export function answerTurn(nodes) {
  return el(
    "li",
    { class: nodes.length > 1 ? "turn side-by-side" : "turn" },
    el("span", { class: "sr" }, "tamp: "),
    nodes.map((n) => n.node),
  );
}

export const headOf = (letter, plan) => `${letter} · ${planName(plan)}`;

/* Two answers with bills -> what the second does differently. */
export function verdict(a, b) {
  if (!a.bill || !b.bill) {
    return null;
  }
  const rows = [a, b].map((x) => x.bill.usage.compression.compressed_tokens);
  const first = [a, b].map((x) => x.bill.timings.first_token_ms);
  const ratio = Math.max(...rows) / Math.max(1, Math.min(...rows));
  const read =
    ratio > 1
      ? `B read ${count(rows[1])} rows instead of ${count(rows[0])}, ${times(ratio)} ${rows[1] < rows[0] ? "fewer" : "more"}, and`
      : `Both read ${count(rows[0])} rows; B`;
  const same = a.text.trim() === b.text.trim() ? "The answers are the same." : "The answers differ.";
  return el("p", { class: "verdict" }, `${read} began after ${duration(first[1])} instead of ${duration(first[0])}. ${same}`);
}
