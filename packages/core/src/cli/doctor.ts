/** `tenon doctor` (`devices`, `collect-env`): which backends and devices there are, and why any cannot be used. */
import { arch, cpus, platform, release, totalmem } from 'node:os';

import { Command } from 'commander';

import type { DeviceInfo } from '../backend/index.js';
import { loadBackendModule } from '../plugins/choose-device.js';
import { type Candidate, discoverBackends } from '../plugins/discover.js';
import { tenonVersion } from '../version.js';

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('Show backends and devices, and why any cannot be used.')
    .option('--plugin <words...>', 'packages or folders with further backends', [])
    .action(async ({ plugin }: { plugin: string[] }) => {
      const candidates = discoverBackends({ plugins: plugin, root: process.cwd(), env: process.env });
      const lines = [...machineLines(), ''];
      if (candidates.length === 0) lines.push('no backends found; install @tenon/backend-cpu');
      for (const candidate of candidates) lines.push(...(await candidateLines(candidate)));
      process.stdout.write(`${lines.join('\n')}\n`);
    });
}

function machineLines(): string[] {
  const processors = cpus();
  return [
    `tenon    ${tenonVersion}`,
    `node     ${process.version}`,
    `system   ${platform()} ${release()} ${arch()}`,
    `CPU      ${processors[0]?.model.trim() ?? 'unknown'}, ${processors.length} threads`,
    `memory   ${gib(totalmem())}`,
  ];
}

async function candidateLines({ name, source, manifest, problem }: Candidate): Promise<string[]> {
  if (manifest === undefined) return [`${name} (${source}): not usable: ${problem}`];
  const head = `${manifest.id}: ${manifest.packageName} ${manifest.packageVersion} (${source})`;
  try {
    const module = await loadBackendModule(manifest.packageName, manifest.entry);
    const backend = module.create({ log: () => {} });
    const runtime = Object.entries(backend.info.runtime).map(([key, value]) => `${key} ${value}`);
    const devices = await backend.devices();
    return [
      head,
      ...runtime.map((line) => `  ${line}`),
      ...devices.map((device) => `  ${deviceLine(device)}`),
    ];
  } catch (error) {
    return [`${head}: not usable: ${error instanceof Error ? error.message : String(error)}`];
  }
}

function deviceLine({
  id,
  name,
  usable,
  reason,
  remedy,
  freeBytes,
  memoryBytes,
  dtypes,
}: DeviceInfo): string {
  if (!usable) return `${id}: ${name}: not usable: ${reason}${remedy === undefined ? '' : `; ${remedy}`}`;
  return `${id}: ${name}, ${gib(freeBytes)} free of ${gib(memoryBytes)}, ${dtypes.join(', ')}`;
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
