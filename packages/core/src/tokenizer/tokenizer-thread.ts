/** Worker thread: the tokenizer of `workerData`, encoding what `EncodeThread` sends. */
import { parentPort, workerData } from 'node:worker_threads';
import { asTenonError, invariant } from '../errors.js';
import type { TokenizerSource } from '../weights/checkpoint.js';
import type { EncodeRequest, EncodeResponse } from './encode-thread.js';
import { TextTokenizer } from './text-tokenizer.js';
import { tokenizerDefinition } from './tokenizer-source.js';

invariant(parentPort !== null, 'the tokenizer thread is not started as a worker');
const port = parentPort;
const definition = tokenizerDefinition(workerData as TokenizerSource);
invariant(definition !== undefined, 'the tokenizer thread has no tokenizer files');
const tokenizer = new TextTokenizer(definition);

port.on('message', ({ id, text, addSpecialTokens }: EncodeRequest) => {
  try {
    const tokenIds = Uint32Array.from(tokenizer.encode(text, { addSpecialTokens }));
    port.postMessage({ id, tokenIds } satisfies EncodeResponse, [tokenIds.buffer]);
  } catch (error) {
    port.postMessage({ id, error: asTenonError(error).toJSON() } satisfies EncodeResponse);
  }
});
