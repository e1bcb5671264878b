/**
 * From a plan to source: loops in which every size, offset, attribute and the number of tokens is a constant. All values are f32.
 *
 * Names in the generated code: A the arena, W<n> weights, K<n> the cache of layer n, O<n> outputs, and the step's regions under their own
 * names. `rows` of logit rows (L) are those of the tile that runs, from `firstRow` on.
 */
import { activations, ops } from '@tenon/core/backend';

/** Why an op cannot be generated, or undefined where it can. `op`: name, attributes and types, as in a NegotiateRequest. */
export function reasonAgainst({ op, attrs, dtypes, weightScheme }) {
  if (emitters[op] === undefined)
    return ops[op].fused ? 'is composed of ops that are generated' : 'there are no other ranks';
  if (weightScheme !== undefined) return `weights of ${weightScheme} are unpacked`;
  if (attrs.dynamic === 1) return 'frequencies that depend on the length are not generated';
  if (op === 'gated_act' && activationOf[activations[attrs.activation]] === undefined)
    return `no ${activations[attrs.activation]}`;
  const foreign = dtypes.find((dtype) => !['f32', 'i32', 'state'].includes(dtype));
  return foreign === undefined ? undefined : `computes in f32, not ${foreign}`;
}

/** The step as a function (step, result, sampler) → outputs, for so many tokens. */
export function compile(plan, numTokens, { weights, arena, kv }) {
  const body = source(plan, numTokens);
  const names = ['A', ...weights.map((_, i) => `W${i}`), ...kv.map((_, i) => `K${i}`)];
  const make = new Function(...names, `'use strict';\nreturn (step, result, sampler) => {\n${body}\n};`);
  return make(arena, ...weights, ...kv);
}

/** The function's body; worth printing to see what a compiler makes of a plan. */
export function source(plan, numTokens) {
  const sampled = new Set(plan.ops.flatMap(({ op, outputs }) => (op === 'sample' ? outputs : [])));
  const outputs = plan.tensors.flatMap(({ kind }, id) => (kind === 'output' && !sampled.has(id) ? [id] : []));
  const lines = [
    `const S = step.numSeqs, L = step.numLogitRows, firstAll = 0;`,
    ...['tokenIds', 'positions', 'slotMapping'].map(
      (name) => `const ${name} = step.ints('${name}', ${numTokens});`,
    ),
    `const logitRows = step.ints('logitRows', L), tokenSeqs = step.tokenSeqs();`,
    ...outputs.map((id) => `const O${id} = new Float32Array(${sizeOf(plan.tensors[id], numTokens)});`),
    ...plan.segments.map((segment) => emitSegment(plan, segment, numTokens)),
    `return [${outputs.map((id) => `O${id}`).join(', ')}];`,
  ];
  return lines.join('\n');
}

const countOf = (dim, numTokens) => (typeof dim === 'number' ? dim : { T: numTokens, S: 'S', L: 'L' }[dim]);
const sizeOf = ({ dims }, numTokens) => dims.map((dim) => countOf(dim, numTokens)).join(' * ') || '1';

function emitSegment(plan, { firstOp, numOps, tile }, numTokens) {
  const body = plan.ops
    .slice(firstOp, firstOp + numOps)
    .map((op) => emitOp(plan, op, numTokens))
    .join('\n');
  if (tile === undefined) return `{ const firstRow = firstAll, rows = L;\n${body}\n}`;
  return `for (let firstRow = 0; firstRow < L; firstRow += ${tile}) { const rows = Math.min(${tile}, L - firstRow);\n${body}\n}`;
}

function emitOp(plan, op, numTokens) {
  const spec = ops[op.op];
  const operand = (id) => (id < 0 ? undefined : describe(plan.tensors[id], id, numTokens));
  const inputs = Object.fromEntries(
    spec.inputs.map((name, i) => [name.replace('?', ''), operand(op.inputs[i])]),
  );
  return `{ // ${op.op}\n${emitters[op.op](inputs, operand(op.outputs[0]), op.attrs, plan)}\n}`;
}

/** Where a tensor is: `array[base + row * columns + column]`, and how many rows it has. */
function describe(tensor, id, numTokens) {
  const [dim = 1, columns = 1] = tensor.dims;
  const isTiled = dim === 'L';
  const rows = isTiled ? 'rows' : countOf(dim, numTokens);
  const tileStart = isTiled ? `firstRow * ${columns}` : '0';
  if (tensor.kind === 'weight') return { array: `W${tensor.weight}`, base: '0', rows, columns };
  if (tensor.kind === 'input')
    return { array: tensor.input, base: isTiled ? 'firstRow' : '0', rows, columns };
  if (tensor.kind === 'output') return { array: `O${id}`, base: tileStart, rows, columns };
  return { array: 'A', base: String(tensor.kind === 'buffer' ? tensor.offset / 4 : 0), rows, columns };
}

const at = ({ array, base }, index) => `${array}[${base} + ${index}]`;
const each = (variable, count, body) =>
  `for (let ${variable} = 0; ${variable} < ${count}; ${variable}++) {\n${body}\n}`;
const row = (operand, r = 'r') => `${r} * ${operand.columns}`;
const elementwise = (y, expression) =>
  each('i', `${y.rows} * ${y.columns}`, `${at(y, 'i')} = ${expression('i')};`);

const activationOf = {
  silu: (x) => `${x} / (1 + Math.exp(-${x}))`,
  gelu_tanh: (x) => `0.5 * ${x} * (1 + Math.tanh(${Math.sqrt(2 / Math.PI)} * (${x} + 0.044715 * ${x} ** 3)))`,
};

const emitters = {
  embedding: ({ tokenIds, weight }, y) =>
    each(
      'r',
      y.rows,
      `let id = ${at(tokenIds, 'r')};
if (id < 0) id = sampler.lastToken(step.ints('seqSlots', S)[tokenSeqs[r]]);
${each('c', y.columns, `${at(y, `${row(y)} + c`)} = ${at(weight, `id * ${weight.columns} + c`)};`)}`,
    ),

  rms_norm: ({ x, weight }, y, { size, eps }) =>
    each(
      'r',
      `${x.rows} * ${x.columns / size}`,
      `let squares = 0;
${each('c', size, `squares += ${at(x, `r * ${size} + c`)} ** 2;`)}
const scale = 1 / Math.sqrt(squares / ${size} + ${eps});
${each('c', size, `${at(y, `r * ${size} + c`)} = ${at(x, `r * ${size} + c`)} * scale * ${at(weight, 'c')};`)}`,
    ),

  // Four sums per output, always in this order: the result of a row does not depend on the others.
  linear: ({ x, weight, bias }, y) =>
    each(
      'r',
      y.rows,
      each(
        'n',
        y.columns,
        `let s0 = 0, s1 = 0, s2 = 0, s3 = 0, k = 0;
for (; k < ${x.columns - (x.columns % 4)}; k += 4) {
${[0, 1, 2, 3].map((i) => `s${i} += ${at(x, `${row(x)} + k + ${i}`)} * ${at(weight, `n * ${x.columns} + k + ${i}`)};`).join('\n')}
}
for (; k < ${x.columns}; k++) s0 += ${at(x, `${row(x)} + k`)} * ${at(weight, `n * ${x.columns} + k`)};
${at(y, `${row(y)} + n`)} = s0 + s1 + s2 + s3${bias === undefined ? '' : ` + ${at(bias, 'n')}`};`,
      ),
    ),

  add: ({ a, b }, y) => elementwise(y, (i) => `${at(a, i)} + ${at(b, i)}`),

  rope_cos_sin: ({ positions, invFreq }, y, { rotaryDim, scale }) =>
    each(
      'r',
      y.rows,
      each(
        'i',
        rotaryDim / 2,
        `const angle = Math.fround(${at(positions, 'r')} * ${at(invFreq, 'i')});
${at(y, `r * ${rotaryDim} + i`)} = Math.cos(angle) * ${scale};
${at(y, `r * ${rotaryDim} + ${rotaryDim / 2} + i`)} = Math.sin(angle) * ${scale};`,
      ),
    ),

  rope: ({ x, cosSin }, y, { numHeads, headDim, rotaryDim, interleaved }) => {
    const n = rotaryDim / 2;
    const [first, second] = interleaved ? ['2 * i', '2 * i + 1'] : ['i', `i + ${n}`];
    const head = `r * ${x.columns} + h * ${headDim}`;
    const rotate = `const cos = ${at(cosSin, `r * ${rotaryDim} + i`)}, sin = ${at(cosSin, `r * ${rotaryDim} + ${n} + i`)};
const p = ${at(x, `${head} + ${first}`)}, q = ${at(x, `${head} + ${second}`)};
${at(y, `${head} + ${first}`)} = p * cos - q * sin;
${at(y, `${head} + ${second}`)} = q * cos + p * sin;`;
    const rest = `for (let c = ${rotaryDim}; c < ${headDim}; c++) ${at(y, `${head} + c`)} = ${at(x, `${head} + c`)};`;
    return each('r', x.rows, each('h', numHeads, `${each('i', n, rotate)}\n${rest}`));
  },

  kv_write: ({ k, v, slotMapping }, _, { layer }, { limits }) => {
    const half = limits.numBlocks * limits.blockSize * k.columns;
    return each(
      'r',
      k.rows,
      `const slot = ${at(slotMapping, 'r')} * ${k.columns};
if (slot >= 0) ${each('c', k.columns, `K${layer}[slot + c] = ${at(k, `${row(k)} + c`)}; K${layer}[${half} + slot + c] = ${at(v, `${row(v)} + c`)};`)}`,
    );
  },

  /** One pass over the keys with a running maximum. With slots, the keys of a sequence lie one after another. */
  attention: (
    { q },
    y,
    { layer, numHeads, numKvHeads, headDim, scale, slidingWindow, softCap },
    { limits },
  ) => {
    const columns = numKvHeads * headDim;
    const half = limits.numBlocks * limits.blockSize * columns;
    const head = `r * ${numHeads * headDim} + h * ${headDim}`;
    const capped = softCap > 0 ? `score = ${softCap} * Math.tanh(score / ${softCap});\n` : '';
    const first = slidingWindow > 0 ? `Math.max(0, positions[r] - ${slidingWindow - 1})` : '0';
    const key = `(block[Math.floor(j / ${limits.blockSize})] * ${limits.blockSize} + j % ${limits.blockSize}) * ${columns} + kvHead`;
    return `const sums = new Float64Array(${headDim});
${each(
  'r',
  q.rows,
  `if (tokenSeqs[r] < 0) { A.fill(0, ${y.array === 'A' ? `${y.base} + ${row(y)}, ${y.base} + ${row(y)} + ${y.columns}` : '0, 0'}); continue; }
const block = step.blockTable(tokenSeqs[r]);
${each(
  'h',
  numHeads,
  `const kvHead = Math.floor(h / ${numHeads / numKvHeads}) * ${headDim};
sums.fill(0);
let max = -Infinity, total = 0;
for (let j = ${first}; j <= positions[r]; j++) {
const key = ${key};
let score = 0;
${each('d', headDim, `score += ${at(q, `${head} + d`)} * K${layer}[key + d];`)}
score *= ${scale};
${capped}if (score > max) {
const shrink = Math.exp(max - score);
max = score;
total *= shrink;
${each('d', headDim, 'sums[d] *= shrink;')}
}
const weight = Math.exp(score - max);
total += weight;
${each('d', headDim, `sums[d] += weight * K${layer}[${half} + key + d];`)}
}
${each('d', headDim, `${at(y, `${head} + d`)} = sums[d] / total;`)}`,
)}`,
)}`;
  },

  gated_act: ({ gate, up }, y, { activation }) => {
    const act = activationOf[activations[activation]];
    return elementwise(
      y,
      (i) => `(() => { const x = ${at(gate, i)}; return ${act('x')}; })() * ${at(up, i)}`,
    );
  },

  gather_rows: ({ x, rows }, y) =>
    each(
      'r',
      y.rows,
      `const from = ${at(rows, 'r')} * ${x.columns};\n${each('c', x.columns, `${at(y, `${row(y)} + c`)} = ${at(x, 'from + c')};`)}`,
    ),

  // The sampler reads the step's parameters and writes the result itself.
  sample: ({ logits }) =>
    `sampler.sampleRows(step, ${logits.array}.subarray(${logits.base}, ${logits.base} + rows * ${logits.columns}), ${logits.columns}, firstRow, result);`,
};
