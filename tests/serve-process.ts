/** `tenon serve` as a process of its own, on a free port. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const tenon = fileURLToPath(new URL('../node_modules/.bin/tenon', import.meta.url));
const cwd = fileURLToPath(new URL('..', import.meta.url));

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export interface ServeProcess extends AsyncDisposable {
  readonly url: string;
  readonly child: ChildProcess;
  readonly readyMs: number;
  /** All it has printed. */
  output(): string;
}

/** Starts a server, of the application in `folder` if one is given, and waits until `/health` is 200. */
export async function serve(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  folder = cwd,
): Promise<ServeProcess> {
  const port = await freePort();
  const start = performance.now();
  const child = spawn(join(folder, 'node_modules/.bin/tenon'), ['serve', ...args, '--port', String(port)], {
    cwd: folder,
    env: { ...process.env, ...environment },
  });
  let printed = '';
  child.stdout.on('data', (data) => (printed += data));
  child.stderr.on('data', (data) => (printed += data));
  const url = `http://127.0.0.1:${port}`;
  while (
    !(await fetch(`${url}/health`).then(
      (response) => response.ok,
      () => false,
    ))
  ) {
    if (child.exitCode !== null || performance.now() - start > 60_000)
      throw new Error(`no server; it printed: ${printed}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const readyMs = performance.now() - start;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  const stop = async () => {
    child.kill('SIGTERM');
    await exited;
  };
  return { url, child, readyMs, output: () => printed, [Symbol.asyncDispose]: stop };
}

export interface RunOptions {
  readonly input?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** An application's folder. */
  readonly folder?: string;
  /** A command that runs the command it is given, under limits. */
  readonly under?: readonly string[];
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end. */
export async function run(
  args: readonly string[],
  { input = '', environment = {}, under = [], folder = cwd }: RunOptions = {},
): Promise<Ended> {
  const [command, ...rest] = [...under, tenon, ...args];
  const child = spawn(command!, rest, { cwd: folder, env: { ...process.env, ...environment } });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => (stderr += data));
  child.stdin.end(input);
  return new Promise((resolve) =>
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr })),
  );
}
