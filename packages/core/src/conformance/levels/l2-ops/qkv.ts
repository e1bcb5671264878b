import type { ConformanceCase } from '../../case.js';
import type { Random } from '../../random.js';
import { attentionTolerance, growingBatch } from './attention.js';
import { opCases } from './op-cases.js';

/** The fused q, k, v: its q, and by the attention that follows, what it wrote to the cache. */
export function qkvCases(random: Random): ConformanceCase[] {
  const parameters = {
    heads: ['4/2', '3/3', '8/1'],
    dims: ['16/16', '64/64', '64/32', '128/128', '80/20'],
    norm: [false, true],
    interleaved: [false, true],
    scale: [1, 1e-3],
  } as const;
  return opCases('qkv_rope_kv_write', parameters, random, ({ heads, dims, norm, interleaved, scale, dtype }) => {
    const [numHeads, numKvHeads] = heads.split('/').map(Number) as [number, number];
    const [headDim, rotaryDim] = dims.split('/').map(Number) as [number, number];
    return {
      record: (p) => {
        const layer = p.g.kvLayer({ numKvHeads, headDim });
        const weightOf = (name: string) => (norm ? p.vector(name, p.random.normals(headDim)) : undefined);
        const operands = {
          qkv: p.floats((numHeads + 2 * numKvHeads) * headDim, scale),
          cosSin: p.floats(rotaryDim),
          qNorm: weightOf('qNorm'),
          kNorm: weightOf('kNorm'),
          slotMapping: p.g.input('slotMapping'),
          kv: p.g.kvState(),
        };
        const attrs = { layer, numHeads, numKvHeads, headDim, rotaryDim, interleaved: interleaved ? 1 : 0, eps: 1e-6 };
        const q = p.g.op('qkv_rope_kv_write', operands, attrs, dtype);
        p.g.output(q);
        const y = p.g.attention(q, layer, { numHeads, numKvHeads, headDim, scale: 0.2 / headDim });
        return y;
      },
      sizes: { tokens: 24, seqs: 2, length: 21 },
      steps: growingBatch([5, 18]),
      // q and k of the reference and of the kernel may round to neighbours in the cache's type
      tolerance: { ...attentionTolerance(dtype), magnitude: 'row', factor: dtype === 'f32' ? 16 : 2 },
    };
  }); // prettier-ignore
}
