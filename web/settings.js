/* What the user sets: kept in this browser, but the key only as long as the tab. */
import { getKey, setKey } from "./api.js";
import { button, byId, el } from "./dom.js";

const STORE = "tamp.settings";
const DEFAULTS = { temperature: 0, max_tokens: 512, seed: null, system: "" };
/* [name, label, lowest, highest, step, what it does] */
const NUMBERS = [
  ["temperature", "Temperature", 0, 2, 0.1, "0 always takes the likeliest word; more is more varied."],
  ["max_tokens", "Longest answer", 1, 8192, 1, "In tokens, about three quarters of a word each."],
  ["seed", "Seed", 0, 9007199254740991, 1, "The same seed gives the same answer. Empty: another one each time."],
];

export const settings = { ...DEFAULTS, ...read() };

function read() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? {};
  } catch {
    return {};
  }
}

function keep() {
  try {
    localStorage.setItem(STORE, JSON.stringify(settings));
  } catch {
    /* storage is switched off: the settings live as long as the page */
  }
}

/* The fields of a request that come from here. */
export function settingFields() {
  const { temperature, max_tokens, seed } = settings;
  return { temperature, max_tokens, ...(seed === null ? {} : { seed }) };
}

function numberField([name, label, min, max, step, help]) {
  const input = el("input", { id: `set-${name}`, type: "number", min, max, step, "aria-describedby": `help-${name}` });
  input.value = settings[name] ?? "";
  input.addEventListener("change", () => {
    const value = input.value === "" ? DEFAULTS[name] : Math.min(max, Math.max(min, Number(input.value)));
    settings[name] = value;
    input.value = value ?? "";
    keep();
  });
  return el(
    "div",
    { class: "setting" },
    el("label", { for: input.id }, label),
    input,
    el("p", { id: `help-${name}`, class: "help" }, help),
  );
}

function systemField(onchange) {
  const input = el("textarea", { id: "set-system", rows: 3 });
  input.value = settings.system;
  input.addEventListener("change", () => {
    settings.system = input.value;
    keep();
    onchange();
  });
  return el("div", { class: "setting wide" }, el("label", { for: "set-system" }, "System prompt"), input);
}

function keyField(onchange) {
  const input = el("input", {
    id: "set-key",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": "help-key",
  });
  input.value = getKey();
  input.addEventListener("change", () => {
    setKey(input.value);
    onchange();
  });
  return el(
    "div",
    { class: "setting wide" },
    el("label", { for: "set-key" }, "API key"),
    input,
    el("p", { id: "help-key", class: "help" }, "Kept until this tab is closed. Only needed where the server asks for one."),
  );
}

/* onchange: the key or the system prompt is another one. */
export function initSettings(onchange) {
  const dialog = byId("settings");
  const close = () => dialog.close();
  dialog.append(
    el(
      "form",
      { method: "dialog", class: "sheet" },
      el("header", {}, el("h2", { id: "settings-title" }, "Settings"), button("close", "Close", close)),
      keyField(onchange),
      systemField(onchange),
      NUMBERS.map(numberField),
    ),
  );
  dialog.addEventListener("click", (e) => {
    if (e.target === dialog) {
      close(); /* beside it */
    }
  });
  return () => dialog.showModal();
}
