/* Light and dark: the system's, until somebody says otherwise. */
import { byId, el, icon } from "./dom.js";

const DARK = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;

const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : DARK.matches);

function show() {
  const next = isDark() ? "Light" : "Dark";
  byId("theme").replaceChildren(icon(isDark() ? "sun" : "moon"), el("span", {}, next));
}

/* The system's own theme is not kept, so that the page goes on following it. */
function toggle() {
  const next = isDark() ? "light" : "dark";
  const systems = (next === "dark") === DARK.matches;
  if (systems) {
    delete root.dataset.theme;
  } else {
    root.dataset.theme = next;
  }
  try {
    if (systems) {
      localStorage.removeItem("tamp.theme");
    } else {
      localStorage.setItem("tamp.theme", next);
    }
  } catch {
    /* storage is switched off: the choice lives as long as the page */
  }
  show();
}

export function initTheme() {
  byId("theme").addEventListener("click", toggle);
  DARK.addEventListener("change", show);
  show();
}
