/** A loaded plan: its memory, the functions compiled for it so far, and the steps that wait their turn. */
import { resultHeader, resultWords, stepHeader } from '@tenon/core/backend';
import { Sampler, StepReader } from '@tenon/core/backend/host';
import { compile } from './generate.js';

/** @implements {import('@tenon/core/backend').Executable} */
export class Executable {
  #plan;
  #weights;
  #onStepDone;
  #sampler;
  #arena;
  /** Per layer, K then V: [2][numBlocks · blockSize][numKvHeads · headDim]. */
  #kv;
  /** By number of tokens. */
  #compiled = new Map();
  #counters = {
    steps: 0,
    compiles: 0,
    captures: 0,
    replays: 0,
    rebinds: 0,
    allocations: 0,
    fallbacks: 0,
    hostSyncs: 0,
  };
  #isClosed = false;

  constructor(plan, weights, onStepDone) {
    this.#plan = plan;
    this.#weights = weights;
    this.#onStepDone = onStepDone;
    this.#sampler = new Sampler(plan.limits.maxSeqs);
    this.#arena = new Float32Array(plan.arenaBytes / 4);
    const slots = plan.limits.numBlocks * plan.limits.blockSize;
    this.#kv = plan.kvLayers.map(
      ({ numKvHeads, headDim }) => new Float32Array(2 * slots * numKvHeads * headDim),
    );
  }

  /** A real device would be given the step here, and would call back from its own thread. */
  run(words, result) {
    setImmediate(() => {
      if (this.#isClosed) return;
      const stepId = words[stepHeader.indexOf('stepId')];
      try {
        this.#execute(new StepReader(words), result);
      } catch (error) {
        this.#onStepDone(stepId, { code: 'backend.step-failed', message: error.message });
        return;
      }
      this.#onStepDone(stepId);
    });
  }

  memory() {
    const bytes = (arrays) => arrays.reduce((sum, array) => sum + array.byteLength, 0);
    return [
      { arena: 'weights', usedBytes: bytes(this.#weights) },
      { arena: 'kv', usedBytes: bytes(this.#kv) },
      { arena: 'workspace', usedBytes: this.#arena.byteLength },
    ];
  }

  /** From here on, compiles are counted: there should be none. */
  freeze() {
    this.#counters.compiles = 0;
  }

  counters() {
    return this.#counters;
  }

  async close() {
    this.#isClosed = true;
  }

  #execute(step, result) {
    this.#counters.steps++;
    this.#sampler.beginStep(step);
    const outputs = this.#compiledFor(step.numTokens)(step, result, this.#sampler);
    const header = {
      stepId: step.stepId,
      status: 0,
      numLogitRows: step.numLogitRows,
      maxTopLogprobs: step.maxTopLogprobs,
    };
    for (const [field, value] of Object.entries(header)) result[resultHeader.indexOf(field)] = value;
    const floats = new Float32Array(result.buffer, result.byteOffset, result.length);
    let at = resultWords(step.numLogitRows, step.maxTopLogprobs);
    for (const output of outputs) {
      floats.set(output, at);
      at += output.length;
    }
  }

  #compiledFor(numTokens) {
    let run = this.#compiled.get(numTokens);
    if (run === undefined) {
      run = compile(this.#plan, numTokens, { weights: this.#weights, arena: this.#arena, kv: this.#kv });
      this.#compiled.set(numTokens, run);
      this.#counters.compiles++;
    }
    return run;
  }
}
