import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { progressLines } from './progress.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('tells every few seconds how far each file is, and nothing of quick ones', () => {
  const lines: string[] = [];
  const progress = progressLines((line) => lines.push(line), 5000);
  const show = (name: string, done: number, afterMs: number): void => {
    vi.advanceTimersByTime(afterMs);
    progress.show(name, done * 2 ** 20, 256 * 2 ** 20);
  };
  show('quick', 0, 0);
  show('quick', 256, 100);
  show('model.safetensors', 0, 0);
  for (let done = 1; done <= 12; done++) show('model.safetensors', 10 * done, 1000);
  expect(lines).toEqual(['model.safetensors: 19 % of 256.0 MiB', 'model.safetensors: 39 % of 256.0 MiB']);
});
