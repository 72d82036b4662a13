/* Server-sent events as WHATWG HTML 9.2.6 reads them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SseParser } from "../../web/sse.js";

const STREAM = ': ping\n\ndata: {"a":1}\n\ndata:  two\ndata\ndata:lines\r\n\r\nevent: end\rid: 7\rdata: é€😀\r\rdata: never ended';
const EVENTS = [
  { name: "message", data: '{"a":1}' },
  { name: "message", data: " two\n\nlines" },
  { name: "end", data: "é€😀" },
];

test("sse: a stream in one piece", () => {
  assert.deepEqual(new SseParser().push(STREAM), EVENTS);
});

test("sse: the same stream, cut anywhere", () => {
  for (let size = 1; size < 12; size++) {
    const parser = new SseParser();
    const got = [];
    for (let i = 0; i < STREAM.length; i += size) {
      got.push(...parser.push(STREAM.slice(i, i + size)));
    }
    assert.deepEqual(got, EVENTS, `pieces of ${size}`);
  }
});

test("sse: comments and empty lines alone are no events", () => {
  assert.deepEqual(new SseParser().push(": ping\n\n\n\nevent: x\n\n: ping\n\n"), []);
});
