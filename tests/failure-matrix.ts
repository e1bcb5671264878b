/** A server on a backend with failures on request, and what is left of it. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { tenon } from './serve-process.js';

/** A backend package whose failures are asked for by an environment variable, in the words `<point>:<kind>`, joined by commas. */
export interface FaultyBackend {
  readonly folder: string;
  readonly device: string;
  readonly variable: string;
  /** `--step-timeout` where a step hangs: longer than any other takes on a busy machine. */
  readonly stepSeconds: string;
}

export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
  readonly seconds: number;
  /** Command lines of processes that it has left behind. */
  readonly left: readonly string[];
}

export interface FaultyServer extends AsyncDisposable {
  readonly url: string;
  /** Waits until `/health` has this status; false: the server has ended. */
  untilHealth(status: 200 | 503): Promise<boolean>;
  /** The status of `/health`; undefined when nobody listens. */
  health(): Promise<number | undefined>;
  metric(name: string): Promise<number>;
  complete(fields?: object): Promise<Answer>;
  stop(): void;
  stderr(): string;
  readonly ended: Promise<Outcome>;
}

/** What became of a request. */
export interface Answer {
  /** Undefined: the connection ended without an answer. */
  readonly status: number | undefined;
  readonly text: string;
}

export async function serveFaulty(
  backend: FaultyBackend,
  faults: string,
  args: readonly string[] = [],
): Promise<FaultyServer> {
  const counts = mkdtempSync(join(tmpdir(), 'tenon-faulty-'));
  const mark = randomUUID();
  const port = await freePort();
  const startMs = performance.now();
  const options = ['--device', backend.device, '--plugin', backend.folder, '--port', String(port), ...args];
  const limits = limitsFor(backend, faults);
  const child = spawn(process.execPath, [tenon, 'serve', ...limits.options, ...options], {
    env: {
      ...process.env,
      [backend.variable]: faults,
      FAULTY_COUNTS: counts,
      TENON_PROBE_TIMEOUT: limits.probeSeconds,
      TEST_MARK: mark,
    },
  });
  let stderr = '';
  child.stderr.on('data', (text) => (stderr += text));
  child.stdout.resume();
  const ended = new Promise<Outcome>((resolve) =>
    child.once('close', (status, signal) => {
      rmSync(counts, { recursive: true });
      const seconds = (performance.now() - startMs) / 1000;
      resolve({ status, signal, stderr, seconds, left: processesWith(mark) });
    }),
  );
  const url = `http://127.0.0.1:${port}`;
  const health = (): Promise<number | undefined> =>
    fetch(`${url}/health`).then(
      ({ status }) => status,
      () => undefined,
    );
  const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null;
  return {
    url,
    health,
    untilHealth: async (status) => {
      while (!hasEnded()) {
        if ((await health()) === status) return true;
        await sleep(10);
      }
      return false;
    },
    metric: async (name) => {
      const text = await (await fetch(`${url}/metrics`)).text();
      return Number(new RegExp(`^tenon:${name}\\{[^}]*\\} (\\S+)$`, 'm').exec(text)?.[1]);
    },
    complete: (fields) => complete(url, fields),
    stop: () => child.kill('SIGTERM'),
    stderr: () => stderr,
    ended,
    [Symbol.asyncDispose]: async () => {
      if (!hasEnded()) child.kill('SIGKILL');
      await ended;
    },
  };
}

/** Short only where something hangs: a busy machine is slow. */
function limitsFor(
  { stepSeconds }: FaultyBackend,
  faults: string,
): { readonly options: readonly string[]; readonly probeSeconds: string } {
  const seconds = (fault: RegExp, short: string): string => (fault.test(faults) ? short : '30');
  return {
    options: [
      '--load-timeout', seconds(/load:hang/, '2'),
      '--step-timeout', seconds(/(step|warmup):hang/, stepSeconds),
    ], // prettier-ignore
    probeSeconds: seconds(/probe:hang/, '5'),
  };
}

async function complete(url: string, fields: object = {}): Promise<Answer> {
  const body = { prompt: 'Once', max_tokens: 20, ignore_eos: true, ...fields };
  let status: number | undefined;
  try {
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    status = response.status;
    return { status, text: await response.text() };
  } catch (error) {
    return { status: undefined, text: String(error) };
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Those whose environment has the mark, as children inherit it. */
function processesWith(mark: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const isMarked = readFileSync(`/proc/${pid}/environ`, 'latin1').includes(mark);
        return isMarked ? [readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')] : [];
      } catch {
        return [];
      }
    });
}
