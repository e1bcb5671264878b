/** One case in a process of its own: `node run-case.mjs <model> <case as JSON>`; prints what measure.mjs reads. */
import { LLM } from '@tenon/core';

const [model, text] = process.argv.slice(2);
const { maxNumSeqs, maxNumBatchedTokens, work } = JSON.parse(text);
const llm = await LLM.load(model, {
  device: 'timed', plugins: [import.meta.dirname], skipTokenizerInit: true, maxModelLen: 9216, enablePrefixCaching: work.shared !== undefined,
  ...(maxNumSeqs && { maxNumSeqs }), ...(maxNumBatchedTokens && { maxNumBatchedTokens }),
}); // prettier-ignore
let steps = [];
llm.engine.onStep(({ numTokens, numSeqs, computeMicros, idleMicros }) =>
  steps.push({ isDecode: numTokens === numSeqs, numSeqs, computeMicros, idleMicros }),
);

let state = 1;
const random = () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) / 2 ** 32;
const prompt = (length) => Array.from({ length }, () => 10 + Math.floor(random() * 100_000));
const params = (maxTokens) => ({ temperature: 0, maxTokens, ignoreEos: true });

/** The prompts and lengths of a batch that decodes, of one with a common beginning, or of many requests of mixed lengths. */
function requestsOf({ batch, outputs, shared }) {
  if (shared !== undefined) {
    const common = prompt(shared);
    return Array.from({ length: batch }, () => ({ prompt: [...common, ...prompt(64)], maxTokens: outputs }));
  }
  if (outputs !== undefined)
    return Array.from({ length: batch }, () => ({ prompt: prompt(128), maxTokens: outputs }));
  const length = () => 100 + Math.floor(random() * 925);
  return Array.from({ length: batch }, () => ({ prompt: prompt(length()), maxTokens: length() }));
}

async function run() {
  const requests = requestsOf(work);
  steps = [];
  const cpu = process.cpuUsage();
  const start = performance.now();
  const outputs = await llm.generate(requests.map(({ prompt: tokens }) => ({ tokenIds: tokens })), requests.map(({ maxTokens }) => params(maxTokens))); // prettier-ignore
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  outputs.forEach(({ outputs: [{ tokenIds }] }, i) => {
    if (tokenIds.length !== requests[i].maxTokens)
      throw new Error(`request ${i} has ${tokenIds.length} tokens of ${requests[i].maxTokens}`);
  });
  return { seconds, cpuMicros: user + system, steps };
}

const cold = await run();
const warm = work.outputs === undefined || work.shared !== undefined ? undefined : await run();
console.log(JSON.stringify({ cold, warm }));
await llm.close();
