// The official Node client: plain, streamed, a picture, error types. Starts its own
// server; ends with "N passed, N failed, N skipped".
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const binary = process.env.TAMP_BINARY ?? join(root, "tamp");
const model = join(root, "models/SmolLM2-135M-Instruct.Q4_1.gguf");
const mmproj = join(root, "models/mmproj-dinov2-s14-smollm2.gguf");
const READY_MS = 120_000;

function finish(passed, failed, skipped) {
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  process.exit(failed ? 1 : 0);
}

for (const [path, how] of [
  [model, "make models"],
  [mmproj, "make models"],
  [join(root, "tests/http/node/node_modules/openai"), "make test"],
]) {
  if (!existsSync(path)) {
    console.log(`skip  ${path} is missing: run ${how}`);
    finish(0, 0, 1);
  }
}
const { default: OpenAI } = await import("openai");

function freePort() {
  return new Promise((resolve) => {
    const s = createServer().listen(0, "127.0.0.1", () => {
      const { port } = s.address();
      s.close(() => resolve(port));
    });
  });
}

const port = await freePort();
const args = ["serve", "--port", String(port), "--model", model, "--mmproj", mmproj];
const server = spawn(binary, args, { cwd: root, stdio: ["ignore", "ignore", "pipe"] });
let log = "";
server.stderr.on("data", (d) => (log = (log + d).slice(-8000)));
const until = Date.now() + READY_MS;
for (;;) {
  const answer = await fetch(`http://127.0.0.1:${port}/health`).catch(() => null);
  if (answer?.ok) break;
  if (server.exitCode !== null || Date.now() > until) {
    console.log(log);
    finish(0, 1, 0);
  }
  await new Promise((r) => setTimeout(r, 100));
}

const api = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "x", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const ask = (more) =>
  api.chat.completions.create({ model: "default", messages, max_tokens: 8, temperature: 0, ...more });

const cases = {
  async plain() {
    const answer = await ask({});
    assert.ok(answer.choices[0].message.content);
    assert.equal(answer.choices[0].message.refusal, null);
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
    assert.equal(answer.usage.compression.profile, "balanced");
  },
  async streamed() {
    const whole = (await ask({})).choices[0].message.content;
    let text = "";
    let usage = null;
    for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole);
    assert.ok(usage.completion_tokens > 0);
  },
  async "left early"() {
    const stream = await ask({ stream: true, max_tokens: 500, ignore_eos: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break;
    }
    stream.controller.abort();
    assert.ok((await ask({ max_tokens: 1 })).choices.length === 1);
  },
  async picture() {
    const png = readFileSync(join(root, "tests/golden/picture_224.png")).toString("base64");
    const content = [
      { type: "image_url", image_url: { url: `data:image/png;base64,${png}` } },
      { type: "text", text: "What kind of product is it?" },
    ];
    const answer = await ask({ messages: [{ role: "user", content }] });
    assert.equal(answer.usage.compression.image.rows_out, 64);
  },
  async "tools and schemas"() {
    const parameters = {
      type: "object",
      properties: { size: { enum: ["S", "M", "L"] } },
      required: ["size"],
      additionalProperties: false,
    };
    const tools = [{ type: "function", function: { name: "find_size", parameters } }];
    const told = await ask({ tools, tool_choice: "required", max_tokens: 100, parallel_tool_calls: false });
    assert.equal(told.choices[0].finish_reason, "tool_calls");
    const call = told.choices[0].message.tool_calls[0];
    assert.ok(["S", "M", "L"].includes(JSON.parse(call.function.arguments).size));
    let streamed = "";
    for await (const chunk of await ask({ tools, tool_choice: "required", max_tokens: 100, stream: true, parallel_tool_calls: false })) {
      streamed += chunk.choices[0]?.delta.tool_calls?.[0]?.function?.arguments ?? "";
    }
    assert.equal(streamed, call.function.arguments);
    const result = { role: "tool", tool_call_id: call.id, content: "in stock" };
    const end = await ask({ messages: [...messages, told.choices[0].message, result] });
    assert.ok(end.choices[0].message.content);
    const format = { type: "json_schema", json_schema: { name: "s", strict: true, schema: parameters } };
    const shaped = await ask({ response_format: format, max_tokens: 100 });
    assert.ok(["S", "M", "L"].includes(JSON.parse(shaped.choices[0].message.content).size));
  },
  async errors() {
    await assert.rejects(ask({ temperature: 9 }), (e) => {
      assert.ok(e instanceof OpenAI.BadRequestError);
      assert.equal(e.code, "out_of_range");
      assert.equal(e.param, "temperature");
      return true;
    });
    await assert.rejects(ask({ model: "none" }), OpenAI.NotFoundError);
  },
  async completions() {
    const more = { model: "default", prompt: ["Two plus two is", "Once upon"], max_tokens: 6, temperature: 0 };
    const whole = await api.completions.create(more);
    const texts = ["", ""];
    for await (const chunk of await api.completions.create({ ...more, stream: true })) {
      for (const choice of chunk.choices) texts[choice.index] += choice.text;
    }
    assert.deepEqual(texts, whole.choices.map((c) => c.text));
  },
  async embeddings() {
    // without encoding_format the client asks for base64 and unpacks it
    const input = ["a rain jacket", "a poem"];
    const packed = await api.embeddings.create({ model: "default", input });
    const plain = await api.embeddings.create({ model: "default", input, encoding_format: "float" });
    packed.data.forEach((d, i) => {
      assert.equal(d.embedding.length, plain.data[i].embedding.length);
      d.embedding.forEach((x, k) => assert.ok(Math.abs(x - plain.data[i].embedding[k]) < 1e-8));
    });
  },
  async responses() {
    const more = { model: "default", input: messages[0].content, max_output_tokens: 8, temperature: 0 };
    const whole = await api.responses.create(more);
    assert.equal(whole.output_text, (await ask({})).choices[0].message.content);
    const stream = api.responses.stream(more);
    const kinds = new Set();
    for await (const event of stream) kinds.add(event.type);
    assert.ok(kinds.has("response.output_text.delta"));
    const final = await stream.finalResponse();
    assert.equal(final.output[0].content[0].text, whole.output_text);
    assert.equal(final.usage.total_tokens, whole.usage.total_tokens);
  },
  async models() {
    const list = await api.models.list();
    assert.equal(list.data.length, 1);
  },
};

let passed = 0;
let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    passed++;
    console.log(`ok    ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${name}: ${error.message}`);
  }
}
server.once("exit", () => finish(passed, failed, 0));
server.kill("SIGTERM");
