/* Node's test runner in the form of the other parts: a line for each test that failed, and
 * "N passed, N failed, N skipped" at the end. */
export default async function* reporter(events) {
  const n = { passed: 0, failed: 0, skipped: 0 };
  for await (const { type, data } of events) {
    const leaf = data?.details?.type !== "suite";
    if (type === "test:pass" && leaf) {
      n[data.skip === undefined ? "passed" : "skipped"]++;
    } else if (type === "test:fail" && leaf) {
      n.failed++;
      yield `FAIL  ${data.name}: ${data.details.error?.cause?.message ?? data.details.error}\n`;
    }
  }
  yield `${n.passed} passed, ${n.failed} failed, ${n.skipped} skipped\n`;
}
