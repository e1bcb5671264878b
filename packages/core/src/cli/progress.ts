/** How far loading and downloading are: bars where a person is watching, else a line now and then. */

export interface Progress {
  show(name: string, doneBytes: number, totalBytes: number): void;
  stop(): void;
}

const mib = 2 ** 20;

export async function progressBars(): Promise<Progress> {
  const { MultiBar, Presets } = (await import('cli-progress')).default;
  const bars = new MultiBar(
    { clearOnComplete: true, hideCursor: true, format: '{name} {bar} {percentage}% of {totalMib} MiB' },
    Presets.shades_classic,
  );
  const byName = new Map<string, ReturnType<typeof bars.create>>();
  return {
    show(name, doneBytes, totalBytes) {
      if (!byName.has(name))
        byName.set(
          name,
          bars.create(totalBytes, doneBytes, { name, totalMib: (totalBytes / mib).toFixed(1) }),
        );
      byName.get(name)?.update(doneBytes);
    },
    stop: () => bars.stop(),
  };
}

/** What takes less than `intervalMs` is not told. */
export function progressLines(write: (line: string) => void, intervalMs = 5000): Progress {
  const toldMs = new Map<string, number>();
  return {
    show(name, doneBytes, totalBytes) {
      const nowMs = performance.now();
      const lastMs = toldMs.get(name);
      if (lastMs === undefined) toldMs.set(name, nowMs);
      if (lastMs === undefined || nowMs - lastMs < intervalMs || totalBytes === 0) return;
      toldMs.set(name, nowMs);
      const percent = Math.floor((100 * doneBytes) / totalBytes);
      write(`${name}: ${percent} % of ${(totalBytes / mib).toFixed(1)} MiB`);
    },
    stop: () => {},
  };
}

/** How far a run of many cases is. */
export interface CaseProgress {
  /** The case that begins. */
  show(name: string): void;
  end(failed: boolean): void;
  stop(): void;
}

/** A bar where a person is watching; nothing elsewhere, since the report follows. */
export async function progressOfCases(numCases: number): Promise<CaseProgress> {
  if (!process.stderr.isTTY) return { show: () => {}, end: () => {}, stop: () => {} };
  const { Presets, SingleBar } = (await import('cli-progress')).default;
  const format = '{bar} {value}/{total}, {failed} failed  {name}';
  const bar = new SingleBar({ clearOnComplete: true, hideCursor: true, format }, Presets.shades_classic);
  let failed = 0;
  bar.start(numCases, 0, { failed, name: '' });
  return {
    show: (name) => bar.update({ failed, name }),
    end(hasFailed) {
      if (hasFailed) failed++;
      bar.increment(1, { failed });
    },
    stop: () => bar.stop(),
  };
}
