/** Stat loggers in their threads: what a bad one does is said once, and costs the thread that serves nothing. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { StatReport } from '../src/extensions/index.js';
import { listExtensions } from '../src/plugins/extensions.js';
import { startStatLoggers, type StatLoggers } from '../src/plugins/stat-loggers.js';
import { temporaryFolder, type Folder } from './fixtures/model-files.js';

let app: Folder;
let warnings: string[];
const running: StatLoggers[] = [];
beforeEach(() => {
  app = temporaryFolder();
  app.write('package.json', { dependencies: { 'toy-stats': '1' } });
  warnings = [];
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((loggers) => loggers.close()));
  app[Symbol.dispose]();
});

const manifest = {
  name: 'toy-stats',
  version: '1.0.0',
  type: 'module',
  tenon: { statLoggers: [{ name: 'toy', entry: './index.js' }] },
};

/** Starts the logger of this code. */
async function start(code: string, words: readonly string[] = ['toy']): Promise<StatLoggers> {
  app.write('node_modules/toy-stats/package.json', manifest);
  app.write('node_modules/toy-stats/index.js', code);
  const extensions = listExtensions({ plugins: [], root: app.path, env: {} });
  const loggers = await startStatLoggers(words, extensions, (message) => warnings.push(message));
  running.push(loggers);
  return loggers;
}

const report = { numRunning: 3, totals: { numStepsTotal: 5 } } as unknown as StatReport;
const writing = (file: string) => `
  import { appendFileSync } from 'node:fs';
  const write = (line) => appendFileSync(${JSON.stringify(file)}, line + ';');
  export default { create: ({ argument }) => ({
    log: ({ numRunning, totals }) => write([argument, numRunning, totals.numStepsTotal].join()),
    close: () => write('closed'),
  }) };`;

describe('a stat logger', () => {
  it('gets what follows its name, every report, and a word at the end', async () => {
    const file = app.write('out', '');
    const loggers = await start(writing(file), ['toy=a=b', 'toy']);
    loggers.log(report);
    await expect
      .poll(() => readFileSync(file, 'utf8').split(';').toSorted())
      .toEqual(['', ',3,5', 'a=b,3,5']);
    await loggers.close();
    expect(readFileSync(file, 'utf8').match(/closed/g)).toHaveLength(2);
    expect(warnings).toEqual([]);
  });

  it('that always throws is said once, and goes on getting reports', async () => {
    const loggers = await start(`let n = 0;
      export default { create: () => ({ log: async () => { throw new Error('no route ' + ++n); } }) };`);
    for (let i = 0; i < 3; i++) {
      loggers.log(report);
      await sleep(30);
    }
    expect(warnings).toEqual(["stat logger 'toy' of toy-stats: it failed: no route 1"]);
  });

  it('that computes for ever blocks nobody, gets no second report, and is ended with the server', async () => {
    const loggers = await start('export default { create: () => ({ log: () => { for (;;); } }) };');
    const begin = performance.now();
    for (let i = 0; i < 50; i++) loggers.log(report);
    await sleep(100);
    expect(performance.now() - begin).toBeLessThan(600);
    expect(warnings).toEqual([
      "stat logger 'toy' of toy-stats: it is slower than reports come; some are left out",
    ]);
    await loggers.close();
    expect(performance.now() - begin).toBeLessThan(3000);
  });

  it.each([
    ['ends the process', 'process.exit(3)', 'its thread has ended; it gets no more reports'],
    [
      'throws in a callback',
      `setTimeout(() => { throw new Error('late'); })`,
      'its thread failed: late; it gets no more reports',
    ],
    [
      'fills its memory',
      'for (const all = []; ; ) all.push(new Array(1e5).fill(all.length))',
      /^stat logger 'toy' of toy-stats: its thread failed: .*memory.*; it gets no more reports$/,
    ],
  ])('that %s ends alone', async (_, code, said) => {
    const loggers = await start(`export default { create: () => ({ log: () => { ${code} } }) };`);
    loggers.log(report);
    await expect.poll(() => warnings.length, { timeout: 20_000 }).toBe(1);
    loggers.log(report);
    if (typeof said === 'string') expect(warnings).toEqual([`stat logger 'toy' of toy-stats: ${said}`]);
    else expect(warnings[0]).toMatch(said);
  });

  it.each([
    ["export default { create: () => { throw new Error('no disk'); } };", 'its create failed: no disk'],
    ['export default { create: () => 3 };', 'its create gives no object with a function log'],
    ['export default 3;', 'has no function create'],
    ['process.exit(0);', 'its thread has ended'],
  ])('of the code %j does not start', async (code, reason) => {
    const error = await start(code).catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ code: 'config.extension-invalid' });
    expect((error as Error).message).toContain("stat logger 'toy' of toy-stats: ");
    expect((error as Error).message).toContain(reason);
    expect(warnings).toEqual([]);
  });
});
