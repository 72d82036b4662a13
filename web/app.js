/* The page: puts the parts together. One exchange is a question with its one answer, or
 * two of them side by side. */
import { getJson } from "./api.js";
import { Chat, messagesOf } from "./chat.js";
import { Composer } from "./composer.js";
import { announce, byId, el, icon, showIcons } from "./dom.js";
import { explain } from "./errors.js";
import { count, times } from "./numbers.js";
import { Packing } from "./packing.js";
import { Panel } from "./panel.js";
import { nearestRatio, NO_PLAN, SERVER_PLAN } from "./plan.js";
import { Previews, requestKey } from "./preview.js";
import { initSettings, settings } from "./settings.js";
import { initTheme } from "./theme-switch.js";
import { answerTurn, AnswerNode, headOf, userNode, verdict } from "./turns.js";
import { Viewer } from "./viewer.js";

const PREVIEW_AFTER_MS = 250;
const LOADING_RETRY_MS = 1000;
const NARROW = matchMedia("(max-width: 1099px)");
const FINE_POINTER = matchMedia("(pointer: fine)");

const chat = new Chat();
const previews = new Previews();
const exchanges = []; /* {user, plans, answers, chosen, item, key, messages} */
let plan = SERVER_PLAN;
let comparing = false;
let vision = false;
let previewTimer = 0;
let previewAbort = null;

/* -- the conversation ------------------------------------------------------------------ */

const newAnswer = () => ({ role: "assistant", text: "", bill: null, error: null, stopped: false, finish: null });

/* What was said before exchange n. An answer that failed was not said, nor its question. */
function turnsBefore(n) {
  return exchanges
    .slice(0, n)
    .filter((x) => x.answers[x.chosen].text !== "")
    .flatMap((x) => [x.user, x.answers[x.chosen]]);
}

function scrollDown(force = false) {
  const log = byId("log");
  if (force || log.scrollHeight - log.scrollTop - log.clientHeight < 160) {
    log.scrollTop = log.scrollHeight;
  }
}

function setBusy(on) {
  composer.busy(on);
  byId("turns").setAttribute("aria-busy", String(on));
  byId("new-chat").disabled = on || exchanges.length === 0;
}

function shownOverlays(exchange) {
  const preview = previews.has(exchange.key, exchange.plans[exchange.plans.length - 1]);
  const before = exchange.pictures.length - exchange.user.pictures.length;
  return preview?.images?.slice(before).map((i) => i.overlay);
}

function showUser(exchange) {
  const node = userNode(exchange.user, shownOverlays(exchange), openViewer);
  exchange.userItem?.replaceWith(node);
  exchange.userItem = node;
  return node;
}

async function answerOne(exchange, i, node, turns) {
  const answer = exchange.answers[i];
  await chat.ask(turns, answer, exchange.plans[i], exchange.plans.length > 1, () => {
    node.grow();
    scrollDown();
  });
  node.end([exchange.plans[i], NO_PLAN].map((p) => previews.has(exchange.key, p)));
  return !answer.stopped && !answer.error;
}

function chooser(exchange) {
  const name = `choose-${exchanges.indexOf(exchange)}`;
  return el(
    "fieldset",
    { class: "chooser" },
    el("legend", {}, "Go on with"),
    ["A", "B"].map((letter, i) => {
      const input = el("input", { type: "radio", name, checked: i === exchange.chosen, onchange: () => (exchange.chosen = i) });
      return el("label", {}, input, ` ${letter}`);
    }),
  );
}

async function run(exchange) {
  const turns = [...turnsBefore(exchanges.indexOf(exchange)), exchange.user];
  const two = exchange.plans.length > 1;
  exchange.answers = exchange.plans.map(newAnswer);
  const handlers = { onretry: () => retry(exchange), onsettings: openSettings };
  const nodes = exchange.answers.map((a, i) => new AnswerNode(a, handlers, two ? headOf("AB"[i], exchange.plans[i]) : null));
  const item = answerTurn(nodes);
  exchange.item ? exchange.item.replaceWith(item) : byId("turns").append(item);
  exchange.item = item;
  nodes[1]?.waiting("After A");
  setBusy(true);
  scrollDown(true);
  for (let i = 0; i < nodes.length; i++) {
    nodes[i].waiting("Reading");
    if (!(await answerOne(exchange, i, nodes[i], turns)) && i + 1 < nodes.length) {
      exchange.answers[i + 1].stopped = true;
      nodes[i + 1].end();
      break;
    }
  }
  if (two) {
    const words = verdict(...exchange.answers);
    item.append(...[words, words ? chooser(exchange) : null].filter(Boolean));
  }
  setBusy(false);
  scrollDown();
  const failed = exchange.answers.find((a) => a.error);
  announce(failed ? explain(failed.error).title : exchange.answers[0].stopped ? "Stopped" : "The answer is complete");
  panel.wake();
}

/* Under the plan that is set now: that is what one wants to try. */
function retry(exchange) {
  if (chat.busy) {
    return;
  }
  for (const later of exchanges.splice(exchanges.indexOf(exchange) + 1)) {
    later.item.remove();
    later.userItem.remove();
  }
  exchange.plans = comparing ? composer.plans(plan) : [plan];
  exchange.chosen = 0;
  run(exchange);
  previewOf(exchange);
}

function send() {
  if (chat.busy) {
    return;
  }
  const user = { role: "user", text: composer.text, pictures: composer.pictures };
  const turns = [...turnsBefore(exchanges.length), user];
  const exchange = {
    user,
    plans: comparing ? composer.plans(plan) : [plan],
    answers: [],
    chosen: 0,
    key: requestKey(turns, settings.system),
    messages: messagesOf(turns),
    pictures: turns.flatMap((t) => t.pictures ?? []),
  };
  exchanges.push(exchange);
  byId("welcome").hidden = true;
  byId("turns").append(showUser(exchange));
  composer.clear();
  if (FINE_POINTER.matches) {
    composer.focus(); /* on a phone the keyboard would cover the answer */
  }
  run(exchange);
  previewOf(exchange);
}

function newChat() {
  exchanges.length = 0;
  byId("turns").replaceChildren();
  byId("welcome").hidden = false;
  packing.empty();
  byId("forecast").hidden = true;
  setBusy(false);
  composer.focus();
}

/* -- what is packed of it ---------------------------------------------------------------- */

/* What the packing card is about: the question that is being written, else the last one. */
function subject() {
  if (composer.empty) {
    return exchanges.at(-1) ?? null;
  }
  const turns = [...turnsBefore(exchanges.length), { role: "user", text: composer.text, pictures: composer.pictures }];
  return { key: requestKey(turns, settings.system), messages: messagesOf(turns), pictures: turns.flatMap((t) => t.pictures ?? []) };
}

function showForecast(preview) {
  const chip = byId("forecast");
  chip.hidden = composer.empty;
  const saved = preview.original_tokens > preview.compressed_tokens;
  chip.textContent = saved
    ? `${count(preview.original_tokens)} → ${count(preview.compressed_tokens)} rows, ${times(preview.ratio)}`
    : `${count(preview.original_tokens)} rows`;
}

async function previewOf(about) {
  clearTimeout(previewTimer);
  previewAbort?.abort();
  previewAbort = new AbortController();
  if (!about) {
    packing.empty();
    byId("forecast").hidden = true;
    return;
  }
  const asked = plan;
  packing.busy(true);
  try {
    const [preview, unpacked] = await previews.get(about.key, about.messages, [asked, NO_PLAN], previewAbort.signal);
    packing.show(asked, about, preview, unpacked);
    showForecast(preview);
    if (about.user) {
      showUser(about);
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      packing.failed(error);
    }
  } finally {
    packing.busy(false);
  }
}

function previewSoon() {
  clearTimeout(previewTimer);
  previewTimer = setTimeout(() => previewOf(subject()), PREVIEW_AFTER_MS);
}

function setPlan(next) {
  plan = next;
  packing.controls(plan, vision);
  composer.compare(comparing, plan);
  previewOf(subject());
}

function openViewer(picture) {
  const seen = subject() && previews.has(subject().key, plan)?.images?.[0];
  viewer.open(picture, plan.ratio ?? nearestRatio(seen ? seen.rows_in / Math.max(1, seen.rows_out) : 4));
}

/* -- the frame ------------------------------------------------------------------------------ */

/* The cards beside the conversation; on a narrow screen one of them over it. */
function showCard(name, on) {
  const other = name === "packing" ? "server" : "packing";
  if (on && NARROW.matches) {
    setCard(other, false);
  }
  setCard(name, on);
  panel.wake();
  if (on) {
    byId(name).scrollIntoView({ block: "nearest" });
  }
  if (on && NARROW.matches) {
    byId(name).querySelector("button").focus();
  }
}

function setCard(name, on) {
  byId(name).hidden = !on;
  byId(`show-${name}`).setAttribute("aria-expanded", String(on));
  const any = !byId("packing").hidden || !byId("server").hidden;
  byId("aside").toggleAttribute("data-open", any);
}

function closeCard(name) {
  setCard(name, false);
  byId(`show-${name}`).focus();
}

function initFrame() {
  for (const name of ["packing", "server"]) {
    byId(`show-${name}`).addEventListener("click", () => showCard(name, byId(name).hidden));
  }
  const byWidth = () => {
    setCard("packing", !NARROW.matches);
    setCard("server", false);
  };
  NARROW.addEventListener("change", byWidth);
  byWidth();
  byId("forecast").addEventListener("click", () => showCard("packing", true));
  byId("new-chat").addEventListener("click", newChat);
  byId("show-settings").addEventListener("click", openSettings);
  byId("compare").addEventListener("click", () => {
    comparing = !comparing;
    byId("compare").setAttribute("aria-pressed", String(comparing));
    composer.compare(comparing, plan);
  });
  document.addEventListener("keydown", (e) => {
    if (e.key !== "Escape" || document.querySelector("dialog[open]")) {
      return;
    }
    const open = NARROW.matches && ["packing", "server"].find((name) => !byId(name).hidden);
    if (open) {
      closeCard(open);
    } else if (chat.busy) {
      chat.stop();
    }
  });
}

async function showSample() {
  try {
    const blob = await (await fetch("/web/tshirt.jpg")).blob();
    composer.text = "What kind of product is it?";
    composer.add([new File([blob], "t-shirt.jpg", { type: "image/jpeg" })]);
  } catch {
    announce("The sample could not be read");
  }
}

function initSamples() {
  const sample = (words, act) => el("button", { type: "button", class: "sample", onclick: act }, words);
  const ask = (words) =>
    sample(words, () => {
      composer.text = words;
      composer.focus();
      previewSoon();
    });
  byId("samples").replaceChildren(
    ...[
      vision ? sample("What kind of product is it? (with a photo)", showSample) : null,
      ask("Write a product description for a linen shirt."),
      ask("List three uses of a cast-iron pan, as a table."),
    ].filter(Boolean),
  );
}

async function loadModel() {
  const label = byId("model");
  try {
    const { data } = await getJson("/v1/models");
    vision = Boolean(data[0].meta.projector);
    label.textContent = data[0].meta.name || data[0].id;
    label.title = `${data[0].id}, context ${count(data[0].meta.n_ctx)} rows`;
    const { profiles, default_profile } = await getJson("/v1/compression/methods");
    const names = profiles.map((p) => p.name);
    packing.profiles(names, default_profile);
    packing.controls(plan, vision);
    composer.profiles(names);
    composer.compare(comparing, plan);
    initSamples();
    panel.wake();
  } catch (error) {
    const { title } = explain(error);
    label.textContent = title;
    if (error.code === "loading") {
      setTimeout(loadModel, LOADING_RETRY_MS);
    }
  }
}

function complain(words) {
  const note = el("p", { class: "notice", role: "alert" }, words);
  byId("composer").prepend(note);
  setTimeout(() => note.remove(), 8000);
}

const openSettings = initSettings(() => {
  loadModel();
  previewSoon();
});
const viewer = new Viewer(previews);
const panel = new Panel(byId("server"), () => closeCard("server"));
const packing = new Packing(byId("packing"), {
  onprofile: (profile) => setPlan({ profile, ratio: null }),
  onratio: (ratio) => setPlan({ ...plan, ratio }),
  onopen: openViewer,
  onclose: () => closeCard("packing"),
});
const composer = new Composer({
  onsend: send,
  onstop: () => chat.stop(),
  onchange: previewSoon,
  onopen: openViewer,
  onerror: complain,
});
showIcons(document);
byId("send").replaceChildren(icon("up"));
initTheme();
initFrame();
initSamples();
setBusy(false);
loadModel();
if (FINE_POINTER.matches) {
  composer.focus();
}
