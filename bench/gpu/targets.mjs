// What must hold on one H200, and the figures of vLLM it is taken from.

/** vLLM 0.26.0, torch 2.11, one H200, its default settings, bf16, random weights: used where vLLM does not run beside us. */
const vllmMeasured = {
  'llama-8b': {
    throughput: 11_547,
    'decode-1': 204.2,
    'decode-32': 5927,
    'decode-256': 22_679,
    'ttft-128': 13.3,
    'ttft-2048': 51.0,
    'ttft-8192': 213.4,
    'prefix-shared': 8608,
  },
  'qwen3-0.6b': {
    throughput: 27_878,
    'decode-1': 609.4,
    'decode-32': 15_514,
    'decode-256': 49_852,
    'ttft-128': 8.6,
    'ttft-2048': 16.9,
    'ttft-8192': 36.1,
    'prefix-shared': 15_146,
  },
};

/** Times vLLM's figure; or a figure of its own. */
const times = (factor) => ({ factor });
const targets = {
  throughput: times(1.1),
  'decode-1': { 'llama-8b': { figure: 260 }, 'qwen3-0.6b': times(1.4) },
  'decode-32': times(1.1),
  'decode-256': times(1.1),
  'ttft-128': times(0.5),
  'ttft-2048': times(1),
  'ttft-8192': times(1),
  'prefix-shared': times(1.1),
  'gap-1': { figure: 30 },
  'gap-256': { figure: 2 },
  start: { 'llama-8b': { figure: 8 } },
};

/**
 * The figure to reach with a work, and what it is: `{ figure, note }`; undefined where there is none. `model` is undefined for models of
 * other shapes, `vllmFigure` where vLLM did not run beside us.
 */
export function targetOf(model, work, vllmFigure) {
  if (vllmMeasured[model] === undefined) return undefined;
  const target = targets[work]?.[model] ?? targets[work];
  if (target?.figure !== undefined) return { figure: target.figure, note: '' };
  const base = vllmFigure ?? vllmMeasured[model][work];
  if (target?.factor === undefined || base === undefined) return undefined;
  const source = vllmFigure === undefined ? ' of 2026-11-21' : '';
  return { figure: target.factor * base, note: `${target.factor} × vLLM${source}` };
}

/** Times are better when smaller. */
export const isMet = (unit, value, figure) => (unit === 'tokens/s' ? value >= figure : value <= figure);
