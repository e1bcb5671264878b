/** A server under abuse: `tenon serve` as a process, and what can be seen of it from outside. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { get } from 'node:http';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const core = fileURLToPath(new URL('../../packages/core', import.meta.url));

/** Backends: one that computes nothing, whose steps take a millisecond, and the CPU with the embedded model. */
const devices = {
  null: ['--device', 'null', '--plugin', `${core}/tests/cli/fixtures/null-backend`],
  cpu: ['--device', 'cpu'],
};

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Ready when this resolves. `args` are those of `tenon serve`. */
export async function startServer({ device = 'null', port, args = [], environment = {} } = {}) {
  const chosen = port ?? (await freePort());
  const child = spawn(
    process.execPath,
    [`${core}/bin/tenon.js`, 'serve', '--port', String(chosen), '--disable-access-log', ...devices[device], ...args],
    { env: { ...process.env, NULL_STEP_MS: '1', ...environment } },
  ); // prettier-ignore
  const server = new Server(child, chosen);
  await server.ready;
  return server;
}

export class Server {
  log = '';
  #printed = '';

  constructor(child, port) {
    this.child = child;
    this.port = port;
    this.pid = child.pid;
    this.ended = once(child, 'exit').then(([status, signal]) => ({ status, signal }));
    child.stderr.on('data', (text) => (this.log += text));
    this.ready = new Promise((resolve, reject) => {
      child.stdout.on('data', (text) => {
        this.#printed += text;
        if (this.#printed.includes('curl ')) resolve();
      });
      void this.ended.then(() => reject(new Error(`the server ended: ${this.log}`)));
    });
  }

  async stop() {
    this.child.kill('SIGTERM');
    return this.ended;
  }

  async metrics() {
    const response = await fetch(`http://127.0.0.1:${this.port}/metrics`, {
      headers: { connection: 'close' },
    });
    const text = await response.text();
    return (name, labels = '') =>
      Number(new RegExp(`^tenon:${name}\\{[^}]*${labels}[^}]*\\} (\\S+)`, 'm').exec(text)?.[1]);
  }

  async numBlocks() {
    const response = await fetch(`http://127.0.0.1:${this.port}/metrics`, {
      headers: { connection: 'close' },
    });
    return Number(/num_gpu_blocks="(\d+)"/.exec(await response.text())?.[1]);
  }

  get memoryMib() {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))[1]) / 1024;
  }

  get numFiles() {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  /** CPU time of all its threads so far. */
  get cpuMs() {
    const tasks = readdirSync(`/proc/${this.pid}/task`);
    const nanoseconds = tasks.map((task) =>
      Number(readFileSync(`/proc/${this.pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]),
    );
    return nanoseconds.reduce((sum, value) => sum + value, 0) / 1e6;
  }

  /** Log lines of level error and worse. */
  get errors() {
    return this.log.split('\n').filter((line) => /"level":[56]0/.test(line));
  }
}

/** Asks /health every 100 ms, on a connection of its own each time. */
export class HealthPoller {
  numAsked = 0;
  numWrong = 0;
  slowestMs = 0;
  #isOn = true;
  #done;

  constructor(port) {
    this.#done = this.#poll(port);
  }

  async stop() {
    this.#isOn = false;
    await this.#done;
  }

  async #poll(port) {
    while (this.#isOn) {
      const startMs = performance.now();
      const status = await askHealth(port);
      this.numAsked++;
      if (status !== 200) this.numWrong++;
      this.slowestMs = Math.max(this.slowestMs, performance.now() - startMs);
      await sleep(100);
    }
  }
}

/** The status, or 0 where there is no answer. */
export function askHealth(port) {
  return new Promise((resolve) => {
    get({ port, host: '127.0.0.1', path: '/health', agent: false, timeout: 5000 }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on('error', () => resolve(0))
      .on('timeout', () => resolve(0));
  });
}

/** Nothing runs and waits; then the gauges that must be right, or what is wrong. */
export async function untilIdle(server, timeoutMs = 20_000) {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const metric = await server.metrics();
    const left = {
      running: metric('num_requests_running'),
      waiting: metric('num_requests_waiting'),
      used: metric('kv_cache_blocks', 'state="used"'),
      free: metric('kv_cache_blocks', 'state="free"'),
    };
    const isIdle = left.running === 0 && left.waiting === 0 && left.used === 0;
    if (isIdle || performance.now() > deadline) return left;
    await sleep(50);
  }
}
