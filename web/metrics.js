/* Prometheus' text format, and what can be read off two scrapes. */

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?$/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n", '"': '"', "\\": "\\" };

function parseNumber(text) {
  const infinite = { "+Inf": Infinity, Inf: Infinity, "-Inf": -Infinity };
  return text in infinite ? infinite[text] : Number(text);
}

function parseLabels(text) {
  const labels = {};
  for (const [, name, value] of (text ?? "").matchAll(LABEL)) {
    labels[name] = value.replace(/\\(.)/g, (all, c) => ESCAPES[c] ?? all);
  }
  return labels;
}

/* Text of /metrics -> Map of name -> [{labels, value}]. Lines that are none are skipped. */
export function parseMetrics(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const m = line.startsWith("#") ? null : SAMPLE.exec(line.trim());
    if (m) {
      const list = samples.get(m[1]) ?? [];
      list.push({ labels: parseLabels(m[2]), value: parseNumber(m[3]) });
      samples.set(m[1], list);
    }
  }
  return samples;
}

/* The sum over the series of a metric that have all these labels. */
export function total(samples, name, labels = {}) {
  let sum = 0;
  for (const s of samples?.get(name) ?? []) {
    if (Object.entries(labels).every(([k, v]) => s.labels[k] === v)) {
      sum += s.value;
    }
  }
  return sum;
}

/* What a counter grew by between two scrapes. It begins again at 0 with the server. */
export function growth(before, after, name, labels = {}) {
  const now = total(after, name, labels);
  const then = total(before, name, labels);
  return now >= then ? now - then : now;
}

/* Cumulative buckets of a histogram, added up over its series: [[le, count]...] by le. */
function buckets(samples, name) {
  const sums = new Map();
  for (const s of samples?.get(`${name}_bucket`) ?? []) {
    const le = parseNumber(s.labels.le);
    sums.set(le, (sums.get(le) ?? 0) + s.value);
  }
  return [...sums].sort((a, b) => a[0] - b[0]);
}

/* The q-quantile of what a histogram saw between two scrapes (before: null = since the
 * start), linear inside a bucket as Prometheus' histogram_quantile. null without events. */
export function quantile(before, after, name, q) {
  const now = buckets(after, name);
  const then = new Map(buckets(before, name));
  const restarted = now.some(([le, n]) => n < (then.get(le) ?? 0));
  const counts = now.map(([le, n]) => [le, n - (restarted ? 0 : (then.get(le) ?? 0))]);
  const all = counts.length ? counts[counts.length - 1][1] : 0;
  if (all <= 0) {
    return null;
  }
  const rank = q * all;
  let low = 0;
  let below = 0;
  for (const [le, n] of counts) {
    if (n >= rank) {
      return le === Infinity ? low : low + ((le - low) * (rank - below)) / (n - below || 1);
    }
    low = le;
    below = n;
  }
  return low;
}
