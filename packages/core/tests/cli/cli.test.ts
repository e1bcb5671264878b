/** The `tenon` command from outside, on the null backend and the embedded model. */
import { createServer } from 'node:net';

import { afterEach, describe, expect, it } from 'vitest';

import { nullBackend, type Run, serve, tenon } from './tenon-process.js';

const runs: Run[] = [];

afterEach(() => {
  for (const { process: child } of runs.splice(0)) child.kill('SIGKILL');
});

async function started(...args: Parameters<typeof serve>): ReturnType<typeof serve> {
  const run = await serve(...args);
  runs.push(run);
  return run;
}

function post(url: string, body: object): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
}

const slow = { NULL_STEP_MS: '3' };
const long = { prompt: 'Once', max_tokens: 900, ignore_eos: true, stream: true };

describe('tenon serve', () => {
  it('serves the embedded model, and says what and where, with a line to paste', async () => {
    const { stdout, url } = await started();
    for (const name of ['device', 'kernels', 'model', 'KV cache', 'URL'])
      expect(stdout()).toMatch(new RegExp(`^${name} `, 'm'));
    expect(stdout()).toMatch(/KV cache \d+ blocks of \d+ = \d+ tokens/);
    expect(stdout()).toContain('tenon-stories-6m');
    const curl = /^curl -N (\S+) .* -d '(.*)'$/m.exec(stdout());
    const response = await post(curl?.[1] ?? '', {
      ...(JSON.parse(curl?.[2] ?? '') as object),
      max_tokens: 3,
    });
    expect(await response.text()).toMatch(/data: \[DONE\]\n\n$/);
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
  });

  it('starts in no time, also on a busy machine', async () => {
    const { stdout } = await started(['--disable-access-log']);
    const seconds = Number(/ready ([\d.]+) s/.exec(stdout())?.[1]);
    // Well above what it takes alone: other tests run beside this one.
    expect(seconds).toBeLessThan(5);
  });

  it('takes keys from the environment, and warns when it is open without one', async () => {
    const guarded = await started(['--host', '0.0.0.0'], { TENON_API_KEY: 'k' });
    expect((await fetch(`${guarded.url}/v1/models`)).status).toBe(401);
    const headers = { authorization: 'Bearer k' };
    expect((await fetch(`${guarded.url}/v1/models`, { headers })).status).toBe(200);
    expect(guarded.stderr()).not.toContain('anyone');
    const open = await started(['--host', '0.0.0.0']);
    await expect.poll(() => open.stderr()).toContain('anyone who reaches 0.0.0.0');
  });

  it('passes options on to engine and server', async () => {
    const { url } = await started([
      '--served-model-name',
      'a',
      'b',
      '--max_model_len',
      '256',
      '--metrics-prefix=vllm',
    ]);
    const { data } = (await (await fetch(`${url}/v1/models`)).json()) as { data: object[] };
    expect(data).toMatchObject([{ id: 'a', max_model_len: 256 }, { id: 'b' }]);
    expect(await (await fetch(`${url}/metrics`)).text()).toContain(
      'vllm:num_requests_running{model_name="a"',
    );
  });

  it.each(['SIGTERM', 'SIGINT'] as const)('ends with status 0 on %s, finishing what runs', async (signal) => {
    const { url, process: child, ended } = await started(['--shutdown-timeout', '30'], slow);
    const answer = await post(`${url}/v1/completions`, { ...long, max_tokens: 200 });
    child.kill(signal);
    const text = await answer.text();
    expect(text).toContain('"finish_reason":"length"');
    expect(text).toMatch(/data: \[DONE\]\n\n$/);
    expect((await ended).status).toBe(0);
  });

  it('fails what runs at once without a timeout, with status 0', async () => {
    const { url, process: child, ended } = await started([], slow);
    const answer = await post(`${url}/v1/completions`, long);
    child.kill('SIGTERM');
    const text = await answer.text();
    expect(text).toMatch(/"tenon_code":"capacity.shutting-down"\}\}\n\ndata: \[DONE\]\n\n$/);
    expect((await ended).status).toBe(0);
  });

  it('ends at once on a second signal', async () => {
    const { url, process: child, ended, stderr } = await started(['--shutdown-timeout', '60'], slow);
    const answer = await post(`${url}/v1/completions`, long);
    child.kill('SIGINT');
    await expect.poll(stderr).toContain('shutting down; 1 running requests have 60 s');
    child.kill('SIGINT');
    expect((await ended).status).toBe(130);
    await expect(answer.text()).rejects.toThrow('terminated');
  });

  it.each([
    [['--port', 'many'], 'config.invalid-option', /--port is 'many'/],
    [['--tensor-parallel-size', '2'], 'config.invalid-option', /--tensor-parallel-size is not supported/],
    [['--nonsense'], 'config.invalid-option', /unknown option '--nonsense'/],
    [['no-such-model-anywhere'], 'config.model-not-found', /no-such-model-anywhere/],
    [['--device', 'cray'], 'config.device-not-found', /no backend 'cray'/],
    [['--max-model-len', '99999', ...nullBackend], 'config.max-model-len', /--max-model-len is 99999/],
    [['--chat-template', 'missing.jinja'], 'config.invalid-option', /--chat-template is 'missing.jinja'/],
    [['--host', '203.0.113.7'], 'config.invalid-option', /no address 203\.0\.113\.7/],
  ])('refuses %j in one line with status 2', async (args, code, message) => {
    const { status, stderr, stdout } = await tenon(['serve', '--port', '0', ...args], {
      env: { HF_HUB_OFFLINE: '1' },
    }).ended;
    const line = stderr.split('\n').find((text) => text.startsWith('error [')) ?? stderr;
    expect(line).toContain(`error [${code}]: `);
    expect(line).toMatch(message);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(stdout).toBe('');
    expect(status).toBe(2);
  });

  it('names a port that is in use, before it loads the model', async () => {
    const blocker = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => blocker.once('listening', resolve));
    const { port } = blocker.address() as { port: number };
    const { status, stderr } = await tenon(['serve', 'never-looked-for', '--port', String(port)]).ended;
    blocker.close();
    expect(stderr).toContain(`error [config.port-in-use]: 127.0.0.1:${port} is in use`);
    expect(status).toBe(2);
  });

  it('shows the stack with --log-level debug', async () => {
    const { stderr } = await tenon(['serve', '--log-level', 'debug', '--port', 'x']).ended;
    expect(stderr).toMatch(/^\s+at /m);
  });
});

describe('tenon serve in trouble', () => {
  const failing = { prompt: 'Once', max_tokens: 100, ignore_eos: true };

  it.each([
    ['lose', 'backend.device-lost', 'fell off the bus'],
    ['hang', 'backend.device-lost', 'has not ended within 0.5 s'],
    ['crash', 'internal.engine-died', 'driver bug'],
  ])('fails what runs and ends with status 1 when its engine dies (%s)', async (fault, code, message) => {
    const { url, ended } = await started(['--step-timeout', '0.5'], { NULL_FAULT: fault });
    const answers = await Promise.all([1, 2, 3].map(() => post(`${url}/v1/completions`, failing)));
    for (const answer of answers) {
      expect(answer.status).toBe(500);
      expect(await answer.json()).toMatchObject({
        error: { tenon_code: code, message: expect.stringContaining(message) },
      });
    }
    const { status, stderr } = await ended;
    expect(status).toBe(1);
    expect(stderr).toContain('the engine died');
  });

  it.each([
    ['option', ['--keep-alive-on-engine-death'], {}],
    ['variable', [], { TENON_KEEP_ALIVE_ON_ENGINE_DEATH: '1' }],
  ])('stays, red, when its engine dies, by %s', async (_, args, env) => {
    const { url, process: child, ended } = await started(args, { NULL_FAULT: 'lose', ...env });
    expect((await fetch(`${url}/health`)).status).toBe(200);
    expect((await post(`${url}/v1/completions`, failing)).status).toBe(500);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const health = await fetch(`${url}/health`);
    expect(health.status).toBe(503);
    expect(await health.text()).toContain('fell off the bus');
    expect((await post(`${url}/v1/completions`, failing)).status).toBe(500);
    child.kill('SIGTERM');
    expect((await ended).status).toBe(0);
  });

  it('refuses with 429 what may not wait', async () => {
    const { url } = await started(['--max-num-seqs', '1', '--max-num-waiting-requests', '2'], slow);
    const running = [1, 2, 3].map(() => post(`${url}/v1/completions`, { ...long, max_tokens: 50 }));
    await expect
      .poll(async () => (await fetch(`${url}/metrics`)).text())
      .toMatch(/num_requests_waiting\{[^}]*\} 2/);
    const refused = await post(`${url}/v1/completions`, long);
    expect(refused.status).toBe(429);
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(await refused.json()).toMatchObject({
      error: { type: 'TooManyRequestsError', tenon_code: 'capacity.queue-full' },
    });
    for (const answer of await Promise.all(running))
      expect(await answer.text()).toMatch(/data: \[DONE\]\n\n$/);
  });
});

describe('tenon chat and complete', () => {
  it('talk to a running server, line by line from a pipe', async () => {
    const { url } = await started();
    const args = ['--url', `${url}/v1`, '--max-tokens', '5'];
    const chat = await tenon(['chat', ...args, '--stats'], { stdin: 'Hello\n\nAnd then?\n' }).ended;
    expect(chat.status, chat.stderr).toBe(0);
    expect(chat.stdout.split('\n').filter((line) => line.trim() !== '').length).toBeGreaterThan(0);
    expect(chat.stderr.match(/\[5 tokens in /g)).toHaveLength(2);
    const complete = await tenon(['complete', ...args, '-q', 'Once upon']).ended;
    expect(complete.stdout.trim()).not.toBe('');
    expect(complete.status).toBe(0);
  });

  it('run a model themselves where no server is named', async () => {
    const { status, stdout, stderr } = await tenon(
      ['chat', './packages/model-stories/model', ...nullBackend, '-q', 'Hello', '--max-tokens', '4'].map(
        (argument) =>
          argument.startsWith('./packages')
            ? new URL('../../../model-stories/model', import.meta.url).pathname
            : argument,
      ),
    ).ended;
    expect(status, stderr).toBe(0);
    expect(stdout.trim()).not.toBe('');
  });

  it('say that no server answers, and pass its errors on', async () => {
    const nobody = await tenon(['chat', '--url', 'http://127.0.0.1:9/v1', '-q', 'x']).ended;
    expect(nobody.stderr).toMatch(
      /^error \[config\.server-unreachable\]: no server answers at http:\/\/127\.0\.0\.1:9\/v1/,
    );
    expect(nobody.status).toBe(2);
    const { url } = await started([], { TENON_API_KEY: 'k' });
    const wrongKey = await tenon(['complete', '--url', `${url}/v1`, '--api-key', 'no', '-q', 'x']).ended;
    expect(wrongKey.stderr).toContain('error [request.unauthorized]');
    expect(wrongKey.status).toBe(1);
    const wrongModel = await tenon(['chat', '--url', `${url}/v1`, '--model-name', 'm', '-q', 'x'], {
      env: { TENON_API_KEY: 'k' },
    }).ended;
    expect(wrongModel.stderr).toContain("error [request.model-not-found]: the model 'm' does not exist");
  });
});

describe('tenon explain, doctor, help', () => {
  it('explain how a model runs', async () => {
    const { status, stdout, stderr } = await tenon(['explain', ...nullBackend]).ended;
    expect(status, stderr).toBe(0);
    expect(stdout).toContain('attention');
  });

  it('list devices', async () => {
    const { status, stdout } = await tenon(['doctor', '--plugin', nullBackend[3] ?? '']).ended;
    expect(status).toBe(0);
    expect(stdout).toContain('null: tenon-null-backend 1.0.0 (option)');
    expect(stdout).toMatch(/null:0: /);
  });

  it('show help by groups, and the version', async () => {
    const general = await tenon(['--help']).ended;
    for (const name of ['serve', 'chat', 'complete', 'explain', 'doctor'])
      expect(general.stdout).toContain(`  ${name}`);
    const help = await tenon(['serve', '--help']).ended;
    for (const group of ['Model:', 'Server:', 'Memory:', 'Scheduling:'])
      expect(help.stdout).toContain(`\n${group}\n`);
    expect(help.stdout).toContain('--max-model-len');
    expect(help.stdout).not.toContain('--allowed-origins');
    expect((await tenon(['serve', 'm', '--help', 'all']).ended).stdout).toContain('--allowed-origins');
    expect((await tenon(['serve', '--help', 'nonsense']).ended).status).toBe(2);
    expect(help.status).toBe(0);
    expect((await tenon(['--version']).ended).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    const unknown = await tenon(['swerve']).ended;
    expect(unknown.status).toBe(2);
  });
});
