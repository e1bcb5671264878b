// Servers of the comparison over HTTP: how each is started, and how it says that it is ready.
import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Prefix caches are off, as rounds repeat prompts. `chunk`: tokens of prompts that a step takes by default. */
const servers = {
  tenon: ({ folder, threads }) => ({
    needs: at('../../packages/core/dist/cli/main.js'),
    command: process.execPath,
    args: [at('../../packages/core/bin/tenon.js'), 'serve', folder, '--served-model-name', 'm', '--dtype', 'bfloat16', '--num-threads', threads, '--no-enable-prefix-caching', '--disable-access-log'],
    chunk: Math.min(2048, Math.max(512, 256 * threads)),
  }),
  'llama-native': ({ gguf, threads, peers, slots, tokensPerSlot }) => ({
    needs: `${peers}/llama-native/build/bin/llama-server`,
    command: `${peers}/llama-native/build/bin/llama-server`,
    args: ['-m', gguf, '-a', 'm', '-t', threads, '-np', String(slots), '-c', String(slots * tokensPerSlot), '--no-cache-prompt', '-cram', '0'],
    chunk: 2048,
  }),
  vllm: ({ folder, threads, peers }) => ({
    needs: `${peers}/vllm/bin/vllm`,
    command: `${peers}/vllm/bin/vllm`,
    args: ['serve', folder, '--served-model-name', 'm', '--dtype', 'bfloat16', '--no-enable-prefix-caching'],
    env: { VLLM_CPU_KVCACHE_SPACE: '2', VLLM_CPU_OMP_THREADS_BIND: `0-${threads - 1}`, VLLM_LOGGING_LEVEL: 'WARNING' },
    chunk: 2048,
  }),
}; // prettier-ignore

export const serverNames = Object.keys(servers);

/** How a server would be started, and the file that it needs. `options`: folder, gguf, peers, threads, slots, tokensPerSlot. */
export function describeServer(name, options) {
  return servers[name](options);
}

/** Starts a server; resolves when `/health` is 200. What it prints goes to `logFile`. */
export async function startServer(name, options, logFile) {
  const { command, args, env, chunk } = describeServer(name, options);
  const port = await freePort();
  const start = performance.now();
  const child = spawn(command, [...args, '--host', '127.0.0.1', '--port', String(port)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
    detached: true, // a process group of its own, as vLLM has further processes
  });
  const killAll = () => signalGroup(child.pid, 'SIGKILL');
  process.once('exit', killAll);
  const log = createWriteStream(logFile);
  for (const stream of [child.stdout, child.stderr]) stream.pipe(log, { end: false });
  const url = `http://127.0.0.1:${port}`;
  const isHealthy = () => fetch(`${url}/health`).then(({ ok }) => ok, () => false); // prettier-ignore
  while (!(await isHealthy())) {
    if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}; see ${logFile}`);
    await sleep(20);
  }
  const stop = async () => {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    signalGroup(child.pid, 'SIGTERM');
    await Promise.race([ended, sleep(10_000, undefined, { ref: false })]);
    killAll();
  };
  return { name, url, chunk, readySeconds: (performance.now() - start) / 1000, stop };
}

function signalGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended.
  }
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
