/* A request of the conversation, and its answer as it streams in. */
import { ApiError, stream } from "./api.js";
import { settingFields, settings } from "./settings.js";
import { toRequest } from "./plan.js";

function contentOf(turn) {
  if (!turn.pictures?.length) {
    return turn.text;
  }
  const parts = turn.pictures.map((p) => ({ type: "image_url", image_url: { url: p.url } }));
  return turn.text ? [...parts, { type: "text", text: turn.text }] : parts;
}

/* Turns as the API wants them, under the system prompt that is set. */
export function messagesOf(turns) {
  const said = turns.map((t) => ({ role: t.role, content: contentOf(t) }));
  const system = settings.system.trim();
  return system ? [{ role: "system", content: system }, ...said] : said;
}

export class Chat {
  #abort = null;

  get busy() {
    return this.#abort !== null;
  }

  stop() {
    this.#abort?.abort();
  }

  /* turns: {role: "user", text, pictures} and {role: "assistant", text}.
   * Fills `answer` {text, bill, error, stopped, finish} as it comes; never throws.
   * alone: for comparisons, where caches would favour whoever is second. */
  async ask(turns, answer, plan, alone, ongrow) {
    const compression = toRequest(plan);
    const body = {
      model: "default",
      messages: messagesOf(turns),
      stream: true,
      ...settingFields(),
      ...(compression === undefined ? {} : { compression }),
      ...(alone ? { cache_prompt: false } : {}),
    };
    this.#abort = new AbortController();
    try {
      for await (const chunk of stream("/v1/chat/completions", body, this.#abort.signal)) {
        const choice = chunk.choices?.[0];
        if (choice?.delta?.content) {
          answer.text += choice.delta.content;
          ongrow();
        }
        answer.finish = choice?.finish_reason ?? answer.finish;
        if (chunk.usage) {
          answer.bill = { usage: chunk.usage, timings: chunk.timings, memory: chunk.memory };
        }
      }
    } catch (error) {
      if (error.name === "AbortError") {
        answer.stopped = true;
      } else {
        answer.error = error instanceof ApiError ? error : new ApiError(0, { message: String(error.message ?? error) });
      }
    } finally {
      this.#abort = null;
    }
  }
}
