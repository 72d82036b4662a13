/* The bill of an answer: rows, milliseconds, bytes, and what it would have cost without
 * packing. Reads usage, timings and memory of the last chunk. */
import { el, svg } from "./dom.js";
import { bytes, count, duration, percent, times } from "./numbers.js";
import { reasonWords, stageWords } from "./reasons.js";

const MODALITIES = { image: "Pictures", text: "Text", lm: "Inside the model" };

/* One line, for everyone. */
export function summary({ usage, timings }) {
  const c = usage.compression;
  const parts = [
    c.original_tokens > c.compressed_tokens
      ? `${count(c.original_tokens)} → ${count(c.compressed_tokens)} rows`
      : `${count(c.original_tokens)} rows, nothing merged`,
    `first token ${duration(timings.first_token_ms)}`,
  ];
  if (usage.completion_tokens > 1) {
    parts.push(`${timings.predicted_per_second.toFixed(0)} tokens/s`);
  }
  return parts.map((p) => p.replaceAll(" ", "\u00a0")).join(" · ");
}

function rowsTable(usage, timings) {
  const c = usage.compression;
  const rows = Object.entries(MODALITIES)
    .filter(([key]) => c[key])
    .map(([key, name]) => {
      const s = c[key];
      const how = s.method === "off" ? "" : s.method;
      return [
        [name, how && el("small", {}, how)],
        `${count(s.rows_in)} → ${count(s.rows_out)}`,
        s.rows_out < s.rows_in ? times(s.ratio) : "–",
        how ? duration(s.ms) : "–",
      ];
    });
  rows.push([["Together"], `${count(c.original_tokens)} → ${count(c.compressed_tokens)}`, times(c.ratio), duration(timings.compress_ms)]);
  const head = ["Stage", "Rows", "Packed", "Time"];
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, head.map((h) => el("th", { scope: "col" }, h)))),
    el(
      "tbody",
      {},
      rows.map(([name, ...rest]) =>
        el("tr", {}, el("th", { scope: "row" }, name), rest.map((v) => el("td", {}, v))),
      ),
    ),
  );
}

/* Where the time went, in order; what the named parts leave of the first token is "other". */
function phases(timings) {
  const vision = Math.max(0, timings.vision_ms - timings.compress_ms);
  const named = [
    ["p-queue", "Queue", timings.queue_ms],
    ["p-decode", "Picture files", timings.image_decode_ms],
    ["p-vision", "Vision tower", vision],
    ["p-pack", "Packing", timings.compress_ms],
    ["p-prompt", "Prompt", timings.prompt_ms],
  ];
  const other = timings.first_token_ms - named.reduce((sum, p) => sum + p[2], 0);
  const answer = Math.max(0, timings.total_ms - timings.first_token_ms);
  return [...named, ["p-other", "Other", Math.max(0, other)], ["p-answer", "Answer", answer]].filter((p) => p[2] >= 0.05);
}

function timeline(timings) {
  const list = phases(timings);
  const total = list.reduce((sum, p) => sum + p[2], 0) || 1;
  let x = 0;
  const bars = list.map(([key, , ms]) => {
    const width = (100 * ms) / total;
    const bar = svg("rect", { x, y: 0, width, height: 8, class: `phase ${key}` });
    x += width;
    return bar;
  });
  return [
    svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", class: "timeline", "aria-hidden": "true" }, ...bars),
    el(
      "ul",
      { class: "phases" },
      list.map(([key, name, ms]) => el("li", { class: key }, `${name} `, el("b", {}, duration(ms)))),
    ),
  ];
}

/* estimates: the previews of the same request, as it was asked and under "off", where there
 * were some. Both are without caches: what was measured may have profited from them. */
function without(bill, estimates) {
  const { usage, memory } = bill;
  const c = usage.compression;
  if (c.original_tokens <= c.compressed_tokens) {
    return el("p", {}, "Nothing was merged, so it would have cost the same without tamp's packing.");
  }
  const kv = memory.kv_bytes + memory.kv_bytes_saved;
  const facts = [`${count(c.original_tokens)} rows instead of ${count(c.compressed_tokens)}`];
  if (memory.kv_bytes_saved > 0) {
    facts.push(`${bytes(kv)} of keys and values instead of ${bytes(memory.kv_bytes)}`);
  }
  const [packed, unpacked] = (estimates ?? []).map((p) => p?.estimated.first_token_ms);
  if (packed && unpacked) {
    facts.push(`the first token after about ${duration(unpacked)} instead of ${duration(packed)}, estimated without caches`);
  }
  return el("p", {}, `Unpacked it would have been ${facts.join(", ")}.`);
}

function notes({ usage, timings, memory }) {
  const out = usage.compression.skipped.map((s) => `${stageWords(s.stage)} not packed: ${reasonWords(s.reason)}.`);
  if (usage.compression.image && timings.vision_ms === 0) {
    out.push("The pictures were known already, so the vision tower had nothing to do.");
  }
  if (timings.cache_n > 0) {
    out.push(`${count(timings.cache_n)} rows were known from an earlier request.`);
  }
  if (timings.draft_n > 0) {
    out.push(`${percent(timings.draft_n_accepted / timings.draft_n)} of ${count(timings.draft_n)} drafted tokens were right.`);
  }
  out.push(`Keys and values ${bytes(memory.kv_bytes)}, at most ${bytes(memory.peak_bytes)} at once. Profile: ${usage.compression.profile}.`);
  return el("ul", { class: "notes" }, out.map((t) => el("li", {}, t)));
}

export function billNode(bill, estimates) {
  const c = bill.usage.compression;
  const badge = c.original_tokens > c.compressed_tokens ? el("b", { class: "badge" }, times(c.ratio)) : null;
  const show = (e) => e.target.open && e.target.scrollIntoView({ block: "nearest" });
  return el(
    "details",
    { class: "bill", ontoggle: show },
    el("summary", {}, badge, el("span", {}, summary(bill))),
    el(
      "div",
      { class: "bill-body" },
      rowsTable(bill.usage, bill.timings),
      timeline(bill.timings),
      without(bill, estimates),
      notes(bill),
    ),
  );
}
