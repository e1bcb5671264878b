/** The reference's paged cache: per layer K and V, [numBlocks · blockSize, numKvHeads · headDim] f32, rounded to the cache's type. */
import type { PlanKvLayer, PlanLimits } from '../../backend/index.js';
import { roundTo } from './rounding.js';

export class ReferenceKvCache {
  readonly blockSize: number;
  readonly #layers: readonly {
    readonly layer: PlanKvLayer;
    readonly k: Float32Array;
    readonly v: Float32Array;
  }[];

  constructor(
    kvLayers: readonly PlanKvLayer[],
    { numBlocks, blockSize }: Pick<PlanLimits, 'numBlocks' | 'blockSize'>,
  ) {
    this.blockSize = blockSize;
    this.#layers = kvLayers.map((layer) => {
      const size = numBlocks * blockSize * layer.numKvHeads * layer.headDim;
      return { layer, k: new Float32Array(size), v: new Float32Array(size) };
    });
  }

  /** Stores k[t] and v[t], rows of numKvHeads · headDim, at slotMapping[t]; -1 stores nothing. */
  write(layer: number, k: Float32Array, v: Float32Array, slotMapping: Int32Array): void {
    const cache = this.#layers[layer]!;
    const size = cache.layer.numKvHeads * cache.layer.headDim;
    slotMapping.forEach((slot, t) => {
      if (slot < 0) return;
      cache.k.set(roundTo(k.slice(t * size, (t + 1) * size), cache.layer.dtype), slot * size);
      cache.v.set(roundTo(v.slice(t * size, (t + 1) * size), cache.layer.dtype), slot * size);
    });
  }

  /** One head's key and value at a position of the sequence with these blocks: [headDim] each. */
  read(
    layer: number,
    head: number,
    blockTable: Int32Array,
    position: number,
  ): { k: Float32Array; v: Float32Array } {
    const cache = this.#layers[layer]!;
    const { numKvHeads, headDim } = cache.layer;
    const slot =
      blockTable[Math.floor(position / this.blockSize)]! * this.blockSize + (position % this.blockSize);
    const begin = (slot * numKvHeads + head) * headDim;
    return { k: cache.k.subarray(begin, begin + headDim), v: cache.v.subarray(begin, begin + headDim) };
  }

  get sizeBytes(): number {
    return this.#layers.reduce((sum, { k, v }) => sum + k.byteLength + v.byteLength, 0);
  }
}
