/* Plans as requests, numbers as words, bills as sentences' parts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { explain } from "../../web/errors.js";
import { bytes, duration, percent, times } from "../../web/numbers.js";
import { figures, rates } from "../../web/panel-figures.js";
import { parseMetrics } from "../../web/metrics.js";
import { fromKey, keyOf, nearestRatio, planName, toRequest } from "../../web/plan.js";

test("plan: what is sent", () => {
  assert.equal(toRequest({ profile: null, ratio: null }), undefined);
  assert.equal(toRequest({ profile: "off", ratio: null }), "off");
  assert.deepEqual(toRequest({ profile: null, ratio: 1 }), { image: "off" });
  assert.deepEqual(toRequest({ profile: "balanced", ratio: 8 }), { profile: "balanced", image: { method: "tome", ratio: 8 } });
});

test("plan: keys and names", () => {
  const plan = { profile: "balanced", ratio: 1.5 };
  assert.deepEqual(fromKey(keyOf(plan)), plan);
  assert.equal(planName(plan), "balanced, pictures 1.5×");
  assert.equal(planName({ profile: null, ratio: 1 }), "server's plan, pictures off");
});

test("plan: the nearest step of the slider", () => {
  for (const [ratio, step] of [[1, 1], [0, 1], [2.79, 3], [4, 4], [4.8, 4], [5, 6], [100, 16]]) {
    assert.equal(nearestRatio(ratio), step, `${ratio}`);
  }
});

test("numbers: as people read them", () => {
  assert.deepEqual([0, 0.25, 9.44, 84.4, 1240, 74000].map(duration), ["0 ms", "0.25 ms", "9.4 ms", "84 ms", "1.24 s", "74 s"]);
  assert.deepEqual([0, 1023, 2627472, 1 << 30].map(bytes), ["0 B", "1023 B", "2.5 MiB", "1.0 GiB"]);
  assert.deepEqual([2.794, 4, 16.2].map(times), ["2.8×", "4×", "16×"]);
  assert.deepEqual([0, 0.004, 0.5, 1].map(percent), ["0 %", "0.4 %", "50 %", "100 %"]);
});

test("errors: in words, with what to do", () => {
  const key = explain({ status: 401, code: "invalid_api_key", message: "an API key is needed" });
  assert.equal(key.action, "settings");
  assert.match(explain({ status: 429, code: "queue_full", message: "", retryAfter: 7 }).todo, /7 s/);
  assert.match(explain({ status: 0, message: "" }).title, /cannot be reached/);
  assert.match(explain({ status: 503, code: "brand_new", message: "x" }).title, /not ready/);
  const unknown = explain({ status: 400, code: "out_of_range", param: "max_tokens", message: "too much" });
  assert.match(unknown.detail, /too much \(max_tokens\)/);
});

test("panel: rates and figures from two scrapes", () => {
  const scrape = (tokens, n) =>
    parseMetrics(`tamp_generation_tokens_total ${tokens}
tamp_prompt_tokens_total ${10 * tokens}
tamp_num_requests_running 2
tamp_compression_input_tokens_total{modality="image",method="tome"} 256
tamp_compression_input_tokens_total{modality="text",method="cosine"} 44
tamp_compression_output_tokens_total{modality="image",method="tome"} 64
tamp_compression_output_tokens_total{modality="text",method="cosine"} 36
tamp_image_cache_queries_total 4
tamp_image_cache_hits_total 3
tamp_time_to_first_token_seconds_bucket{le="0.1"} ${n}
tamp_time_to_first_token_seconds_bucket{le="+Inf"} ${n}
tamp_time_to_first_token_seconds_count ${n}
`);
  const old = scrape(100, 0);
  const now = scrape(150, 4);
  const rate = rates(old, now, 2);
  assert.deepEqual(rate, { answer: 25, prompt: 250 });
  const shown = Object.fromEntries(figures(old, now, rate).map(([name, value, more]) => [name, [value, more]]));
  assert.deepEqual(shown.Running[0], "2");
  assert.deepEqual(shown["Rows saved"], ["200", "67 % of what could merge"]);
  assert.deepEqual(shown["Picture cache"][0], "75 %");
  assert.deepEqual(shown["Prompt cache"][0], "–");
  assert.deepEqual(shown["First token, p50"], ["50 ms", "in the last minute"]);
});
