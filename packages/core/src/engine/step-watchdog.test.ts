import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { StepWatchdog } from './step-watchdog.js';

describe('StepWatchdog', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function make(timeoutMs = 1000) {
    const onHang = vi.fn<() => void>();
    return { watchdog: new StepWatchdog(timeoutMs, onHang), onHang };
  }

  it('notices a quiet core after the timeout, and no later than a quarter more', () => {
    const { watchdog, onHang } = make();
    watchdog.expect();
    vi.advanceTimersByTime(999);
    expect(onHang).not.toHaveBeenCalled();
    vi.advanceTimersByTime(251);
    expect(onHang).toHaveBeenCalledTimes(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('waits for as long as the core answers', () => {
    const { watchdog, onHang } = make();
    watchdog.expect();
    for (let i = 0; i < 20; i++) {
      vi.advanceTimersByTime(900);
      watchdog.heard(true);
    }
    expect(onHang).not.toHaveBeenCalled();
  });

  it('is not put off by further questions', () => {
    const { watchdog, onHang } = make();
    for (let i = 0; i < 13; i++) {
      watchdog.expect();
      vi.advanceTimersByTime(100);
    }
    expect(onHang).toHaveBeenCalledTimes(1);
  });

  it('gives a question that comes just before an old tick its whole time', () => {
    const { watchdog, onHang } = make();
    watchdog.expect();
    watchdog.heard(false);
    vi.advanceTimersByTime(249);
    watchdog.expect();
    vi.advanceTimersByTime(1000);
    expect(onHang).not.toHaveBeenCalled();
    vi.advanceTimersByTime(250);
    expect(onHang).toHaveBeenCalledTimes(1);
  });

  it('has no timer while nothing is owed', () => {
    const { watchdog } = make();
    watchdog.expect();
    watchdog.heard(false);
    vi.advanceTimersByTime(250);
    expect(vi.getTimerCount()).toBe(0);
    const { watchdog: off } = make(Infinity);
    off.expect();
    expect(vi.getTimerCount()).toBe(0);
  });
});
