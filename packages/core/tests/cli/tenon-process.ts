/** Runs the built `tenon` command on the null backend. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const bin = fileURLToPath(new URL('../../bin/tenon.js', import.meta.url));
export const nullBackend = [
  '--device',
  'null',
  '--plugin',
  fileURLToPath(new URL('fixtures/null-backend', import.meta.url)),
];

export interface Run {
  readonly process: ChildProcess;
  stdout(): string;
  stderr(): string;
  readonly ended: Promise<{
    readonly status: number | null;
    readonly stdout: string;
    readonly stderr: string;
  }>;
}

export function tenon(
  args: readonly string[],
  options: { env?: Record<string, string>; stdin?: string } = {},
): Run {
  const { TENON_API_KEY: _key, OPENAI_API_KEY: _other, ...env } = process.env;
  const child = spawn(process.execPath, [bin, ...args], { env: { ...env, ...options.env } });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (text: Buffer) => (output.stdout += text.toString()));
  child.stderr.on('data', (text: Buffer) => (output.stderr += text.toString()));
  child.stdin.end(options.stdin ?? '');
  return {
    process: child,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    ended: new Promise((resolve) => child.once('close', (status) => resolve({ status, ...output }))),
  };
}

/** A server on a free port; resolves when it is ready. */
export async function serve(
  args: readonly string[] = [],
  env: Record<string, string> = {},
): Promise<Run & { url: string }> {
  const run = tenon(['serve', '--port', '0', ...nullBackend, ...args], { env });
  const url = await new Promise<string>((resolve, reject) => {
    const look = (): void => {
      const match = /^URL +(\S+)/m.exec(run.stdout());
      if (match !== null) resolve(match[1] ?? '');
    };
    run.process.stdout?.on('data', look);
    void run.ended.then(({ stderr }) => reject(new Error(`it ended: ${stderr}`)));
  });
  return { ...run, url };
}
