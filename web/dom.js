/* Making nodes. Text always enters as text. */

const SVG = "http://www.w3.org/2000/svg";

/* Strokes in a box of 24. */
const ICONS = {
  plus: "M12 5v14M5 12h14",
  columns: "M4 5h7v14H4zM13 5h7v14h-7z",
  layers: "M12 4l8 4-8 4-8-4zM4 12l8 4 8-4M4 16l8 4 8-4",
  pulse: "M3 12h4l3-7 4 14 3-7h4",
  sliders: "M4 8h9M17 8h3M15 5.5v5M4 16h3M11 16h9M9 13.5v5",
  moon: "M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 3v1.5M12 19.5V21M3 12h1.5M19.5 12H21M5.6 5.6l1.1 1.1M17.3 17.3l1.1 1.1M18.4 5.6l-1.1 1.1M6.7 17.3l-1.1 1.1",
  image: "M4 6a1 1 0 0 1 1-1h14a1 1 0 0 1 1 1v12a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01",
  up: "M12 19V6M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  copy: "M9 9h10v11H9zM6 15H5V4h10v2",
  retry: "M19 8a8 8 0 1 0 1 6M20 4v5h-5",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 13l4 4 10-10",
};

/* el("p", {class: "note", onclick: f, hidden: true}, "text", node, [more]) */
export function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else if (typeof value === "boolean") {
      node.toggleAttribute(name, value);
    } else if (value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/* A button with an icon; without `text` its label is for screen readers and a tooltip. */
export function button(name, label, onclick, props = {}) {
  const { text = false, ...rest } = props;
  const words = text ? [el("span", {}, label)] : [];
  const named = text ? {} : { "aria-label": label, title: label };
  return el("button", { type: "button", class: "quiet", ...named, ...rest, onclick }, icon(name), words);
}

export const byId = (id) => document.getElementById(id);

/* Tells screen readers, once, without moving anything. */
export function announce(text) {
  byId("status").textContent = text;
}

export function showIcons(root) {
  for (const node of root.querySelectorAll("[data-icon]")) {
    node.prepend(icon(node.dataset.icon));
  }
}
