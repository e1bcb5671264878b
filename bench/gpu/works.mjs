// The works of the comparison: what is asked of an engine, and what is computed from the answers. Lengths and counts are those of the
// figures in targets.mjs; `scale` shrinks them for machines without a GPU.
import { readFileSync } from 'node:fs';

const { inputs, outputs } = JSON.parse(readFileSync(new URL('lengths.json', import.meta.url), 'utf8'));

/**
 * `measure(client)` resolves to `{ value, all, answers }`: the figure, its repetitions, and what came in answer to which prompts.
 * `numJudged` of these are read by the judge. The client has `ask(prompts, maxTokens)` and `draw(label)`, a source of random tokens.
 */
export function worksOf({ scale, throughputRequests, rounds }) {
  const scaled = (count, least = 2) => Math.max(least, Math.round(count * scale));
  const decodeWork = (batch, [short, long]) => ({
    unit: 'tokens/s',
    numJudged: 4,
    measure: (client) =>
      decode(client, scaled(batch, 1), scaled(128, 8), [scaled(short, 4), scaled(long, 8)], rounds),
  });
  const firstTokenWork = (length) => ({
    unit: 'ms',
    numJudged: 1,
    measure: (client) => timeToFirstToken(client, scaled(length, 8)),
  });
  const prefixWork = (isShared, prefixRounds) => ({
    unit: 'tokens/s',
    numJudged: 3,
    measure: (client) =>
      prefix(client, { isShared, rounds: prefixRounds, count: scaled(256), head: scaled(2048, 64), own: scaled(64, 4), answer: scaled(64, 4) }), // prettier-ignore
  });
  const shortened = (lengths) =>
    lengths.slice(0, scaled(throughputRequests)).map((length) => scaled(length, 4));
  return {
    'decode-1': decodeWork(1, [256, 512]),
    'decode-32': decodeWork(32, [128, 256]),
    'decode-256': decodeWork(256, [128, 256]),
    'ttft-128': firstTokenWork(128),
    'ttft-2048': firstTokenWork(2048),
    'ttft-8192': firstTokenWork(8192),
    throughput: {
      unit: 'tokens/s',
      numJudged: 6,
      measure: (client) => throughput(client, shortened(inputs), shortened(outputs), Math.min(2, rounds)),
    },
    'prefix-shared': prefixWork(true, rounds),
    'prefix-none': prefixWork(false, 1),
  };
}

export const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  return (sorted[Math.floor(half)] + sorted[Math.ceil(half) - 1]) / 2;
};
const sum = (values) => values.reduce((total, value) => total + value, 0);
const times = (count, make) => Array.from({ length: count }, (_, i) => make(i));

/** Steady speed: what the second half of the answers takes, so that prompts and the setup of requests drop out. */
async function decode(client, batch, length, [short, long], rounds) {
  const run = (label, maxTokens) => {
    const tokens = client.draw(`decode ${batch} ${label}`);
    return client.ask(times(batch, () => tokens(length)), maxTokens); // prettier-ignore
  };
  await run('warm-up', Math.min(16, short));
  const pairs = [];
  for (let round = 0; round < rounds; round++)
    pairs.push([await run(`short ${round}`, short), await run(`long ${round}`, long)]);
  const rate = (shortSeconds, longSeconds) => (batch * (long - short)) / (longSeconds - shortSeconds);
  const seconds = (i) => median(pairs.map((pair) => pair[i].seconds));
  return {
    value: rate(seconds(0), seconds(1)),
    all: pairs.map(([shortRun, longRun]) => rate(shortRun.seconds, longRun.seconds)),
    answers: pairs.flatMap(([, longRun]) => longRun.answers),
  };
}

async function timeToFirstToken(client, length) {
  const tokens = client.draw(`first token ${length}`);
  await client.ask([tokens(length)], 1);
  const runs = [];
  for (let round = 0; round < 7; round++) runs.push(await client.ask([tokens(length)], 1));
  const all = runs.map(({ seconds }) => seconds * 1000);
  return { value: median(all), all, answers: runs.flatMap(({ answers }) => answers) };
}

/** All requests are there at the start. */
async function throughput(client, inputLengths, outputLengths, rounds) {
  const all = [];
  let answers;
  for (let round = 0; round < rounds; round++) {
    const tokens = client.draw(`throughput ${round}`);
    const run = await client.ask(inputLengths.map(tokens), outputLengths);
    all.push(sum(outputLengths) / run.seconds);
    answers ??= run.answers;
  }
  return { value: median(all), all, answers };
}

/** A prompt is a head and some tokens of its own. Shared heads are new in every round. */
async function prefix(client, { isShared, rounds, count, head, own, answer }) {
  const all = [];
  let answers;
  for (let round = 0; round < rounds; round++) {
    const tokens = client.draw(`prefix ${isShared} ${round}`);
    const shared = isShared ? tokens(head) : undefined;
    const prompts = times(count, () => [...(shared ?? tokens(head)), ...tokens(own)]);
    const run = await client.ask(prompts, answer);
    all.push((count * answer) / run.seconds);
    answers ??= run.answers;
  }
  return { value: median(all), all, answers };
}

/**
 * What the device waits between steps that decode, where the engine says so (and its environment asks for times of the device):
 * microseconds at batch 1, percent of a step at 256. Prompts are short, as those steps are not counted.
 */
export async function stepGaps(client, scale, rounds) {
  const gaps = {};
  for (const [batch, unit] of [
    [1, 'µs'],
    [256, '%'],
  ]) {
    const run = async (label) => {
      const tokens = client.draw(`gaps ${batch} ${label}`);
      const prompts = times(Math.max(1, Math.round(batch * scale)), () => tokens(16));
      const { decodeSteps } = await client.ask(prompts, 128);
      const { computeMicros, idleMicros } = decodeSteps;
      return batch === 1 ? idleMicros : (100 * idleMicros) / (computeMicros + idleMicros);
    };
    await run('warm-up');
    const all = [];
    for (let round = 0; round < rounds; round++) all.push(await run(String(round)));
    gaps[`gap-${batch}`] = { unit, value: median(all), all };
  }
  return gaps;
}

/** A source of random token ids of the vocabulary, the same for the same label: `tokens(length)`. */
export function drawTokens(label, vocabSize) {
  const [first, span] = [10, vocabSize - 1010];
  let state = 0x811c9dc5; // FNV-1a of the label
  for (const char of label) state = Math.imul(state ^ char.charCodeAt(0), 0x01000193);
  // mulberry32
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  return (length) => times(length, () => first + (next() % span));
}
