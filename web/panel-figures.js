/* What scrapes of /metrics say about the server. Rates are differences between two of them;
 * quantiles are of the last minute, or of all time when nothing came in the last minute. */
import { growth, quantile, total } from "./metrics.js";
import { bytes, count, duration, percent } from "./numbers.js";

const FIRST_TOKEN = "tamp_time_to_first_token_seconds";

const share = (part, all) => (all > 0 ? percent(part / all) : "–");
const seconds = (s) => (s === null ? "–" : duration(s * 1000));

/* Two scrapes and the seconds between them -> tokens a second, of answers and of prompts. */
export function rates(before, after, dt) {
  if (!before || dt <= 0) {
    return { answer: 0, prompt: 0 };
  }
  return {
    answer: growth(before, after, "tamp_generation_tokens_total") / dt,
    prompt: growth(before, after, "tamp_prompt_tokens_total") / dt,
  };
}

/* What the panel shows, as [name, value, more]. `old` is the scrape a minute ago. */
export function figures(old, now, rate) {
  const windowed = growth(old, now, `${FIRST_TOKEN}_count`) > 0 ? old : null;
  const rowsIn = total(now, "tamp_compression_input_tokens_total");
  const saved = rowsIn - total(now, "tamp_compression_output_tokens_total");
  const hits = (name) =>
    share(total(now, `tamp_${name}_cache_hits_total`), total(now, `tamp_${name}_cache_queries_total`));
  return [
    ["Running", count(total(now, "tamp_num_requests_running")), "requests being computed"],
    ["Waiting", count(total(now, "tamp_num_requests_waiting")), "requests in the queue"],
    ["Answers", `${count(rate.answer)}/s`, "tokens written a second"],
    ["Prompts", `${count(rate.prompt)}/s`, "rows read a second"],
    ["First token, p50", seconds(quantile(windowed, now, FIRST_TOKEN, 0.5)), windowed ? "in the last minute" : "since the start"],
    ["First token, p95", seconds(quantile(windowed, now, FIRST_TOKEN, 0.95)), windowed ? "in the last minute" : "since the start"],
    ["Rows saved", count(saved), `${share(saved, rowsIn)} of what could merge`],
    ["Picture cache", hits("image"), "pictures known already"],
    ["Prompt cache", hits("prefix"), "rows known already"],
    ["KV memory", percent(total(now, "tamp_kv_cache_usage_ratio")), `process ${bytes(total(now, "process_resident_memory_bytes"))}`],
  ];
}
