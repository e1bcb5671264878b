/** Entry of the engine's worker thread: loads the model, then runs the core on messages from the main thread. */
import { parentPort, workerData } from 'node:worker_threads';
import { asTenonError, invariant } from '../errors.js';
import { readNamed } from '../weights/read-tensor.js';
import type { EngineThreadData, FromThread, ToThread } from './core-link.js';
import { startRuntime, type ModelWeights, type Runtime, type RuntimeHost } from './engine-runtime.js';

const port = parentPort;
invariant(port !== null, 'engine-thread runs as a worker only');
const { options, path, locations, foreignDtypes } = workerData as EngineThreadData;

const post = (message: FromThread, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

const host: RuntimeHost = {
  log: (level, message) => post({ type: 'log', level, message }),
  onProgress: (loadedBytes, totalBytes) => post({ type: 'progress', loadedBytes, totalBytes }),
};

const weights: ModelWeights = {
  path,
  locations,
  foreignDtypes,
  read: (name) => readNamed(locations, name, path),
};

function serve(runtime: Runtime): void {
  port!.on('message', (message: ToThread) => {
    if (message.type === 'close') void close(runtime);
    else runtime.receive(message);
  });
  post({ type: 'ready', info: runtime.info });
}

async function close(runtime: Runtime): Promise<void> {
  await runtime.close();
  port!.close();
}

try {
  serve(
    await startRuntime(options, weights, host, (message) =>
      message.type === 'outputs' ? post(message, [message.records.buffer as ArrayBuffer]) : post(message),
    ),
  );
} catch (error) {
  post({ type: 'start-failed', error: asTenonError(error).toJSON() });
}
