/** Sequences with blocks of the cache, in no order: what a scheduler would hand to a step, made by hand. */
import type { PlanLimits } from '../backend/index.js';
import { invariant } from '../errors.js';
import type { PlainRow, PlainSequence } from './plain-step.js';
import type { Random } from './random.js';

/** A sequence that grows by steps. */
export class TestSequence {
  readonly slot: number;
  readonly blocks: readonly number[];
  readonly promptLen: number;
  /** Tokens computed so far. */
  length: number;

  constructor(slot: number, blocks: readonly number[], promptLen: number, length = 0) {
    this.slot = slot;
    this.blocks = blocks;
    this.promptLen = promptLen;
    this.length = length;
  }

  /** Its part of the next step; `rows` count from the first of `tokens`. By default the last token has a greedy row. */
  next(tokens: readonly number[], rows: readonly PlainRow[] = [{ token: tokens.length - 1 }]): PlainSequence {
    const { slot, blocks, promptLen, length: start } = this;
    this.length += tokens.length;
    return { slot, tokens, start, promptLen, blocks, rows };
  }
}

/** Hands out blocks, which may be given back, and sampler slots, the one that was used longest ago first. */
export class BlockGiver {
  readonly #free: number[];
  #slots: number[];
  readonly #blockSize: number;

  constructor({ numBlocks, blockSize, maxSeqs }: PlanLimits, random: Random) {
    this.#blockSize = blockSize;
    this.#free = random.shuffled(Array.from({ length: numBlocks }, (_, i) => i));
    this.#slots = random.shuffled(Array.from({ length: maxSeqs }, (_, i) => i));
  }

  /** A sequence with blocks for `maxLength` tokens. Sequences of one step have slots of their own. */
  sequence(promptLen: number, maxLength = promptLen): TestSequence {
    const numBlocks = Math.ceil(maxLength / this.#blockSize);
    invariant(this.#free.length >= numBlocks, 'the case holds more blocks than its plan has');
    const [slot, ...others] = this.#slots as [number, ...number[]];
    this.#slots = [...others, slot];
    return new TestSequence(slot, this.#free.splice(0, numBlocks), promptLen);
  }

  /** Its blocks and slot are the next ones to be handed out. */
  giveBack({ blocks, slot }: TestSequence): void {
    this.#free.unshift(...blocks);
    this.#slots = [slot, ...this.#slots.filter((other) => other !== slot)];
  }
}
