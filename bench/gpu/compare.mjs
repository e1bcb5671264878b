#!/usr/bin/env node
// Tenon on a GPU beside vLLM and transformers: the same weights, prompts and lengths, answers checked, one table. README.md says how.
// usage: node bench/gpu/compare.mjs [--model llama-8b|qwen3-0.6b] [--engines tenon,vllm,transformers] [--only decode-1,throughput] [--json FILE]
import { spawnSync } from 'node:child_process';
import { createReadStream, existsSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { startEngine } from '../engines/start-engine.mjs';
import { checkAgreement, checkLengths, checkVerdicts } from './checks.mjs';
import { printTable } from './report.mjs';
import { drawTokens, median, stepGaps, worksOf } from './works.mjs';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: 'llama-8b' },
    engines: { type: 'string', default: 'tenon,vllm' },
    only: { type: 'string' },
    json: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    limit: { type: 'string', default: '530' },
    'no-judge': { type: 'boolean', default: false },
    models: { type: 'string', default: at('../../.models/random') },
    python: { type: 'string', default: 'python3' },
    'vllm-python': { type: 'string' },
    log: { type: 'string' },
    device: { type: 'string', default: 'auto' },
    'torch-device': { type: 'string', default: 'cuda' },
    tiny: { type: 'boolean', default: false },
    scale: { type: 'string', default: '1' },
  },
});

const limitMs = Number(options.limit) * 1000;
const signal = AbortSignal.timeout(limitMs);
const scale = Number(options.scale);
const rounds = Number(options.rounds);
const modelName = options.tiny ? `${options.model}-tiny` : options.model;
const folder = join(options.models, modelName);
const torchDevice = options['torch-device'];
const maxModelLen = 9216;

/** Defaults of both, but for the length of sequences, and vLLM's share of the memory (as in the figures of targets.mjs). */
const tenonOptions = { device: options.device, dtype: 'bfloat16', maxModelLen };
const vllmOptions = {
  dtype: 'bfloat16',
  max_model_len: maxModelLen,
  skip_tokenizer_init: true,
  seed: 0,
  ...(torchDevice === 'cuda' ? { gpu_memory_utilization: 0.9 } : {}),
};
/** flashinfer's sampler serves top-p and top-k only. */
const vllmEnv = { VLLM_USE_FLASHINFER_SAMPLER: '0', VLLM_NO_USAGE_STATS: '1', HF_HUB_OFFLINE: '1' };
const transformersBatch = Math.max(2, Math.round(64 * scale));

/**
 * `works`: those it does; all where absent. `starts`: most starts that are measured. `gapsEnv`: with it, the engine times its steps by the
 * device's clock.
 */
const engines = {
  tenon: {
    command: process.execPath,
    args: [at('../engines/tenon.mjs'), folder, JSON.stringify(tenonOptions)],
    starts: 3,
    gapsEnv: { TENON_CUDA_STEP_TIMES: '1' },
  },
  vllm: {
    module: 'vllm',
    command: options['vllm-python'] ?? options.python,
    args: [at('../engines/vllm_engine.py'), folder, JSON.stringify(vllmOptions)],
    env: vllmEnv,
    starts: 1,
  },
  // One static batch: the first 64 of the 512 requests take it as long as all 512 take the others.
  transformers: {
    module: 'transformers',
    command: options.python,
    args: [
      at('../engines/transformers_engine.py'),
      folder,
      JSON.stringify({ device: torchDevice, batchSize: transformersBatch }),
    ],
    works: ['throughput'],
    throughputRequests: 64,
    maxRounds: 1,
    starts: 1,
  },
};

const workNames = Object.keys(worksOf({ scale, rounds, throughputRequests: 512 }));
const allNames = [...workNames, 'start', 'gaps'];
const wanted = listOption('only', allNames, allNames);
const failures = [];
const fail = (message) => {
  failures.push(message);
  console.error(message);
};

/** Undefined where it failed, and the run goes on. */
async function attempt(name, action) {
  try {
    return await action();
  } catch (error) {
    fail(`${name}: ${error.message}`);
    return undefined;
  }
}

function listOption(name, known, fallback) {
  const list = options[name]?.split(',') ?? fallback;
  for (const entry of list)
    if (!known.includes(entry)) throw new Error(`--${name}: no '${entry}'; expected some of ${known}`);
  return list;
}

/** Makes the checkpoint once. One that is there is read, if starts are measured, so that they find it in the page cache. */
async function prepareModel() {
  if (!existsSync(join(folder, 'config.json'))) makeModel();
  else if (wanted.includes('start')) await Promise.all(readdirSync(folder).map((file) => readAll(join(folder, file)))); // prettier-ignore
  return JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
}

function makeModel() {
  const startMs = performance.now();
  const args = [at('make_model.py'), options.model, folder, '--device', torchDevice];
  if (options.tiny) args.push('--tiny');
  const { status } = spawnSync(options.python, args, { stdio: 'inherit' });
  if (status !== 0) throw new Error(`${options.python} ${args.join(' ')} ended with ${status}`);
  console.log(`made ${folder} in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}

async function readAll(file) {
  for await (const _chunk of createReadStream(file, { highWaterMark: 2 ** 22 }));
}

function isInstalled({ command, module }) {
  const find = `import importlib.util, sys; sys.exit(importlib.util.find_spec('${module}') is None)`;
  return module === undefined || spawnSync(command, ['-c', find], { stdio: 'ignore' }).status === 0;
}

const log = options.log === undefined ? 'ignore' : openSync(options.log, 'a');
const start = (name, furtherEnv) => {
  const { command, args, env } = engines[name];
  return startEngine(name, command, args, { env: { ...env, ...furtherEnv }, log, signal });
};

/** What works ask an engine through: every answer has the tokens that were asked for. */
function clientOf(engine, { vocab_size: vocabSize }) {
  return {
    draw: (label) => drawTokens(label, vocabSize),
    ask: async (prompts, maxTokens) => {
      const { seconds, outputs, decodeSteps } = await engine.ask({ prompts, maxTokens });
      checkLengths(engine.name, outputs, prompts, maxTokens, vocabSize).forEach(fail);
      return { seconds, decodeSteps, answers: outputs.map((tokens, i) => ({ prompt: prompts[i], tokens })) };
    },
  };
}

/**
 * Seconds from the start of the process to its first answer; the engine goes on. What it answers right then, while it may still be
 * preparing itself, is judged too.
 */
async function startMeasured(name, config) {
  const engine = await start(name);
  const client = clientOf(engine, config);
  const tokens = client.draw('start');
  await client.ask([tokens(64)], 4);
  const seconds = (performance.now() - engine.startMs) / 1000;
  const { answers } = await client.ask(
    Array.from({ length: 8 }, () => tokens(64)),
    32,
  );
  return { engine, seconds, answers };
}

/** Further starts, as long as they are quick. */
async function measureStarts(name, config, { seconds: first, answers }) {
  const all = [first];
  while (
    all.length < Math.min(rounds, engines[name].starts) &&
    all.reduce((sum, value) => sum + value, 0) < 20
  ) {
    const { engine, seconds } = await startMeasured(name, config);
    all.push(seconds);
    await engine.stop();
  }
  return { unit: 's', value: median(all), all, answers, numJudged: 2 };
}

/** In a process of their own, as timing each step is not free. */
async function measureGaps(name, config) {
  const engine = await start(name, engines[name].gapsEnv);
  try {
    return await stepGaps(clientOf(engine, config), scale, rounds);
  } finally {
    await engine.stop();
  }
}

/** All works of one engine: `{ version, settings, works }`, where `works` has those that succeeded. */
async function measureEngine(name, config) {
  const started = await startMeasured(name, config);
  const { engine, seconds } = started;
  console.log(`\n${name}: ${engine.version}, first answer after ${seconds.toFixed(1)} s`);
  const works = {};
  await attempt(name, () => measureWorks(engine, config, works));
  await engine.stop();
  if (wanted.includes('start'))
    await attempt(name, async () => (works.start = await measureStarts(name, config, started)));
  if (wanted.includes('gaps') && engines[name].gapsEnv !== undefined)
    await attempt(name, async () => Object.assign(works, await measureGaps(name, config)));
  return { version: engine.version, settings: engine.settings, works };
}

/** Adds to `results`, work by work. */
async function measureWorks(engine, config, results) {
  const { works: able = workNames, throughputRequests = 512, maxRounds = rounds } = engines[engine.name];
  const works = worksOf({ scale, rounds: Math.min(rounds, maxRounds), throughputRequests });
  const client = clientOf(engine, config);
  for (const work of workNames.filter((entry) => wanted.includes(entry) && able.includes(entry))) {
    const { measure, ...about } = works[work];
    results[work] = { ...about, ...(await measure(client)) };
    const { value, unit, all } = results[work];
    console.log(`  ${work.padEnd(14)}${value.toFixed(1)} ${unit} (${all.map((one) => one.toFixed(1)).join(' ')})`); // prettier-ignore
  }
}

/** Some answers of each work, spread over them. */
const sampleOf = ({ answers = [], numJudged = 0 }) =>
  answers.filter((_, i) => i % Math.ceil(answers.length / numJudged) === 0);

/** transformers in f32 reads answers of all engines. */
async function judgeAnswers(results) {
  const samples = Object.entries(results).flatMap(([engine, { works }]) =>
    Object.entries(works).flatMap(([work, result]) =>
      sampleOf(result).map((answer) => ({ engine, work, answer })),
    ),
  );
  if (samples.length === 0) return undefined;
  const args = [at('judge.py'), folder, JSON.stringify({ device: torchDevice })];
  const startMs = performance.now();
  const judge = await startEngine('judge', options.python, args, { log, signal });
  const { answers: verdicts } = await judge.ask({ answers: samples.map(({ answer }) => answer) });
  await judge.stop();
  console.log(`\njudged ${samples.length} answers in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
  const { summary, problems } = checkVerdicts(
    samples.map(({ engine, work }, i) => ({ engine, work, ...verdicts[i] })),
  );
  problems.forEach(fail);
  return summary;
}

/** The GPU and its driver, as nvidia-smi says. */
function machine() {
  const query = ['--query-gpu=name,driver_version', '--format=csv,noheader'];
  const { status, stdout } = spawnSync('nvidia-smi', query, { encoding: 'utf8' });
  return status === 0 ? stdout.trim().replaceAll('\n', '; ') : 'no GPU';
}

/** Without the tokens of answers. */
const figuresOf = (results) =>
  Object.fromEntries(
    Object.entries(results).map(([name, { works, ...about }]) => [
      name,
      {
        ...about,
        works: Object.fromEntries(Object.entries(works).map(([work, { unit, value, all }]) => [work, { unit, value, all }])), // prettier-ignore
      },
    ]),
  );

const config = await prepareModel();
const results = {};
for (const name of listOption('engines', Object.keys(engines))) {
  if (!isInstalled(engines[name])) {
    console.error(`${name}: ${engines[name].command} cannot import ${engines[name].module}; left out`);
    continue;
  }
  const result = await attempt(name, () => measureEngine(name, config));
  if (result !== undefined) results[name] = result;
}
const agreement = checkAgreement(results);
agreement.problems.forEach(fail);
const judged = options['no-judge'] ? undefined : await attempt('judge', () => judgeAnswers(results));
const report = {
  model: modelName,
  scale,
  machine: machine(),
  date: new Date().toISOString().slice(0, 10),
  engines: figuresOf(results),
  checks: { agreement: agreement.summary, judged, failures },
};
printTable(report);
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);
process.exitCode = failures.length > 0 ? 1 : 0;
