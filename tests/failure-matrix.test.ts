/** Whatever fails, whenever: the right error, within a time limit, no request without an answer, no process left behind. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { serveFaulty, type Answer, type FaultyBackend, type FaultyServer } from './failure-matrix.js';

const faulty: FaultyBackend = {
  folder: join(import.meta.dirname, 'fixtures/faulty-backend'),
  device: 'faulty',
  variable: 'FAULTY',
};
const oneAtATime = ['--max-num-seqs', '1'];
const restarts = [...oneAtATime, '--restart-on-device-loss'];
/** Longer than any of these takes on two busy cores, but for the attempts with growing waits. */
const maxSeconds = 20;

async function expectEnd(server: FaultyServer, end: number | NodeJS.Signals): Promise<void> {
  const { status, signal, seconds, left } = await server.ended;
  expect(signal ?? status).toBe(end);
  expect(left).toEqual([]);
  expect(seconds).toBeLessThan(maxSeconds);
}

const codeOf = ({ text }: Answer): string | undefined => /"tenon_code":"([^"]+)"/.exec(text)?.[1];
const completeAll = (server: FaultyServer): Promise<Answer[]> =>
  Promise.all([server.complete({ stream: true }), server.complete(), server.complete()]);

// It waits more than others, so it begins first.
describe.concurrent('with --restart-on-device-loss', () => {
  it('a device that never comes back fails what waits, and ends the server with 1', async () => {
    const faults = ['step:lost@1', ...[2, 3, 4, 5, 6].map((n) => `load:fail@${n}`)].join(',');
    await using server = await serveFaulty(faulty, faults, restarts);
    expect(await server.untilHealth(200)).toBe(true);
    const answers = completeAll(server);
    expect(await server.untilHealth(503)).toBe(true);
    expect((await answers).map(codeOf)).toEqual(Array(3).fill('backend.device-lost'));
    expect((await answers)[2]!.text).toContain(
      'it did not come back in 5 attempts: the device does not take the model',
    );
    const { status, left } = await server.ended;
    expect([status, left]).toEqual([1, []]);
  });
});

describe.concurrent('a failure while the server starts', () => {
  const unusable = 'config.device-unusable';
  it.each<[fault: string, end: number | NodeJS.Signals, code: string | undefined, message: string]>([
    [
      'probe:crash',
      2,
      unusable,
      'faulty-backend 1.0.0 is probe-failed: it was ended by SIGSEGV in devices()',
    ],
    ['probe:exit', 2, unusable, 'it ended the process with exit code 3 in devices()'],
    ['probe:throw', 2, unusable, 'is probe-failed: driver bug'],
    ['probe:hang', 2, unusable, 'it did not end within 3 s; the time was up in devices()'],
    ['probe:fail', 2, unusable, 'is probe-failed: the device does not take the model'],
    ['probe:oom', 2, unusable, 'is probe-failed: the device is out of memory'],
    ['probe:lost', 2, unusable, 'is probe-failed: the device fell off the bus'],
    // Native code that crashes takes the process along: all that is left to say it is the signal.
    ['load:crash', 'SIGSEGV', undefined, ''],
    ['load:exit', 1, 'internal.engine-died', 'the engine thread died: it exited with code 3'],
    ['load:throw', 1, 'backend.load-failed', 'backend faulty failed while loading: driver bug'],
    ['load:hang', 1, 'backend.load-failed', 'loading made no progress for 2 s'],
    ['load:fail', 1, 'backend.load-failed', 'the device does not take the model'],
    ['load:oom', 1, 'backend.out-of-memory', 'the device is out of memory'],
    ['load:lost', 1, 'backend.device-lost', 'the device fell off the bus'],
    ['warmup:crash', 'SIGSEGV', undefined, ''],
    ['warmup:exit', 1, 'internal.engine-died', 'the engine thread died: it exited with code 3'],
    ['warmup:throw', 1, 'internal.engine-died', 'the engine thread died: driver bug'],
    [
      'warmup:hang',
      1,
      'backend.device-lost',
      'warm-up with a step of 2048 tokens and 1 sequences: no answer for 1 s',
    ],
    ['warmup:fail', 1, 'backend.step-failed', 'warm-up with a step of 2048 tokens'],
    ['warmup:oom', 1, 'backend.out-of-memory', 'warm-up with a step of 2048 tokens'],
    ['warmup:lost', 1, 'backend.device-lost', 'warm-up with a step of 2048 tokens'],
  ])('%s ends it with %s', async (fault, end, code, message) => {
    await using server = await serveFaulty(faulty, fault, oneAtATime);
    await expectEnd(server, end);
    const errors = server
      .stderr()
      .split('\n')
      .filter((line) => line.startsWith('error ['));
    expect(errors).toHaveLength(code === undefined ? 0 : 1);
    if (code !== undefined) expect(errors[0]).toContain(`error [${code}]: `);
    expect(errors.join('')).toContain(message);
    expect(server.stderr()).not.toMatch(/^\s+at /m);
  });

  it('leaves another device to serve where any may, and says so', async () => {
    await using server = await serveFaulty({ ...faulty, device: 'auto' }, 'probe:crash', oneAtATime);
    expect(await server.untilHealth(200)).toBe(true);
    expect(server.stderr()).toMatch(/not used: [^\n]*faulty[^\n]*SIGSEGV/);
    server.stop();
    await expectEnd(server, 0);
  });
});

describe.concurrent('a failure while the server serves', () => {
  it.each([
    ['step:exit', 'internal.engine-died'],
    ['step:throw', 'internal.engine-died'],
    ['step:hang', 'backend.device-lost'],
    ['step:lost', 'backend.device-lost'],
  ])('%s fails everything with %s and ends it with 1', async (fault, code) => {
    await using server = await serveFaulty(faulty, fault, oneAtATime);
    expect(await server.untilHealth(200)).toBe(true);
    const answers = await completeAll(server);
    expect(answers.map(codeOf)).toEqual([code, code, code]);
    expect(answers[0]!.text).toMatch(/"text":.*\n\ndata: \{"error":.*\}\n\ndata: \[DONE\]\n\n$/s);
    expect(answers.slice(1).map(({ status }) => status)).toEqual([500, 500]);
    await expectEnd(server, 1);
    expect(server.stderr()).toContain('the engine died; the server ends with status 1');
  });

  it.each([
    ['step:oom', 'backend.out-of-memory'],
    ['step:fail', 'backend.step-failed'],
  ])('%s fails what runs with %s, and the rest is answered', async (fault, code) => {
    await using server = await serveFaulty(faulty, fault, oneAtATime);
    expect(await server.untilHealth(200)).toBe(true);
    expect((await completeAll(server)).map(codeOf)).toEqual([code, undefined, undefined]);
    expect(await server.health()).toBe(200);
    server.stop();
    await expectEnd(server, 0);
  });

  it('step:crash ends it, and every connection', async () => {
    await using server = await serveFaulty(faulty, 'step:crash', restarts);
    expect(await server.untilHealth(200)).toBe(true);
    for (const { text } of await completeAll(server)) expect(text).toMatch(/fetch failed|terminated/);
    await expectEnd(server, 'SIGSEGV');
  });
});

describe.concurrent('a failure while the server serves, with --restart-on-device-loss', () => {
  it.each<[faults: string, failedAttempt: string | undefined]>([
    ['step:exit@1', undefined],
    ['step:throw@1', undefined],
    ['step:hang@1', undefined],
    ['step:lost@1', undefined],
    ['step:lost@1,probe:crash@2', 'it was ended by SIGSEGV'],
    ['step:lost@1,probe:exit@2', 'exit code 3'],
    ['step:lost@1,probe:throw@2', 'driver bug'],
    ['step:lost@1,probe:hang@2', 'it did not end within 3 s'],
    ['step:lost@1,load:exit@2', 'it exited with code 3'],
    ['step:lost@1,load:throw@2', 'driver bug'],
    ['step:lost@1,load:hang@2', 'loading made no progress for 2 s'],
    ['step:lost@1,load:fail@2', 'the device does not take the model'],
    ['step:lost@1,load:oom@2', 'the device is out of memory'],
    ['step:lost@1,warmup:exit@2', 'it exited with code 3'],
    ['step:lost@1,warmup:throw@2', 'driver bug'],
    ['step:lost@1,warmup:hang@2', 'no answer for 1 s'],
    ['step:lost@1,warmup:oom@2', 'the device is out of memory'],
    ['step:hang@1,load:lost@2,warmup:lost@2', 'the device fell off the bus'],
  ])('%s fails what runs, and the rest is answered', async (faults, failedAttempt) => {
    await using server = await serveFaulty(faulty, faults, restarts);
    expect(await server.untilHealth(200)).toBe(true);
    const answers = await completeAll(server);
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(answers[0]!.text).toMatch(/the engine restarts: send the request again.*\n\ndata: \[DONE\]\n\n$/s);
    expect(answers.slice(1).map(codeOf)).toEqual([undefined, undefined]);
    expect(await server.health()).toBe(200);
    expect(await server.metric('engine_restarts_total')).toBe(1);
    if (failedAttempt !== undefined)
      expect(server.stderr()).toContain('does not start again (attempt 1 of 5): ');
    expect(server.stderr()).toContain(failedAttempt ?? '');
    server.stop();
    await expectEnd(server, 0);
  });

  it('step:lost, in every engine, fails one request after another, and the server lives', async () => {
    await using server = await serveFaulty(faulty, 'step:lost', restarts);
    expect(await server.untilHealth(200)).toBe(true);
    expect((await completeAll(server)).map(codeOf)).toEqual(Array(3).fill('backend.device-lost'));
    expect(await server.untilHealth(200)).toBe(true);
    expect(await server.metric('engine_restarts_total')).toBe(3);
    server.stop();
    await expectEnd(server, 0);
  });
});
