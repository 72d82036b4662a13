/* Markdown as language models write it: headings, paragraphs, lists, quotes, code, tables,
 * emphasis, links. Two steps, so that each can be read and tested alone:
 *
 *   parse(text)          -> blocks, plain data
 *   render(blocks, doc)  -> DOM nodes, made one by one
 *
 * Text of a model never becomes markup: it only ever enters text nodes, and the one
 * attribute that it reaches, a link's address, is checked. Raw HTML is shown as it is.
 * Every step goes forward in the text; nesting ends at MAX_DEPTH. */

const MAX_DEPTH = 12;
const MAX_LINK = 2048; /* characters of a link's words or address */
const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})(?:([-*+])|(\d{1,9})[.)])(?:[ \t]+|$)/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const BLANK = /^\s*$/;

/* -- blocks ------------------------------------------------------------------------- */

function fence(lines, at) {
  const [, indent, ticks, info] = FENCE.exec(lines[at]);
  const close = new RegExp(`^ {0,3}${ticks[0]}{${ticks.length},}[ \\t]*$`);
  const strip = new RegExp(`^ {0,${indent.length}}`);
  const code = [];
  let i = at + 1;
  for (; i < lines.length && !close.test(lines[i]); i++) {
    code.push(lines[i].replace(strip, ""));
  }
  return [{ type: "code", lang: info.trim().split(/\s/)[0], text: code.join("\n") }, i + 1];
}

function quote(lines, at, depth) {
  const inner = [];
  let i = at;
  while (i < lines.length && QUOTE.test(lines[i])) {
    inner.push(lines[i++].replace(QUOTE, ""));
  }
  return [{ type: "quote", blocks: parseLines(inner, depth + 1) }, i];
}

const kindOf = (item) => (item[2] ? "bullet" : "number");

/* Lines of an item: its first one without the mark, then what is indented below it. */
function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  const items = [];
  let i = at;
  while (i < lines.length) {
    const mark = ITEM.exec(lines[i]);
    if (!mark || kindOf(mark) !== kindOf(first) || RULE.test(lines[i])) {
      break;
    }
    const width = Math.min(mark[0].length, mark[1].length + 4) || 2;
    const inner = [lines[i++].slice(mark[0].length)];
    while (i < lines.length) {
      const indent = /^ */.exec(lines[i])[0].length;
      const goesOn = BLANK.test(lines[i])
        ? i + 1 < lines.length && /^ {2,}\S/.test(lines[i + 1])
        : indent >= Math.min(width, 2);
      if (!goesOn) {
        break;
      }
      inner.push(lines[i++].slice(Math.min(indent, width)));
    }
    items.push(parseLines(inner, depth + 1));
    if (i + 1 < lines.length && BLANK.test(lines[i]) && ITEM.test(lines[i + 1])) {
      i++;
    }
  }
  return [{ type: "list", ordered: kindOf(first) === "number", start: Number(first[3] ?? 1), items }, i];
}

/* Cells between bars; a bar in code or behind a backslash is none. */
function cells(line) {
  const out = [""];
  let code = false;
  for (let i = 0; i < line.length; i++) {
    const c = line[i];
    if (c === "\\" && line[i + 1] === "|") {
      out[out.length - 1] += "|";
      i++;
    } else if (c === "|" && !code) {
      out.push("");
    } else {
      code = c === "`" ? !code : code;
      out[out.length - 1] += c;
    }
  }
  const trimmed = out.map((c) => c.trim());
  if (trimmed[0] === "") {
    trimmed.shift();
  }
  if (trimmed.length && trimmed[trimmed.length - 1] === "") {
    trimmed.pop();
  }
  return trimmed;
}

function alignment(cell) {
  const left = cell.startsWith(":");
  const right = cell.endsWith(":");
  return left && right ? "center" : right ? "right" : null;
}

function table(lines, at) {
  const head = cells(lines[at]);
  const align = cells(lines[at + 1]).map(alignment);
  const rows = [];
  let i = at + 2;
  while (i < lines.length && lines[i].includes("|") && !BLANK.test(lines[i])) {
    const row = cells(lines[i++]);
    rows.push(head.map((_, c) => parseInline(row[c] ?? "")));
  }
  return [{ type: "table", align, head: head.map((c) => parseInline(c)), rows }, i];
}

function startsTable(lines, i) {
  return (
    lines[i].includes("|") &&
    i + 1 < lines.length &&
    TABLE_RULE.test(lines[i + 1]) &&
    cells(lines[i]).length === cells(lines[i + 1]).length
  );
}

function startsBlock(lines, i) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM, BLANK].some((r) => r.test(lines[i])) || startsTable(lines, i);
}

function parseLines(lines, depth) {
  const blocks = [];
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    let block = null;
    if (BLANK.test(line)) {
      i++;
      continue;
    }
    if (FENCE.test(line)) {
      [block, i] = fence(lines, i);
    } else if (HEADING.test(line)) {
      const [, marks, text] = HEADING.exec(line);
      block = { type: "heading", level: marks.length, inline: parseInline(text ?? "") };
      i++;
    } else if (RULE.test(line)) {
      block = { type: "rule" };
      i++;
    } else if (depth < MAX_DEPTH && QUOTE.test(line)) {
      [block, i] = quote(lines, i, depth);
    } else if (depth < MAX_DEPTH && ITEM.test(line)) {
      [block, i] = list(lines, i, depth);
    } else if (startsTable(lines, i)) {
      [block, i] = table(lines, i);
    } else {
      const text = [line.trimStart()];
      i++;
      while (i < lines.length && !startsBlock(lines, i)) {
        text.push(lines[i++].trimStart());
      }
      block = { type: "paragraph", inline: parseInline(text.join("\n").trimEnd()) };
    }
    blocks.push(block);
  }
  return blocks;
}

export function parse(text) {
  return parseLines(text.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n"), 0);
}

/* -- inline --------------------------------------------------------------------------- */

const URL_AT = /https?:\/\/[^\s<>"'`]+/iy;

/* What a link may point to: the web and mail. null for everything else, also for what a
 * browser would read as script after removing control characters. */
export function safeAddress(address) {
  const clean = address.trim();
  return /^(https?:\/\/|mailto:)[^\s\u0000-\u001f\u007f]+$/i.test(clean) ? clean : null;
}

/* What `pattern` (sticky) matches at this place, or undefined. */
function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0];
}

/* `unclosed` holds marks that nothing further on closes: each is looked for only once, so
 * that a text of nothing but marks takes no longer than another. */
function code(text, at, unclosed) {
  const ticks = matchAt(/`+/y, text, at);
  for (let i = at + ticks.length; !unclosed.has(ticks) && (i = text.indexOf(ticks, i)) >= 0; ) {
    const run = matchAt(/`+/y, text, i).length;
    if (run === ticks.length) {
      const inner = text.slice(at + ticks.length, i).replace(/\n/g, " ");
      return [{ type: "codespan", text: inner.replace(/^ (.*\S.*) $/, "$1") }, i + run];
    }
    i += run;
  }
  unclosed.add(ticks);
  return [{ type: "text", text: ticks }, at + ticks.length];
}

/* Where the bracket at `at` closes, or -1. */
function closing(text, at, open, close) {
  let depth = 0;
  for (let i = at; i < text.length && i < at + MAX_LINK; i++) {
    if (text[i] === "\\") {
      i++;
    } else if (text[i] === open) {
      depth++;
    } else if (text[i] === close && --depth === 0) {
      return i;
    }
  }
  return -1;
}

function link(text, at, depth) {
  const end = closing(text, at, "[", "]");
  const last = end > 0 && text[end + 1] === "(" ? closing(text, end + 1, "(", ")") : -1;
  if (last < 0) {
    return null;
  }
  const address = safeAddress(text.slice(end + 2, last).replace(/\s+["'(].*$/s, "").replace(/^<|>$/g, ""));
  const inline = parseInline(text.slice(at + 1, end), depth + 1);
  /* An address that is not safe leaves its words. */
  return [address ? { type: "link", address, inline } : { type: "group", inline }, last + 1];
}

function bareUrl(text, at) {
  const address = matchAt(URL_AT, text.slice(0, at + MAX_LINK), at)?.replace(/[.,;:!?*_~)\]]+$/, "");
  return address && safeAddress(address)
    ? [{ type: "link", address, inline: [{ type: "text", text: address }] }, at + address.length]
    : null;
}

const wordAt = (c) => c !== undefined && /[\p{L}\p{N}]/u.test(c);
const spaceAt = (c) => c === undefined || /\s/.test(c);

function emphasis(text, at, depth, unclosed) {
  const c = text[at];
  const run = matchAt(/\*{1,3}|_{1,3}|~~/y, text, at);
  if (!run || unclosed.has(run) || spaceAt(text[at + run.length]) || (c === "_" && wordAt(text[at - 1]))) {
    return null;
  }
  for (let i = at + run.length; (i = text.indexOf(run, i)) >= 0; i++) {
    const after = text[i + run.length];
    if (spaceAt(text[i - 1]) || [c, "\\"].includes(text[i - 1]) || after === c || (c === "_" && wordAt(after))) {
      continue;
    }
    const inline = parseInline(text.slice(at + run.length, i), depth + 1);
    const inner = run.length === 3 ? [{ type: "emphasis", inline }] : inline;
    const type = c === "~" ? "strike" : run.length === 1 ? "emphasis" : "strong";
    return [{ type, inline: inner }, i + run.length];
  }
  unclosed.add(run);
  return null;
}

function special(text, at, depth, unclosed) {
  const c = text[at];
  if (c === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
    return [{ type: "text", text: text[at + 1] }, at + 2];
  }
  if (c === "`") {
    return code(text, at, unclosed);
  }
  if (c === "\n") {
    return [{ type: "break" }, at + 1];
  }
  if (depth >= MAX_DEPTH) {
    return null;
  }
  if (c === "[") {
    return link(text, at, depth);
  }
  if (c === "!" && text[at + 1] === "[") {
    return link(text, at + 1, depth); /* a picture elsewhere is a link: nothing is loaded */
  }
  if (c === "h" || c === "H") {
    return wordAt(text[at - 1]) ? null : bareUrl(text, at);
  }
  return c === "*" || c === "_" || c === "~" ? emphasis(text, at, depth, unclosed) : null;
}

function parseInline(text, depth = 0) {
  const out = [];
  const unclosed = new Set();
  let plain = "";
  for (let i = 0; i < text.length; ) {
    const found = special(text, i, depth, unclosed);
    if (!found) {
      plain += text[i++];
      continue;
    }
    if (plain) {
      out.push({ type: "text", text: plain });
      plain = "";
    }
    out.push(found[0]);
    i = found[1];
  }
  if (plain) {
    out.push({ type: "text", text: plain });
  }
  return out;
}

/* -- DOM -------------------------------------------------------------------------------- */

const INLINE_TAGS = { emphasis: "em", strong: "strong", strike: "del", group: "span" };

function fill(node, children) {
  for (const child of children) {
    node.appendChild(child);
  }
  return node;
}

function renderInline(inline, doc) {
  return inline.map((n) => {
    switch (n.type) {
      case "text":
        return doc.createTextNode(n.text);
      case "break":
        return doc.createElement("br");
      case "codespan":
        return fill(doc.createElement("code"), [doc.createTextNode(n.text)]);
      case "link": {
        const a = doc.createElement("a");
        a.setAttribute("href", n.address);
        a.setAttribute("rel", "noopener noreferrer nofollow");
        a.setAttribute("target", "_blank");
        return fill(a, renderInline(n.inline, doc));
      }
      default:
        return fill(doc.createElement(INLINE_TAGS[n.type]), renderInline(n.inline, doc));
    }
  });
}

function renderCode(block, doc) {
  const pre = doc.createElement("pre");
  pre.setAttribute("tabindex", "0"); /* it may scroll, so a keyboard must reach it */
  if (block.lang) {
    pre.setAttribute("data-lang", block.lang);
  }
  return fill(pre, [fill(doc.createElement("code"), [doc.createTextNode(block.text)])]);
}

function renderRow(row, tag, align, doc) {
  const made = row.map((inline, i) => {
    const cell = fill(doc.createElement(tag), renderInline(inline, doc));
    if (align[i]) {
      cell.setAttribute("class", align[i]);
    }
    return cell;
  });
  return fill(doc.createElement("tr"), made);
}

function renderTable(block, doc) {
  const head = fill(doc.createElement("thead"), [renderRow(block.head, "th", block.align, doc)]);
  const body = fill(
    doc.createElement("tbody"),
    block.rows.map((r) => renderRow(r, "td", block.align, doc)),
  );
  const frame = doc.createElement("div");
  frame.setAttribute("class", "table");
  frame.setAttribute("tabindex", "0");
  return fill(frame, [fill(doc.createElement("table"), [head, body])]);
}

/* A list item of one paragraph is tight: its text without the paragraph. */
function renderItem(blocks, doc) {
  const li = doc.createElement("li");
  const tight = blocks[0]?.type === "paragraph";
  const first = tight ? renderInline(blocks[0].inline, doc) : [];
  return fill(li, [...first, ...render(tight ? blocks.slice(1) : blocks, doc)]);
}

export function render(blocks, doc) {
  return blocks.map((b) => {
    switch (b.type) {
      case "code":
        return renderCode(b, doc);
      case "heading": /* the page has h1 and h2 of its own */
        return fill(doc.createElement(`h${Math.min(b.level + 2, 6)}`), renderInline(b.inline, doc));
      case "rule":
        return doc.createElement("hr");
      case "quote":
        return fill(doc.createElement("blockquote"), render(b.blocks, doc));
      case "table":
        return renderTable(b, doc);
      case "list": {
        const node = doc.createElement(b.ordered ? "ol" : "ul");
        if (b.ordered && b.start !== 1) {
          node.setAttribute("start", String(b.start));
        }
        return fill(node, b.items.map((item) => renderItem(item, doc)));
      }
      default:
        return fill(doc.createElement("p"), renderInline(b.inline, doc));
    }
  });
}
