/* Talking to the server this page came from. The key lives as long as the tab. */
import { SseParser } from "./sse.js";

const KEY = "tamp.key";
let key = "";
try {
  key = sessionStorage.getItem(KEY) ?? "";
} catch {
  /* storage is switched off: the key lives as long as the page */
}

export const getKey = () => key;

export function setKey(value) {
  key = value.trim();
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    /* as above */
  }
}

/* What the server refused. status 0: it was not reached; code as in the answer. */
export class ApiError extends Error {
  constructor(status, { message = "", code = null, param = null } = {}, retryAfter = 0) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfter = retryAfter;
  }
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    /* not ours: a proxy's page, perhaps */
  }
  return new ApiError(response.status, error, Number(response.headers.get("Retry-After")) || 0);
}

async function call(path, { body, signal } = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const init = { headers, signal, credentials: "omit", redirect: "error" };
  if (body !== undefined) {
    init.method = "POST";
    init.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError(0);
  }
  if (!response.ok) {
    throw await refusal(response);
  }
  return response;
}

export async function getJson(path, options) {
  return (await call(path, options)).json();
}

export async function getText(path, options) {
  return (await call(path, options)).text();
}

/* The chunks of a streamed answer, as objects. Throws where the stream breaks off. */
export async function* stream(path, body, signal) {
  const response = await call(path, { body, signal });
  const parser = new SseParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        throw new ApiError(0, { code: "stream_broken" });
      }
      for (const { data } of parser.push(value)) {
        if (data === "[DONE]") {
          return;
        }
        const chunk = JSON.parse(data);
        if (chunk.error) {
          throw new ApiError(500, chunk.error);
        }
        yield chunk;
      }
    }
  } catch (error) {
    throw error.name === "AbortError" || error instanceof ApiError ? error : new ApiError(0, { code: "stream_broken" });
  } finally {
    reader.cancel().catch(() => {}); /* it may have ended already */
  }
}
