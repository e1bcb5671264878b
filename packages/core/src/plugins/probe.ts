/**
 * Loads a backend for the first time, in a process of its own: a driver that crashes, hangs or exits there is a line of
 * `tenon doctor`, not a dead server. Every backend goes this way, ours too.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { TenonError } from '../errors.js';
import type { BackendManifest } from './manifest.js';
import { judgeProbe, type ProbeMessage, type ProbeOutcome } from './probe-outcome.js';

/** Of what it prints, the beginning and the end are kept. */
const maxPrintedLength = 65_536;
/** What the process's own watchdog lets it have beyond its limit, should this process be too busy to end it. */
const graceMs = 1000;

/** The limit of TENON_PROBE_TIMEOUT, in milliseconds. Throws config.invalid-environment. */
export function probeTimeoutMs(env: Readonly<Record<string, string | undefined>>, defaultMs: number): number {
  const text = env['TENON_PROBE_TIMEOUT'];
  if (text === undefined) return defaultMs;
  const seconds = Number(text);
  if (text.trim() !== '' && seconds > 0 && seconds <= 3600) return seconds * 1000;
  const message = `TENON_PROBE_TIMEOUT is '${text}'; expected seconds above 0, up to 3600`;
  throw new TenonError('config.invalid-environment', message);
}

export interface ProbeLimits {
  readonly timeoutMs: number;
  /** Ends it early. */
  readonly signal?: AbortSignal;
}

/** Never rejects. No process is left when it resolves. */
export async function probeBackend(
  manifest: BackendManifest,
  { timeoutMs, signal: abort }: ProbeLimits,
): Promise<ProbeOutcome> {
  const startMs = performance.now();
  const { packageName, entry } = manifest;
  const args = [...childProgram(), packageName, entry, String(timeoutMs + graceMs), String(process.pid)];
  // A group of its own, so that what it starts ends with it.
  const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
  const [stdout, stderr, said] = [1, 2, 3].map((i) => collect(child.stdio[i] as Readable));
  const end = (): void => endGroup(child);
  child.once('exit', end);
  abort?.addEventListener('abort', end);
  // What it said while this process was busy is read before it is ended.
  const timer = setTimeout(() => setImmediate(end), timeoutMs);
  const { exitCode, signal, failure } = await ending(child);
  clearTimeout(timer);
  abort?.removeEventListener('abort', end);
  return judgeProbe(manifest, {
    messages:
      failure === undefined ? parseLines(said!()) : [{ error: `no process to probe it in: ${failure}` }],
    exitCode,
    signal,
    timedOut: signal === 'SIGKILL' && performance.now() - startMs >= timeoutMs,
    timeoutMs,
    stdout: stdout!(),
    stderr: stderr!(),
  });
}

/** What Node is to run: the built file, or, from sources (in tests), the TypeScript through tsx. */
function childProgram(): readonly string[] {
  const require = createRequire(import.meta.url);
  if (!import.meta.url.endsWith('.ts'))
    return [join(dirname(require.resolve('@tenon/core/package.json')), 'dist/plugins/probe-child.js')];
  const source = fileURLToPath(new URL('./probe-child.ts', import.meta.url));
  return ['--import', pathToFileURL(require.resolve('tsx')).href, source];
}

interface Ending {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly failure?: string;
}

/** Resolves when all that it printed has been read. */
function ending(child: ChildProcess): Promise<Ending> {
  return new Promise((resolve) => {
    child.once('error', ({ message }) => resolve({ exitCode: null, signal: null, failure: message }));
    child.once('close', (exitCode, signal) => resolve({ exitCode, signal }));
  });
}

/** The process and those that it started. */
function endGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // They have ended.
  }
}

/** Reads a stream; what it has given so far, without the middle where it is long. */
function collect(stream: Readable): () => string {
  let text = '';
  stream.setEncoding('utf8');
  stream.on('data', (part: string) => {
    text += part;
    if (text.length > 2 * maxPrintedLength) text = text.slice(0, maxPrintedLength) + text.slice(-maxPrintedLength); // prettier-ignore
  });
  return () => text;
}

/** A line that was cut off by the process's end is no message. */
function parseLines(text: string): ProbeMessage[] {
  return text.split('\n').flatMap((line) => {
    try {
      return [JSON.parse(line) as ProbeMessage];
    } catch {
      return [];
    }
  });
}
