/**
 * Whatever fails, whenever: the right error, within a time limit, no request without an answer, no process left behind.
 * Once on the simulated accelerator, whose failures are those of native code, and for what it does not do on the null backend.
 */
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildTemplate, templateFolder } from './built-template.js';
import { serveFaulty, type Answer, type FaultyBackend, type FaultyServer } from './failure-matrix.js';

const template: FaultyBackend = {
  folder: templateFolder,
  device: 'template',
  variable: 'TENON_SIM_FAULT',
  stepSeconds: '5',
};
const faulty: FaultyBackend = {
  folder: fileURLToPath(new URL('fixtures/faulty-backend', import.meta.url)),
  device: 'faulty',
  variable: 'FAULTY',
  stepSeconds: '1',
};
const oneAtATime = ['--max-num-seqs', '1'];
const restarts = [...oneAtATime, '--restart-on-device-loss'];
/** More than any of these takes on two busy cores. */
const maxSeconds = 40;

type End = number | NodeJS.Signals;

async function expectEnd(server: FaultyServer, end: End): Promise<void> {
  const { status, signal, seconds, left } = await server.ended;
  expect(signal ?? status).toBe(end);
  expect(left).toEqual([]);
  expect(seconds).toBeLessThan(maxSeconds);
}

const codeOf = ({ text }: Answer): string | undefined => /"tenon_code":"([^"]+)"/.exec(text)?.[1];
/** The first runs, the others wait. */
const completeAll = (server: FaultyServer): Promise<Answer[]> =>
  Promise.all([server.complete({ stream: true }), server.complete(), server.complete()]);

beforeAll(buildTemplate, 400_000);

/** A start that fails ends with one line, or, where native code crashed, with the signal alone. */
async function expectNoStart(
  backend: FaultyBackend,
  fault: string,
  end: End,
  code: string | undefined,
  message: string,
): Promise<void> {
  await using server = await serveFaulty(backend, fault, oneAtATime);
  await expectEnd(server, end);
  const errors = server
    .stderr()
    .split('\n')
    .filter((line) => line.startsWith('error ['));
  expect(errors).toHaveLength(code === undefined ? 0 : 1);
  if (code !== undefined) expect(errors[0]).toContain(`error [${code}]: `);
  expect(errors.join('')).toContain(message);
  expect(server.stderr()).not.toMatch(/^\s+at /m);
}

async function expectEndOfAll(backend: FaultyBackend, fault: string, code: string): Promise<void> {
  await using server = await serveFaulty(backend, fault, oneAtATime);
  expect(await server.untilHealth(200)).toBe(true);
  const answers = await completeAll(server);
  expect(answers.map(codeOf)).toEqual([code, code, code]);
  expect(answers[0]!.text).toMatch(/"text":.*\n\ndata: \{"error":.*\}\n\ndata: \[DONE\]\n\n$/s);
  expect(answers.slice(1).map(({ status }) => status)).toEqual([500, 500]);
  await expectEnd(server, 1);
  expect(server.stderr()).toContain('the engine died; the server ends with status 1');
}

/** What runs fails, and the rest is answered, by the next engine after `attempts` that failed, each as it says. */
async function expectRestart(
  backend: FaultyBackend,
  faults: string,
  attempts: readonly string[],
): Promise<void> {
  await using server = await serveFaulty(backend, faults, restarts);
  expect(await server.untilHealth(200)).toBe(true);
  const answers = await completeAll(server);
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
  expect(answers[0]!.text).toMatch(/the engine restarts: send the request again.*\n\ndata: \[DONE\]\n\n$/s);
  expect(answers.slice(1).map(codeOf)).toEqual([undefined, undefined]);
  expect(await server.health()).toBe(200);
  expect(await server.metric('engine_restarts_total')).toBe(1);
  const failed = [...server.stderr().matchAll(/does not start again \(attempt \d of 5\): ([^\n]*)/g)];
  expect(failed).toHaveLength(attempts.length);
  attempts.forEach((message, i) => expect(failed[i]![1]).toContain(message));
  server.stop();
  await expectEnd(server, 0);
}

async function expectGoingOn(backend: FaultyBackend, fault: string, code: string): Promise<void> {
  await using server = await serveFaulty(backend, fault, oneAtATime);
  expect(await server.untilHealth(200)).toBe(true);
  expect((await completeAll(server)).map(codeOf)).toEqual([code, undefined, undefined]);
  expect(await server.health()).toBe(200);
  server.stop();
  await expectEnd(server, 0);
}

const unusable = 'config.device-unusable';

describe.concurrent('the null backend', () => {
  // Waits more than others, so it begins first.
  it('fails what waits and ends the server when it never comes back', async () => {
    const faults = ['step:lost@1', ...[2, 3, 4, 5, 6].map((n) => `load:fail@${n}`)].join(',');
    await using server = await serveFaulty(faulty, faults, restarts);
    expect(await server.untilHealth(200)).toBe(true);
    const answers = completeAll(server);
    expect(await server.untilHealth(503)).toBe(true);
    expect((await answers).map(codeOf)).toEqual(Array(3).fill('backend.device-lost'));
    expect((await answers)[2]!.text).toContain(
      'it did not come back in 5 attempts: the device does not take the model',
    );
    await expectEnd(server, 1);
  });

  it.each<[faults: string, attempts: string[]]>([
    [
      'step:lost@1,probe:crash@2,probe:exit@3,probe:throw@4',
      ['it was ended by SIGSEGV', 'exit code 3', 'driver bug'],
    ],
    [
      'step:lost@1,load:hang@2,load:fail@3,load:oom@4',
      ['no progress for 2 s', 'does not take the model', 'out of memory'],
    ],
    ['step:hang@1,warmup:hang@2,warmup:lost@3', ['no answer for 1 s', 'fell off the bus']],
    [
      'step:lost@1,probe:hang@2,load:exit@2,load:throw@3',
      ['did not end within 5 s', 'exited with code 3', 'driver bug'],
    ],
    [
      'step:lost@1,warmup:exit@2,warmup:throw@3,warmup:oom@4',
      ['exited with code 3', 'driver bug', 'out of memory'],
    ],
    ['step:exit@1', []],
    ['step:throw@1', []],
    ['step:hang@1', []],
    ['step:lost@1', []],
  ])('with %s fails what runs, and the next engine answers the rest', (faults, attempts) =>
    expectRestart(faulty, faults, attempts),
  );

  it('with step:lost in every engine fails one request after another, and the server lives', async () => {
    await using server = await serveFaulty(faulty, 'step:lost', restarts);
    expect(await server.untilHealth(200)).toBe(true);
    expect((await completeAll(server)).map(codeOf)).toEqual(Array(3).fill('backend.device-lost'));
    expect(await server.untilHealth(200)).toBe(true);
    expect(await server.metric('engine_restarts_total')).toBe(3);
    server.stop();
    await expectEnd(server, 0);
  });

  it('with step:hang is stopped by SIGTERM all the same, long before the step counts as hung', async () => {
    await using server = await serveFaulty(faulty, 'step:hang', [...restarts, '--step-timeout', '600']);
    expect(await server.untilHealth(200)).toBe(true);
    const answer = server.complete({ stream: true });
    while ((await server.metric('generation_tokens_total')) < 1);
    server.stop();
    expect((await answer).text).toContain('capacity.shutting-down');
    await expectEnd(server, 0);
  });

  it.each<[fault: string, end: End, code: string | undefined, message: string]>([
    ['probe:fail', 2, unusable, 'is probe-failed: the device does not take the model'],
    ['probe:lost', 2, unusable, 'is probe-failed: the device fell off the bus'],
    ['load:exit', 1, 'internal.engine-died', 'the engine thread died: it exited with code 3'],
    ['load:throw', 1, 'backend.load-failed', 'backend faulty failed while loading: driver bug'],
    ['load:lost', 1, 'backend.device-lost', 'the device fell off the bus'],
    ['warmup:exit', 1, 'internal.engine-died', 'the engine thread died: it exited with code 3'],
    ['warmup:throw', 1, 'internal.engine-died', 'the engine thread died: driver bug'],
    ['warmup:fail', 1, 'backend.step-failed', 'warm-up with a step of 2048 tokens'],
  ])('with %s ends the start with %s', (fault, end, code, message) =>
    expectNoStart(faulty, fault, end, code, message),
  );

  it.each([
    ['step:exit', 'internal.engine-died'],
    ['step:throw', 'internal.engine-died'],
  ])('with %s fails everything with %s and ends the server', (fault, code) =>
    expectEndOfAll(faulty, fault, code),
  );

  it('with step:fail fails what runs, and the rest is answered', () =>
    expectGoingOn(faulty, 'step:fail', 'backend.step-failed'));

  it('with probe:crash leaves another device to serve where any may, and says so', async () => {
    await using server = await serveFaulty({ ...faulty, device: 'auto' }, 'probe:crash', oneAtATime);
    expect(await server.untilHealth(200)).toBe(true);
    expect(server.stderr()).toMatch(/not used: [^\n]*faulty[^\n]*SIGSEGV/);
    server.stop();
    await expectEnd(server, 0);
  });
});

describe.concurrent('the simulated accelerator', () => {
  it.each<[fault: string, end: End, code: string | undefined, message: string]>([
    [
      'probe:crash',
      2,
      unusable,
      'tenon-backend-template 0.1.0 is probe-failed: it was ended by SIGSEGV in devices()',
    ],
    ['probe:hang', 2, unusable, 'it did not end within 5 s; the time was up in devices()'],
    ['probe:exit', 2, unusable, 'it ended the process with exit code 3 in devices()'],
    ['probe:throw', 2, unusable, 'is probe-failed: the simulated driver threw'],
    ['load:fail', 1, 'backend.load-failed', 'the simulated device refuses to load'],
    ['load:oom', 1, 'backend.out-of-memory', 'the simulated device is out of memory'],
    ['load:hang', 1, 'backend.load-failed', 'loading made no progress for 2 s'],
    ['load:crash', 'SIGSEGV', undefined, ''],
    ['warmup:lost', 1, 'backend.device-lost', 'warm-up with a step of '],
    ['warmup:oom', 1, 'backend.out-of-memory', 'warm-up with a step of '],
    ['warmup:hang', 1, 'backend.device-lost', 'no answer for 5 s'],
    ['warmup:crash', 'SIGSEGV', undefined, ''],
  ])('with %s ends the start with %s', (fault, end, code, message) =>
    expectNoStart(template, fault, end, code, message),
  );

  it.each([
    ['step:lost@3', 'backend.device-lost'],
    ['step:hang@3', 'backend.device-lost'],
  ])('with %s fails everything with %s and ends the server', (fault, code) =>
    expectEndOfAll(template, fault, code),
  );

  it('with step:oom@3 fails what runs, and the rest is answered', () =>
    expectGoingOn(template, 'step:oom@3', 'backend.out-of-memory'));

  it('with step:crash@3 ends the server, and every connection', async () => {
    await using server = await serveFaulty(template, 'step:crash@3', restarts);
    expect(await server.untilHealth(200)).toBe(true);
    for (const { text } of await completeAll(server)) expect(text).toMatch(/fetch failed|terminated/);
    await expectEnd(server, 'SIGSEGV');
  });

  it.each(['step:lost@3', 'step:hang@3'])(
    'with %s fails what runs, and the next engine answers the rest',
    (fault) => expectRestart(template, fault, []),
  );

  it('is lost three times, and answers in between', async () => {
    // steps are counted anew in each engine
    await using server = await serveFaulty(template, 'step:lost@3,step:lost@4,step:lost@5', restarts);
    expect(await server.untilHealth(200)).toBe(true);
    const answers = await Promise.all(Array.from({ length: 6 }, () => server.complete()));
    expect(answers.map(codeOf).filter((code) => code === 'backend.device-lost')).toHaveLength(3);
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(3);
    expect(await server.metric('engine_restarts_total')).toBe(3);
    server.stop();
    await expectEnd(server, 0);
  });
});
