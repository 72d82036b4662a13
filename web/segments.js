/* The text of a prompt, shaded by what became one row. */
import { el } from "./dom.js";

/* Neighbouring groups differ in shade; colour alone says nothing: a group of several has
 * a bracket below it, and what is protected a dotted line. */
const SHADES = 4;

function pieceNode(piece, sizes, shade) {
  const size = sizeOf(piece, sizes);
  const kind = piece.protected ? "fixed" : size === 0 ? "gone" : size > 1 ? `merged s${shade}` : null;
  const title = piece.protected
    ? "protected: never merged"
    : size === 0
      ? "left out"
      : size > 1
        ? `${size} tokens, 1 row`
        : null;
  return el("span", { class: kind, title }, piece.text);
}

/* How many tokens became the row of each group. */
function sizesOf(segment) {
  const sizes = new Map();
  for (const p of segment.pieces) {
    sizes.set(p.group, (sizes.get(p.group) ?? 0) + p.tokens);
  }
  return sizes;
}

const sizeOf = (piece, sizes) => (piece.group === null ? 0 : sizes.get(piece.group));

/* Neighbours that are protected show as one stretch. */
function joinProtected(pieces) {
  const out = [];
  for (const p of pieces) {
    const last = out.at(-1);
    if (p.protected && last?.protected) {
      last.text += p.text;
    } else {
      out.push({ ...p });
    }
  }
  return out;
}

function segmentNode(segment) {
  const sizes = sizesOf(segment);
  let shade = 0;
  let last = null;
  return joinProtected(segment.pieces).map((p) => {
    if (p.group !== last && sizes.get(p.group) > 1) {
      shade = (shade + 1) % SHADES;
    }
    last = p.group;
    return pieceNode(p, sizes, shade);
  });
}

/* segments: of a preview, pieces {text, group, tokens, protected}, group null where the
 * text has no row any more. messages: the request's, for the roles. */
export function segmentsNode(segments, messages) {
  return el(
    "div",
    { class: "segments" },
    segments
      .filter((s) => s.pieces.length > 0)
      .map((s) => [
        el("p", { class: "role" }, messages[s.message]?.role ?? ""),
        el("p", { class: "pieces" }, segmentNode(s)),
      ]),
  );
}

/* What the marks mean, of those that occur. */
export function legendNode(segments) {
  const occurs = (test) => segments.some((s) => s.pieces.some((p) => test(p, sizesOf(s))));
  const marks = [
    ["merged s1", "one row", (p, sizes) => !p.protected && sizeOf(p, sizes) > 1],
    ["fixed", "protected", (p) => p.protected],
    ["gone", "left out", (p) => p.group === null],
  ];
  return el(
    "p",
    { class: "legend" },
    marks.filter((m) => occurs(m[2])).map(([kind, words]) => el("span", { class: kind }, words)),
  );
}
