/* Server-sent events out of a stream of text, as WHATWG HTML 9.2.6 reads them. */

const LINE_END = /\r\n|\n|\r/;

/* Feed it pieces of any size; it gives back the events that they complete. */
export class SseParser {
  #rest = "";
  #data = [];
  #name = "";

  push(text) {
    const events = [];
    this.#rest += text;
    for (;;) {
      const end = LINE_END.exec(this.#rest);
      /* A CR at the very end may be half of a CRLF. */
      if (!end || (end[0] === "\r" && end.index + 1 === this.#rest.length)) {
        return events;
      }
      const line = this.#rest.slice(0, end.index);
      this.#rest = this.#rest.slice(end.index + end[0].length);
      const event = this.#line(line);
      if (event) {
        events.push(event);
      }
    }
  }

  #line(line) {
    if (line === "") {
      const event = this.#data.length ? { name: this.#name || "message", data: this.#data.join("\n") } : null;
      this.#data = [];
      this.#name = "";
      return event;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    value = value.startsWith(" ") ? value.slice(1) : value;
    if (field === "data") {
      this.#data.push(value);
    } else if (field === "event") {
      this.#name = value;
    }
    return null; /* a comment (": ping") or a field that nobody here needs */
  }
}
