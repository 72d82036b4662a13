/* Prometheus' text format; quantiles as its own histogram_quantile gives them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { growth, parseMetrics, quantile, total } from "../../web/metrics.js";

const text = (n) => `# HELP a_total Things.
# TYPE a_total counter
a_total{kind="x",note="a \\"b\\" \\\\ c\\nd"} ${n}
a_total{kind="y"} 3 1395066363000
b 1.5e+3
not a line
h_seconds_bucket{le="0.1"} ${n}
h_seconds_bucket{le="0.5"} ${n + 6}
h_seconds_bucket{le="1"} ${n + 9}
h_seconds_bucket{le="+Inf"} ${n + 10}
h_seconds_sum 12
h_seconds_count ${n + 10}
`;

test("metrics: names, labels, escapes, timestamps", () => {
  const m = parseMetrics(text(4));
  assert.deepEqual(m.get("a_total"), [
    { labels: { kind: "x", note: 'a "b" \\ c\nd' }, value: 4 },
    { labels: { kind: "y" }, value: 3 },
  ]);
  assert.equal(total(m, "b"), 1500);
  assert.equal(total(m, "a_total"), 7);
  assert.equal(total(m, "a_total", { kind: "y" }), 3);
  assert.equal(total(m, "absent"), 0);
  assert.equal(m.get("h_seconds_bucket")[3].labels.le, "+Inf");
});

test("metrics: counters grow, and begin again with the server", () => {
  assert.equal(growth(parseMetrics(text(4)), parseMetrics(text(9)), "a_total"), 5);
  assert.equal(growth(parseMetrics(text(9)), parseMetrics(text(4)), "a_total"), 7);
  assert.equal(growth(null, parseMetrics(text(4)), "a_total"), 7);
});

test("metrics: quantiles of all time", () => {
  const m = parseMetrics(text(0)); /* 0, 6, 3, 1 in the four buckets */
  assert.equal(quantile(null, m, "h_seconds", 0.3), 0.1 + (0.4 * 3) / 6);
  assert.equal(quantile(null, m, "h_seconds", 0.9), 1);
  assert.equal(quantile(null, m, "h_seconds", 0.99), 1); /* beyond the last border: the border */
  assert.equal(quantile(null, m, "absent", 0.5), null);
});

test("metrics: quantiles between two scrapes", () => {
  const before = parseMetrics(text(0));
  const after = parseMetrics(text(8)); /* eight more below 0.1, nothing else */
  assert.equal(quantile(before, after, "h_seconds", 0.5), 0.05);
  assert.equal(quantile(after, after, "h_seconds", 0.5), null);
  /* a server that was restarted counts from nothing */
  assert.equal(quantile(after, before, "h_seconds", 0.3), quantile(null, before, "h_seconds", 0.3));
});
