import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { LoadWatch } from './load-watch.js';

const never = new Promise<string>(() => {});

describe('LoadWatch', () => {
  it('gives what the load gives', async () => {
    await expect(new LoadWatch(1000).wait(Promise.resolve('loaded'))).resolves.toBe('loaded');
    await expect(new LoadWatch(1000).wait(Promise.reject(new Error('no file')))).rejects.toThrow('no file');
    await expect(new LoadWatch(Infinity).wait(Promise.resolve('loaded'))).resolves.toBe('loaded');
  });

  it('ends a load that makes no progress', async () => {
    await expect(new LoadWatch(20).wait(never)).rejects.toMatchObject({
      code: 'backend.load-failed',
      message: expect.stringContaining('no progress for 0.02 s'),
    });
  });

  it('lets a slow load go on as long as it makes progress', async () => {
    const watch = new LoadWatch(200);
    const slow = async (): Promise<string> => {
      for (let i = 0; i < 8; i++) {
        await sleep(50);
        watch.progress();
      }
      return 'loaded';
    };
    await expect(watch.wait(slow())).resolves.toBe('loaded');
  });
});
