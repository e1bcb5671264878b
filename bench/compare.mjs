// Tenon beside its peers on the same weights, prompts and lengths, in one run: rounds alternate between the engines, answers are
// checked against each other, medians and ratios are printed.
// usage: node bench/compare.mjs [--engines tenon,llama-native,llama,vllm,transformers] [--rounds 3] [--threads 2] [--only prefill-512,decode-1] [--json FILE]
//        [--output-tokens 256]          of an answer, where decoding is measured
//        [--formats q8_0,q4_0,q4_1]     the same GGUF file of each format for all engines that read GGUF, instead of bf16
//        after bench/prepare.sh
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { startEngine } from './engines/start-engine.mjs';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const { values: options } = parseArgs({
  options: {
    engines: { type: 'string', default: 'tenon,llama-native,llama,vllm' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    only: { type: 'string' },
    json: { type: 'string' },
    formats: { type: 'string' },
    'output-tokens': { type: 'string', default: '256' },
    folder: { type: 'string', default: at('../.models/smollm2-bf16') },
    gguf: { type: 'string', default: at('../.models/smollm2-bf16.gguf') },
    models: { type: 'string', default: at('../.models') },
    peers: { type: 'string', default: at('../.peers') },
  },
});

const threads = Number(options.threads);
const maxModelLen = 2048;
const tenonOptions = {
  device: 'cpu',
  dtype: 'bfloat16',
  maxModelLen,
  enablePrefixCaching: false,
  numThreads: threads,
};
const vllmOptions = { dtype: 'bfloat16', max_model_len: maxModelLen, enable_prefix_caching: false };
const vllmEnv = { VLLM_CPU_KVCACHE_SPACE: '2', VLLM_CPU_OMP_THREADS_BIND: `0-${threads - 1}` };

/** What engines are started with, on a folder of safetensors and a GGUF file of the same weights. */
const commandsFor = ({ folder, gguf }) => ({
  tenon: [process.execPath, [at('engines/tenon.mjs'), folder, JSON.stringify(tenonOptions)]],
  // built here, one call per step; and prebuilt, behind a JavaScript binding
  'llama-native': [`${options.peers}/llama-native/llama_native`, [gguf, options.threads]],
  llama: [process.execPath, [at('engines/llama.mjs'), gguf, options.threads, `${options.peers}/llama`]],
  vllm: [
    `${options.peers}/vllm/bin/python`,
    [at('engines/vllm_engine.py'), folder, JSON.stringify(vllmOptions)],
    { env: vllmEnv },
  ],
  transformers: [
    `${options.peers}/convert/bin/python`,
    [at('engines/transformers_engine.py'), folder, JSON.stringify({ threads })],
  ],
});
const neededBy = {
  tenon: at('../packages/backend-cpu/native/build/Release'),
  'llama-native': `${options.peers}/llama-native/llama_native`,
  llama: `${options.peers}/llama/node_modules`,
  vllm: `${options.peers}/vllm`,
  transformers: `${options.peers}/convert`,
};

const readers = ['tenon', 'llama-native', 'llama'];

/** Prompts are stretches of real text (token ids of the model), so that greedy answers have few near-ties. */
const corpus = JSON.parse(readFileSync(at('corpus-tokens.json'), 'utf8'));
function prompts(count, length) {
  return Array.from({ length: count }, (_, i) => {
    const start = (i * 97) % (corpus.length - length);
    return corpus.slice(start, start + length);
  });
}

const outputTokens = Number(options['output-tokens']);
const decode = async (engine, count, promptTokens = 64) => {
  const batch = prompts(count, promptTokens);
  const prefill = await engine.ask({ prompts: batch, maxTokens: 1 });
  const whole = await engine.ask({ prompts: batch, maxTokens: outputTokens });
  return { rate: (count * (outputTokens - 1)) / (whole.seconds - prefill.seconds), outputs: whole.outputs };
};
const prefill = async (engine, length) => {
  const { seconds, outputs } = await engine.ask({ prompts: prompts(1, length), maxTokens: 1 });
  return { rate: length / seconds, outputs };
};
const measures = {
  'prefill-512': (engine) => prefill(engine, 512),
  'prefill-1024': (engine) => prefill(engine, 1024),
  'decode-1': (engine) => decode(engine, 1),
  'decode-8': (engine) => decode(engine, 8),
  'decode-32': (engine) => decode(engine, 32),
};

/** Threads of some engines spin for a second after their last work, and would slow the next one down. */
const settleMs = 2000;
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const commonPrefix = (a, b) => {
  const first = a.findIndex((token, i) => token !== b[i]);
  return first === -1 ? a.length : first;
};

const engineNames = options.engines.split(',');
const known = Object.keys(neededBy);
for (const name of engineNames) {
  if (!known.includes(name)) throw new Error(`no engine '${name}'; expected some of ${known}`);
}

async function startEngines(model) {
  const engines = [];
  for (const name of engineNames) {
    if (model.onlyGguf && !readers.includes(name)) continue;
    if (!existsSync(neededBy[name])) {
      console.error(`${name}: ${neededBy[name]} is not there, left out; bench/prepare.sh makes it`);
      continue;
    }
    const engine = await startEngine(name, ...commandsFor(model)[name]);
    engines.push(engine);
    console.log(`${name}: ${engine.version}, loaded in ${engine.loadSeconds.toFixed(2)} s`);
  }
  return engines;
}

let disagreements = 0;
/** 16-bit arithmetic of different engines parts ways at near-ties; the first token of most prompts must agree. */
function checkAgreement(what, lengths) {
  const same = lengths.filter((length) => length > 0).length / lengths.length;
  if (same >= 0.75) return;
  disagreements++;
  console.error(`${what} agree on the first token of only ${Math.round(same * 100)} % of the prompts`);
}

/** Rounds of one measure: tokens/s of every engine, and how many tokens of an answer are those of the first engine. */
async function measureRounds(measure, engines) {
  const rates = Object.fromEntries(engines.map((engine) => [engine.name, []]));
  const agreement = {};
  for (const engine of engines) await measures[measure](engine); // warm-up
  for (let round = 0; round < Number(options.rounds); round++) {
    let reference;
    for (const engine of engines) {
      await sleep(settleMs);
      const { rate, outputs } = await measures[measure](engine);
      rates[engine.name].push(rate);
      reference ??= outputs;
      const lengths = outputs.map((tokens, i) => commonPrefix(tokens, reference[i]));
      agreement[engine.name] = lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
      checkAgreement(`${measure}: ${engine.name} and ${engines[0].name}`, lengths);
    }
  }
  return { rates, agreement };
}

function printRounds(title, engines, { rates, agreement }) {
  const base = median(rates[engines[0].name]);
  console.log(`\n${title} (tokens/s)`);
  for (const { name } of engines) {
    const own = rates[name];
    const ratio =
      name === engines[0].name ? '' : `  ${engines[0].name}/${name} = ${(base / median(own)).toFixed(2)}`;
    const spread = `${Math.min(...own).toFixed(1)}–${Math.max(...own).toFixed(1)}`;
    console.log(
      `  ${name.padEnd(12)} median ${median(own).toFixed(1).padStart(8)}  (${spread})${ratio}  same tokens: ${agreement[name].toFixed(1)}`,
    );
  }
}

/** All measures on one model: `{ versions, results }`. */
async function compareOn(model) {
  const engines = await startEngines(model);
  const results = {};
  for (const measure of options.only?.split(',') ?? Object.keys(measures)) {
    results[measure] = await measureRounds(measure, engines);
    printRounds(model.name === undefined ? measure : `${model.name} ${measure}`, engines, results[measure]);
  }
  for (const engine of engines) await engine.stop();
  return { versions: engines.map((engine) => engine.version), results };
}

/** One after the other in this run, so that ratios between formats hold too. */
async function compareFormats(formats) {
  const results = {};
  for (const name of formats) {
    const file = `${options.models}/smollm2-${name}.gguf`;
    results[name] = await compareOn({ name, folder: file, gguf: file, onlyGguf: true });
  }
  return results;
}

const results = options.formats
  ? await compareFormats(options.formats.split(','))
  : await compareOn({ folder: options.folder, gguf: options.gguf });
if (options.json) writeFileSync(options.json, `${JSON.stringify(results, null, 2)}\n`);
process.exitCode = disagreements > 0 ? 1 : 0;
