/** Many requests, most of them aborted at any time, and an engine that is closed while they run: each ends, and soon. */

/** A call that takes longer hangs. */
const closeTimeoutMs = 20_000;
/** How requests may end that nothing was wrong with. */
const fineCodes = ['capacity.shutting-down', 'request.aborted'];

/** What is wrong, in words. Closes the engine. */
export async function storm(llm, requests) {
  const gentle = requests.map((request) => run(llm, request));
  const lifetimeMs = 5 * (requests.length % 23);
  await sleep(lifetimeMs);
  const closing = llm.close().then(() => undefined);
  const tooLate = sleep(closeTimeoutMs).then(() => `close() has not ended after ${closeTimeoutMs / 1000} s`);
  const fault = await Promise.race([closing, tooLate]);
  if (fault !== undefined) return fault;
  const ends = await Promise.race([
    Promise.all(gentle),
    tooLate.then(() => ['a request has not ended by then']),
  ]);
  return ends.find((end) => end !== undefined);
}

/** Aborted after a while by its signal; the answer may be longer than there is time for. */
async function run(llm, { index, prompt, params, delayMs, abortAfter }) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), abortAfter === Infinity ? 3 * index : delayMs);
  try {
    const whole = { ...params, maxTokens: 200, minTokens: 0, ignoreEos: true, stop: [], stopTokenIds: [] };
    for await (const output of llm.stream(prompt, whole, { signal: abort.signal }))
      if (output.finished && output.outputs.length === 0) return `request ${index} ends without an output`;
    return undefined;
  } catch (error) {
    if (fineCodes.includes(error.code)) return undefined;
    return `request ${index} ends with ${error.code ?? error.name}: ${error.message}`;
  } finally {
    clearTimeout(timer);
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms).unref());
