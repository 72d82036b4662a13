/* Dry runs: what plans would do to a request, by POST /v1/compress. Answers are kept, so
 * that moving the slider back asks nobody. */
import { getJson } from "./api.js";
import { keyOf, toRequest } from "./plan.js";

const KEEP = 64;

/* A request's identity: what is said, under which system prompt. Pictures are named by their
 * ids, not by their megabytes. */
export function requestKey(turns, system) {
  return JSON.stringify([system, ...turns.map((t) => [t.role, t.text, (t.pictures ?? []).map((p) => p.id)])]);
}

export class Previews {
  #known = new Map();

  #keep(key, value) {
    this.#known.set(key, value);
    if (this.#known.size > KEEP) {
      this.#known.delete(this.#known.keys().next().value);
    }
  }

  has(key, plan) {
    return this.#known.get(key + keyOf(plan));
  }

  /* The previews of `plans` for the request of this key, in order. messages: as sent. */
  async get(key, messages, plans, signal) {
    const missing = plans.filter((p, i) => !this.has(key, p) && plans.findIndex((q) => keyOf(q) === keyOf(p)) === i);
    if (missing.length > 0) {
      const body = {
        model: "default",
        messages,
        plans: missing.map((p) => toRequest(p) ?? {}),
        return_overlay: true,
      };
      const answer = await getJson("/v1/compress", { body, signal });
      missing.forEach((p, i) => this.#keep(key + keyOf(p), answer.plans[i]));
    }
    return plans.map((p) => this.has(key, p));
  }
}
