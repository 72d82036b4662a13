/* Where a question is written: text, pictures, the two plans of a comparison. */
import { announce, button, byId, el, icon } from "./dom.js";
import { filesOf, readPicture } from "./pictures.js";
import { fromKey, keyOf, NO_PLAN, planName } from "./plan.js";

const COMPARED = [2, 4, 8, 16];

function fillPlans(select, profiles, chosen) {
  const option = (plan, name) => el("option", { value: keyOf(plan) }, name);
  select.replaceChildren(
    el("option", { value: "" }, "as set now"),
    el("optgroup", { label: "Plans" }, profiles.map((p) => option({ profile: p, ratio: null }, p))),
    el("optgroup", { label: "Pictures" }, COMPARED.map((r) => option({ profile: null, ratio: r }, `pictures ${r}×`))),
  );
  select.value = chosen;
}

export class Composer {
  pictures = [];
  #question = byId("question");
  #thumbs = byId("thumbs");
  #send = byId("send");
  #versus = byId("versus");
  #selects = ["A", "B"].map((letter) => el("select", { id: `plan-${letter}` }));

  /* handlers: onsend(), onstop(), onchange(), onopen(picture), onerror(words) */
  constructor(handlers) {
    this.handlers = handlers;
    this.profiles(["off"]);
    this.#versus.append(
      el("label", { for: "plan-A" }, el("span", { class: "sr" }, "Plan "), "A"), this.#selects[0],
      el("label", { for: "plan-B" }, el("span", { class: "sr" }, "Plan "), "B"), this.#selects[1],
      el("span", { class: "hint" }, "One after the other, without caches, so that times compare."),
    );
    byId("composer").addEventListener("submit", (e) => {
      e.preventDefault();
      this.submit();
    });
    this.#question.addEventListener("keydown", (e) => {
      if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
        e.preventDefault();
        if (this.#send.dataset.state !== "stop") {
          this.submit();
        }
      }
    });
    this.#question.addEventListener("input", () => {
      this.#grow();
      handlers.onchange();
    });
    byId("attach").addEventListener("click", () => byId("files").click());
    byId("files").addEventListener("change", (e) => {
      this.add([...e.target.files]);
      e.target.value = "";
    });
    this.#takeFromOutside();
  }

  get text() {
    return this.#question.value.trim();
  }

  set text(value) {
    this.#question.value = value;
    this.#grow();
  }

  get empty() {
    return this.text === "" && this.pictures.length === 0;
  }

  focus() {
    this.#question.focus();
  }

  /* By itself, A is without packing and B as it is set. */
  profiles(names) {
    fillPlans(this.#selects[0], names, keyOf(NO_PLAN));
    fillPlans(this.#selects[1], names, "");
  }

  /* The plans of a comparison; "as set now" is `current`. */
  plans(current) {
    return this.#selects.map((s) => (s.value ? fromKey(s.value) : current));
  }

  compare(on, current) {
    this.#versus.hidden = !on;
    for (const s of this.#selects) {
      s.options[0].textContent = `as set now: ${planName(current)}`;
    }
  }

  submit() {
    if (this.#send.dataset.state === "stop") {
      this.handlers.onstop();
    } else if (!this.empty) {
      this.handlers.onsend();
    }
  }

  busy(on) {
    this.#send.dataset.state = on ? "stop" : "send";
    this.#send.setAttribute("aria-label", on ? "Stop" : "Send");
    this.#send.title = on ? "Stop" : "Send";
    this.#send.replaceChildren(icon(on ? "stop" : "up"));
  }

  clear() {
    this.text = "";
    this.pictures = [];
    this.#showThumbs();
  }

  async add(files) {
    for (const file of files) {
      try {
        this.pictures.push(await readPicture(file));
      } catch {
        this.handlers.onerror(`${file.name || "This"} is no picture that this browser can read. JPEG and PNG always work.`);
      }
    }
    this.#showThumbs();
    this.handlers.onchange();
    this.focus();
  }

  #grow() {
    this.#question.style.height = "auto";
    this.#question.style.height = `${Math.min(this.#question.scrollHeight, window.innerHeight * 0.4)}px`;
  }

  #showThumbs() {
    this.#thumbs.replaceChildren(
      ...this.pictures.map((p) => {
        const image = el("img", { src: p.url, alt: "" });
        const open = el("button", { type: "button", class: "picture", "aria-label": `Look closely at ${p.name}`, onclick: () => this.handlers.onopen(p) }, image);
        const remove = button("close", `Remove ${p.name}`, () => this.#remove(p), { class: "quiet remove" });
        return el("li", {}, open, remove);
      }),
    );
  }

  #remove(picture) {
    this.pictures = this.pictures.filter((p) => p !== picture);
    this.#showThumbs();
    announce(`${picture.name} removed`);
    this.handlers.onchange();
    this.focus();
  }

  /* Paste and drop work anywhere on the page. */
  #takeFromOutside() {
    const veil = byId("drop");
    const carriesFiles = (e) => e.dataTransfer?.types.includes("Files");
    document.addEventListener("paste", (e) => {
      const files = filesOf(e.clipboardData);
      if (files.length) {
        e.preventDefault();
        this.add(files);
      }
    });
    document.addEventListener("dragover", (e) => {
      if (carriesFiles(e)) {
        e.preventDefault();
        veil.hidden = false;
      }
    });
    document.addEventListener("dragleave", (e) => {
      if (!e.relatedTarget) {
        veil.hidden = true;
      }
    });
    document.addEventListener("drop", (e) => {
      veil.hidden = true;
      if (carriesFiles(e)) {
        e.preventDefault();
        const files = filesOf(e.dataTransfer);
        if (files.length) {
          this.add(files);
        } else {
          this.handlers.onerror("Only pictures can be dropped here.");
        }
      }
    });
  }
}
