/**
 * The CUDA backend on machines where it cannot be used: in a checkout that has it linked, nobody is bothered; whoever asks for it is told
 * why not and what to do. Where its native part is built, a driver library made for the purpose plays the machines.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeFakeDriver } from '../packages/backend-cuda/tests/fake-machine.js';
import { addon } from '../packages/backend-cuda/tests/built.js';
import { pciDevices } from '../packages/core/src/plugins/pci-devices.js';
import { run, serve } from './serve-process.js';

const folder = mkdtempSync(join(tmpdir(), 'tenon-cuda-e2e-'));
afterAll(() => rmSync(folder, { recursive: true }));
const plugin = fileURLToPath(new URL('../packages/backend-cuda', import.meta.url));
const hasGpu = pciDevices().some((id) => id.startsWith('10de:'));
const canTellHardware = pciDevices().length > 0 && !hasGpu;

interface Report {
  readonly id: string;
  readonly state: string;
  readonly reason: string;
  readonly remedy: string;
  readonly devices: readonly { readonly name: string; readonly usable: boolean; readonly reason?: string }[];
}

async function doctorOn(environment: Record<string, string>, ...args: string[]): Promise<Report> {
  const { stdout } = await run(['doctor', '--json', ...args], { environment: { TENON_PROBE_TIMEOUT: '20', ...environment } }); // prettier-ignore
  const { backends } = JSON.parse(stdout) as { backends: readonly Report[] };
  return backends.find(({ id }) => id === 'cuda')!;
}

describe.runIf(canTellHardware)('a machine without an NVIDIA GPU', () => {
  it('ignores the backend that came along, and doctor says why', async () => {
    const report = await doctorOn({});
    expect(report.state).toBe('ignored');
    expect(report.reason).toMatch(/^this machine has no PCI device 10de:\*: (there is no NVIDIA driver|the native addon \S+ does not exist)/); // prettier-ignore
  });

  it('starts without a word about it', async () => {
    await using server = await serve(['--device', 'auto']);
    expect(server.output()).toMatch(/^device +cpu:0/m);
    expect(server.output()).not.toMatch(/cuda|not used/i);
  });

  it('does not start where it is asked for, and says what is missing', async () => {
    const { code, stderr } = await run(['serve', '--device', 'cuda', '--port', '0']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^error \[config\.device-unusable\]: .*(there is no NVIDIA driver|the native addon \S+ does not exist)/); // prettier-ignore
  });

  it('is told where the backend was named', async () => {
    const report = await doctorOn({}, '--plugin', plugin);
    expect(report.state).toMatch(/^(unusable|probe-failed)$/);
  });
});

// npm run build:native --workspace @tenon/backend-cuda builds it anywhere; gpus.test.ts of the package tests what it says without it.
describe.runIf(existsSync(addon))('the native part, with a driver that is not NVIDIA’s', () => {
  let fake: Record<string, string>;
  beforeAll(() => {
    fake = makeFakeDriver(join(folder, 'driver'));
  });
  const doctor = (environment: Record<string, string>) =>
    doctorOn({ ...fake, ...environment }, '--plugin', plugin);

  it('explains an old driver, a machine without GPUs and a GPU that is too old', async () => {
    expect(await doctor({ FAKE_CUDA: '12040' })).toMatchObject({ state: 'unusable', reason: 'the NVIDIA driver is for CUDA 12.4; CUDA 13.0 is needed', remedy: 'install NVIDIA driver 580 or newer' }); // prettier-ignore
    expect(await doctor({ FAKE_INIT: '100' })).toMatchObject({ state: 'unusable', reason: 'the NVIDIA driver finds no GPU' }); // prettier-ignore
    expect(await doctor({ FAKE_GPUS: '7.5 0 15360 15000' })).toMatchObject({ state: 'unusable', reason: 'compute capability 7.5; 8.0 or newer is needed', devices: [{ name: 'Fake GPU 0', usable: false }] }); // prettier-ignore
  });

  it('lists a GPU that can be used', async () => {
    expect(await doctor({ FAKE_GPUS: '9.0 0 143771 141000' })).toMatchObject({ state: 'ok', devices: [{ id: 'cuda:0', name: 'Fake GPU 0', usable: true, freeBytes: 141_000 * 2 ** 20 }] }); // prettier-ignore
  });

  it('does not start with a model that does not fit, and says how much is free and needed', async () => {
    const environment = { ...fake, FAKE_GPUS: '9.0 0 143771 12', TENON_PROBE_TIMEOUT: '20' };
    const { code, stderr } = await run(['serve', '--device', 'cuda', '--plugin', plugin, '--port', '0'], { environment }); // prettier-ignore
    expect(code, stderr).toBe(2);
    expect(stderr).toMatch(/^error \[capacity\.memory\]: the model needs 11\.0 MiB for weights and .* activations, but only .*cuda:0's memory can be used \(12\.0 MiB free/); // prettier-ignore
  });

  it('says that a GPU cannot be opened', async () => {
    const environment = { ...fake, FAKE_GPUS: '9.0 0 143771 141000', TENON_PROBE_TIMEOUT: '20' };
    const { code, stderr } = await run(['serve', '--device', 'cuda', '--plugin', plugin, '--port', '0'], { environment }); // prettier-ignore
    expect(code, stderr).not.toBe(0);
    expect(stderr).toMatch(/^error \[config\.device-unusable\]: .*cuda:0 cannot be opened: /m);
  });
});
