/* The Markdown of the page, against the HTML that CommonMark 0.31 and GFM want, where the
 * page shows the same (headings are two levels lower, links carry rel and target). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parse, render, safeAddress } from "../../web/markdown.js";

/* As much of a document as rendering uses. Escapes as HTML does, so that what reached a
 * text node shows as text. */
class FakeNode {
  constructor(tag) {
    this.tag = tag;
    this.attributes = [];
    this.children = [];
  }
  setAttribute(name, value) {
    this.attributes.push([name, value]);
  }
  appendChild(child) {
    this.children.push(child);
  }
  toString() {
    const attributes = this.attributes.map(([n, v]) => ` ${n}="${escape(v)}"`).join("");
    const empty = ["br", "hr"].includes(this.tag);
    return empty ? `<${this.tag}>` : `<${this.tag}${attributes}>${this.children.join("")}</${this.tag}>`;
  }
}
const escape = (t) => t.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
const doc = { createElement: (tag) => new FakeNode(tag), createTextNode: (text) => escape(text) };
const html = (text) => render(parse(text), doc).join("");
const link = (address, words) =>
  `<a href="${address}" rel="noopener noreferrer nofollow" target="_blank">${words}</a>`;

const cases = [
  ["a paragraph", "one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"],
  ["headings", "# a\n###### b #\n#c", "<h3>a</h3><h6>b</h6><p>#c</p>"],
  ["emphasis", "*a* _b_ **c** __d__ ***e*** ~~f~~", "<p><em>a</em> <em>b</em> <strong>c</strong> <strong>d</strong> <strong><em>e</em></strong> <del>f</del></p>"],
  ["underscores inside words", "snake_case_name and 2 * 3 * 4", "<p>snake_case_name and 2 * 3 * 4</p>"],
  ["emphasis that nothing closes", "*a **b", "<p>*a **b</p>"],
  ["escapes", "\\*a\\* \\<b\\>", "<p>*a* &lt;b&gt;</p>"],
  ["code spans", "`` a`b `` and `<i>`", "<p><code>a`b</code> and <code>&lt;i&gt;</code></p>"],
  ["emphasis does not reach into code", "`*a*` `b", "<p><code>*a*</code> `b</p>"],
  ["a fence", "```js\nif (a < b) {\n  *x*\n}\n```\nafter", '<pre tabindex="0" data-lang="js"><code>if (a &lt; b) {\n  *x*\n}</code></pre><p>after</p>'],
  ["a fence while it is still being written", "```\na\n", '<pre tabindex="0"><code>a\n</code></pre>'],
  ["a longer fence holds a shorter one", "````\n```\n````", '<pre tabindex="0"><code>```</code></pre>'],
  ["a list", "- a\n- b\n* c", "<ul><li>a</li><li>b</li><li>c</li></ul>"],
  ["a nested list", "- a\n  - b\n    - c\n- d", "<ul><li>a<ul><li>b<ul><li>c</li></ul></li></ul></li><li>d</li></ul>"],
  ["numbers and where they start", "3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'],
  ["a loose list", "1. a\n\n2. b", "<ol><li>a</li><li>b</li></ol>"],
  ["code in a list", "- a\n  ```\n  x\n  ```\n- b", '<ul><li>a<pre tabindex="0"><code>x</code></pre></li><li>b</li></ul>'],
  ["a quote", "> a\n> - b\n\nc", "<blockquote><p>a</p><ul><li>b</li></ul></blockquote><p>c</p>"],
  ["rules are no lists", "a\n\n---\n* * *", "<p>a</p><hr><hr>"],
  ["a table", "| a | b |\n|:-:|--:|\n| 1 | `x|y` |\n| 2 |", '<div class="table" tabindex="0"><table><thead><tr><th class="center">a</th><th class="right">b</th></tr></thead><tbody><tr><td class="center">1</td><td class="right"><code>x|y</code></td></tr><tr><td class="center">2</td><td class="right"></td></tr></tbody></table></div>'],
  ["a bar is no table", "a | b\nc", "<p>a | b<br>c</p>"],
  ["a link", "[a *b*](https://example.org/x_(y) \"title\")", `<p>${link("https://example.org/x_(y)", "a <em>b</em>")}</p>`],
  ["a bare address", "see https://example.org/a_b. And", `<p>see ${link("https://example.org/a_b", "https://example.org/a_b")}. And</p>`],
  ["pictures elsewhere are links, nothing is loaded", "![alt](https://example.org/p.png)", `<p>${link("https://example.org/p.png", "alt")}</p>`],
  ["raw HTML is text", '<script>alert(1)</script> <img src=x onerror="a()">', "<p>&lt;script&gt;alert(1)&lt;/script&gt; &lt;img src=x onerror=&quot;a()&quot;&gt;</p>"],
  ["the language of a fence stays an attribute", '```"><script>\na\n```', '<pre tabindex="0" data-lang="&quot;&gt;&lt;script&gt;"><code>a</code></pre>'],
];
for (const [name, text, expected] of cases) {
  test(`markdown: ${name}`, () => assert.equal(html(text), expected));
}

for (const bad of [
  "javascript:alert(1)",
  "JaVaScRiPt:alert(1)",
  " java\tscript:alert(1)",
  "java\nscript:alert(1)",
  "\u0001javascript:alert(1)",
  "data:text/html,<script>alert(1)</script>",
  "vbscript:x",
  "file:///etc/passwd",
  "//example.org",
  "/v1/models",
  "https://a b",
]) {
  test(`markdown: no link to ${JSON.stringify(bad)}`, () => {
    assert.equal(safeAddress(bad), null);
    assert.ok(!html(`[x](${bad})`).includes("href"));
  });
}

test("markdown: a text of nothing but marks takes no longer than another", () => {
  const marks = ["*a ", "[", "`a``", "> ", "a*b**c***d_e", "[a](", "https://a ", "![", "- ", "|"];
  const plain = "word ".repeat(20000);
  const cost = (text) => {
    const began = process.hrtime.bigint();
    parse(text);
    return Number(process.hrtime.bigint() - began);
  };
  cost(plain);
  /* Quadratic work would be four times as much again for twice the text; it is given ten
   * times as much in all, against noise. */
  for (const m of marks) {
    const once = Math.min(...[1, 2, 3].map(() => cost(m.repeat(20000))));
    const twice = Math.min(...[1, 2, 3].map(() => cost(m.repeat(160000))));
    assert.ok(twice < once * 8 * 10 + 5e7, `${JSON.stringify(m)}: ${once} ns, then ${twice} ns`);
  }
});

test("markdown: nesting has an end", () => {
  assert.ok(html("> ".repeat(5000) + "x").includes("x"));
  assert.ok(html("*a **b ".repeat(3000)).includes("b"));
  assert.ok(html("- ".repeat(5000) + "x").includes("x"));
});
