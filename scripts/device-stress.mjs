/**
 * Random use of a device, against the answers of another: engines with random limits and too few blocks of KV cache, requests with
 * every kind of sampling that come, share beginnings, are preempted and aborted, and engines that are closed in the middle.
 *
 *   node scripts/device-stress.mjs --device cuda --plugin packages/backend-cuda --seconds 60
 *   node scripts/device-stress.mjs --device template --plugin plugins-template --against cpu --seed 17 --rounds 1
 *
 * With --engines 2, two rounds run at the same time, on one device.
 *
 * What is checked: tokens (up to near-ties), log-probabilities, text and ends of all requests; that blocks of the cache come back,
 * nothing is compiled or allocated after warm-up and nothing runs elsewhere than negotiation said; that the device does not have ever less
 * free memory (nothing else may run on it). A round follows from its seed alone; one that fails is run again with ever fewer
 * requests, and the command that repeats it is printed. Ends with 1 where something is wrong.
 */
import { parseArgs } from 'node:util';
import { findFault, Judge, meanFault } from './device-stress/compare.mjs';
import { defaultModels, findDevice, freeBytes, loadEngine } from './device-stress/devices.mjs';
import { makeRequests, makeRound } from './device-stress/rounds.mjs';
import { storm } from './device-stress/storm.mjs';

const { values: args } = parseArgs({
  options: {
    device: { type: 'string' },
    against: { type: 'string', default: 'cpu' },
    plugin: { type: 'string', multiple: true, default: [] },
    model: { type: 'string', multiple: true, default: [] },
    dtype: { type: 'string' },
    seconds: { type: 'string', default: '60' },
    rounds: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    only: { type: 'string' },
    engines: { type: 'string', default: '1' },
  },
});
if (args.device === undefined) {
  console.error(
    'usage: node scripts/device-stress.mjs --device <id> [--plugin <folder>]… [--against cpu] [--model <folder>]…',
  );
  console.error(
    '         [--dtype float32] [--seconds 60] [--rounds <n>] [--seed <n>] [--only <request>,…] [--engines 1]',
  );
  process.exit(2);
}

/** A round that takes longer hangs. */
const roundTimeoutMs = 120_000;
/** Bytes that a device may have less after each half of the rounds: drivers keep some. */
const keptBytes = 8 * 2 ** 20;

const device = await findDevice(args.device, args.plugin);
const judge = new Judge(await findDevice(args.against, args.plugin));
const setting = {
  models: args.model.length > 0 ? args.model : defaultModels(),
  constraints: device.constraints,
  deviceDtypes: device.device.dtypes,
  wantedDtype: args.dtype,
};
const totals = {
  rounds: 0, storms: 0, requests: 0, aborted: 0, tokens: 0, nearTies: 0, logprobs: 0, preemptions: 0, cachedTokens: 0, steps: 0,
}; // prettier-ignore

/** What a round finds wrong, in words; undefined if nothing. */
async function runRound(round, only) {
  const { llm, observed } = await loadEngine(
    device,
    round.model,
    round.options,
    round.inThread && device.hasPackage,
  );
  const { tokenizer, info } = llm.engine;
  const all = makeRequests(round, {
    vocabSize: info.vocabSize,
    tokenizer,
    isCheap: args.against === 'reference',
  });
  const requests = only === undefined ? all : all.filter(({ index }) => only.includes(index));
  try {
    if (round.isStorm) return await storm(llm, requests);
    return await checkAnswers(llm, observed, round, requests);
  } finally {
    await llm.close();
  }
}

async function checkAnswers(llm, observed, round, requests) {
  const expecting = judge.answers(round, requests);
  expecting.catch(() => {});
  const { answers, begin } = await serve(llm, observed, round, requests);
  const slow = slowFault(observed, begin, round) ?? (await idleFault(llm.engine));
  if (slow !== undefined) return slow;
  const expected = await expecting;
  const seen = { tokens: 0, nearTies: 0, logprobs: 0, logprobOff: 0, worstLogprob: 0 };
  const faults = await Promise.all(
    requests.map(async (request, i) => {
      const fault = answers[i] && (await findFault(judge, round, request, answers[i], expected[i], seen));
      return fault && `request ${request.index}: ${fault}\n  ${JSON.stringify(request.params)}`;
    }),
  );
  count(llm, requests, answers, seen);
  return faults.find((fault) => fault !== undefined) ?? meanFault(round, seen);
}

/**
 * `answers`: the last output of each request; undefined for those that were aborted before the first. `begin`: the counters from which on
 * nothing slow may happen: after the engine's warm-up, or where it has none, when half of the requests have begun.
 */
async function serve(llm, observed, round, requests) {
  const answers = [];
  let begin = observed?.isFrozen ? observed.executable?.counters?.() : undefined;
  const turns = requests.entries();
  const worker = async () => {
    for (const [i, request] of turns) {
      if (i === requests.length >> 1) begin ??= freeze(observed);
      answers[i] = await answer(llm, request);
    }
  };
  await Promise.all(Array.from({ length: round.concurrency }, worker));
  return { answers, begin };
}

function freeze(observed) {
  observed?.executable?.freeze?.();
  return observed?.executable?.counters?.();
}

async function answer(llm, { prompt, params, delayMs, abortAfter }) {
  if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
  const abort = new AbortController();
  if (abortAfter === 0) setImmediate(() => abort.abort());
  let last;
  let numOutputs = 0;
  for await (const output of llm.stream(prompt, params, { signal: abort.signal })) {
    // prompt logprobs come in the first output only
    last = { ...output, promptLogprobs: output.promptLogprobs ?? last?.promptLogprobs };
    if (++numOutputs === abortAfter) abort.abort();
  }
  return last;
}

/** Memory may grow for lists (`StepView::MaxPlainWords`), for which the device is waited for. */
function slowFault(observed, begin, { hasLists }) {
  const end = observed?.executable?.counters?.();
  const slow = ['compiles', 'fallbacks', ...(hasLists ? [] : ['allocations', 'hostSyncs'])];
  const grown = slow
    .filter((name) => end?.[name] > begin?.[name])
    .map((name) => `${end[name] - begin[name]} ${name}`);
  return grown.length === 0 ? undefined : `${grown.join(', ')} while serving`;
}

/** After the last request, nothing runs and no block is held. */
async function idleFault(engine) {
  for (let tries = 0; tries < 200; tries++) {
    const { numRunning, numWaiting, numStepsInFlight, numUsedBlocks } = engine.stats();
    if (numRunning + numWaiting + numStepsInFlight + numUsedBlocks === 0) return undefined;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return `the engine is not idle after its last request: ${JSON.stringify(engine.stats())}`;
}

function count(llm, requests, answers, { tokens, nearTies, logprobs }) {
  const { numPreemptionsTotal, prefixCacheHitsTotal, numStepsTotal } = llm.engine.stats();
  totals.requests += requests.length;
  totals.aborted += answers.filter((each) =>
    each?.outputs.some(({ finishReason }) => finishReason === 'abort'),
  ).length;
  totals.tokens += tokens;
  totals.nearTies += nearTies;
  totals.logprobs += logprobs;
  totals.preemptions += numPreemptionsTotal;
  totals.cachedTokens += prefixCacheHitsTotal;
  totals.steps += numStepsTotal;
}

/** Tells of a hang: nobody else would. */
async function watched(seed, work) {
  const timer = setTimeout(() => {
    console.log(`FAILED: seed ${seed} hangs\n  ${commandFor(seed)}`);
    process.exit(1);
  }, roundTimeoutMs);
  try {
    return await work();
  } catch (error) {
    return `${error.code ?? error.name}: ${error.message}`;
  } finally {
    clearTimeout(timer);
  }
}

const commandFor = (seed, only) =>
  [
    `node scripts/device-stress.mjs --device ${args.device} --against ${args.against}`,
    ...args.plugin.map((folder) => `--plugin ${folder}`),
    ...args.model.map((folder) => `--model ${folder}`),
    ...(args.dtype === undefined ? [] : [`--dtype ${args.dtype}`]),
    `--seed ${seed} --rounds 1`,
    ...(only === undefined ? [] : [`--only ${only.join(',')}`]),
  ].join(' ');

/** Ever fewer requests that still fail; gives up where none of the halves does. */
async function shrink(round, requests, fault) {
  if (requests.length === 1) return { requests, fault };
  const middle = Math.ceil(requests.length / 2);
  for (const half of [requests.slice(0, middle), requests.slice(middle)]) {
    const smaller = await watched(round.seed, () => runRound(round, half));
    if (smaller !== undefined) return shrink(round, half, smaller);
  }
  return { requests, fault };
}

async function reportFailure(round, only, fault) {
  const { model, dtype, options, isStorm } = round;
  console.log(`FAILED: seed ${round.seed}: ${fault}`);
  console.log(`  ${isStorm ? 'storm, ' : ''}${model}, ${dtype}, ${JSON.stringify(options)}`);
  const all = only ?? Array.from({ length: round.numRequests }, (_, i) => i);
  const smallest = await shrink(round, all, fault);
  const { length } = smallest.requests;
  console.log(
    `  ${length} of ${all.length} requests suffice: ${smallest.fault}\n  ${commandFor(round.seed, smallest.requests)}`,
  );
}

const seed = Number(args.seed);
const only = args.only?.split(',').map(Number);
const numEngines = Number(args.engines);
const end = performance.now() + 1000 * Number(args.seconds);
console.log(`${device.id} (${device.device.name}) against ${args.against}, seed ${seed}`);
/** Free bytes of the device after each round, if others do not take of them. */
const free = [];
let failed = false;
for (let i = 0; i < Number(args.rounds) && performance.now() < end && !failed; i += numEngines) {
  const rounds = Array.from({ length: numEngines }, (_, k) => makeRound(seed + i + k, setting));
  if (process.stderr.isTTY) process.stderr.write(`\rseed ${seed + i} `);
  const faults = await Promise.all(rounds.map((round) => watched(round.seed, () => runRound(round, only))));
  for (const { isStorm } of rounds) totals[isStorm ? 'storms' : 'rounds']++;
  free.push(await freeBytes(device));
  const which = faults.findIndex((fault) => fault !== undefined);
  if (which === -1) continue;
  failed = true;
  await reportFailure(rounds[which], only, faults[which]);
}
await judge.close();
const [first, middle, last] = [free[0], free[free.length >> 1], free.at(-1)];
// what grows once is not a leak
const lost = free.length > 2 ? Math.min(first - middle, middle - last) : 0;
if (lost > keptBytes) {
  failed = true;
  console.log(`FAILED: the device has ${lost} bytes less free memory after each half of the rounds`);
}
console.log(Object.entries(totals).map(([name, value]) => `${name} ${value}`).join(', ')); // prettier-ignore
console.log(failed ? 'FAILED' : 'all right');
process.exit(failed ? 1 : 0);
