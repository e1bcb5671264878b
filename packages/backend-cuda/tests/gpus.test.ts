/** Why a GPU cannot be used, and what to do, on machines with any fault: neither a GPU nor the CUDA toolkit is needed here. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { makeFakeDriver, makeLister } from './fake-machine.js';

const folder = mkdtempSync(join(tmpdir(), 'tenon-gpus-'));
afterAll(() => rmSync(folder, { recursive: true }));
let program: string;
let fake: Record<string, string>;
beforeAll(() => {
  program = makeLister(folder);
  fake = makeFakeDriver(join(folder, 'driver'));
});

const everything = '80-real 86-real 89-real 90a-real 90-virtual 100-real 120-real';

interface Listed {
  /** cuda, driver and code. */
  readonly runtime: Readonly<Record<string, string>>;
  readonly devices: readonly Readonly<{ id: string; name: string; usable: boolean; freeMib: number; reason: string; remedy: string }>[]; // prettier-ignore
}

/** What a backend built for `architectures` says of a machine. */
function list(
  environment: Record<string, string>,
  architectures = everything,
  kernelDriver = '/no/driver',
): Listed {
  const { CUDA_VISIBLE_DEVICES: _, ...here } = process.env;
  const env = { ...here, ...environment };
  const rows = execFileSync(program, ['13000', architectures, kernelDriver], { encoding: 'utf8', env })
    .replace(/\n$/, '')
    .split('\n')
    .map((line) => line.split('\t'));
  const devices = rows
    .slice(3)
    .map(([id, name, usable, freeMib, reason, remedy]) => ({ id: id!, name: name!, usable: usable === '1', freeMib: Number(freeMib), reason: reason!, remedy: remedy! })); // prettier-ignore
  return { runtime: Object.fromEntries(rows.slice(0, 3)), devices };
}

const withGpus = (FAKE_GPUS: string, more: Record<string, string> = {}) => ({ ...fake, FAKE_GPUS, ...more });
/** The only device of a machine where none can be used. */
function whyNone(environment: Record<string, string>) {
  const { devices } = list(environment);
  expect(devices).toHaveLength(1);
  expect(devices[0]).toMatchObject({ id: 'cuda:0', usable: false });
  return devices[0]!;
}

it('lists the GPUs, with the memory that is free now', () => {
  const { runtime, devices } = list(withGpus('9.0 0 143771 141000, 8.0 3 81920 81000'));
  expect(runtime).toEqual({
    cuda: '13.0',
    driver: '13.0',
    code: 'sm_80 sm_86 sm_89 sm_90a compute_90 sm_100 sm_120',
  });
  expect(devices).toEqual([
    { id: 'cuda:0', name: 'Fake GPU 0', usable: true, freeMib: 141_000, reason: '', remedy: '' },
    { id: 'cuda:1', name: 'Fake GPU 1', usable: true, freeMib: 81_000, reason: '', remedy: '' },
  ]);
});

// Where there is a driver, it is found without LD_LIBRARY_PATH too.
it.skipIf(existsSync('/proc/driver/nvidia/version'))('says that there is no driver', () => {
  const { reason, remedy } = whyNone({ LD_LIBRARY_PATH: '' });
  expect(reason).toMatch(/^there is no NVIDIA driver: libcuda\.so\.1: cannot open shared object file/);
  expect(remedy).toMatch(/^install the NVIDIA driver/);
  expect(list({ LD_LIBRARY_PATH: '' }).runtime).toMatchObject({ driver: 'none' });
  // As in a container that was started without its GPUs, on a machine that has some.
  const inContainer = list({ LD_LIBRARY_PATH: '' }, everything, program).devices[0]!;
  expect(inContainer.reason).toMatch(/^the NVIDIA driver is loaded, but its library is not here: libcuda/);
  expect(inContainer.remedy).toMatch(/docker run --gpus all/);
});

it('says what is wrong with the library of the driver', () => {
  const broken = mkdtempSync(join(folder, 'broken-'));
  writeFileSync(join(broken, 'libcuda.so.1'), 'no library, but as long as the header of one'.repeat(9));
  expect(whyNone({ LD_LIBRARY_PATH: broken }).reason).toMatch(
    /libcuda\.so\.1: (invalid ELF header|file too short)/,
  );
});

it('says how old the driver is and which one to install; a minor version does not matter', () => {
  const old = whyNone(withGpus('8.0 0 40960 40000', { FAKE_CUDA: '12080' }));
  expect(old.reason).toBe('the NVIDIA driver is for CUDA 12.8; CUDA 13.0 is needed');
  expect(old.remedy).toBe('install NVIDIA driver 580 or newer');
  expect(list(withGpus('8.0 0 40960 40000', { FAKE_CUDA: '14010' })).devices[0]!.usable).toBe(true);
});

it.each([
  ['34', /some error \(34\)$/, /'stubs' from LD_LIBRARY_PATH/],
  ['802', /does not start/, /nvidia-fabricmanager/],
  [
    '803',
    /does not start: system has unsupported display driver \/ cuda driver combination \(803\)$/,
    /reboot/,
  ],
  ['804', /does not start/, /cuda-compat/],
  ['999', /some error \(999\)$/, /nvidia-smi and the kernel's log/],
])('says what to do where the driver does not start with %s', (FAKE_INIT, reason, remedy) => {
  const device = whyNone(withGpus('8.0 0 40960 40000', { FAKE_INIT }));
  expect(device.reason).toMatch(reason);
  expect(device.remedy).toMatch(remedy);
});

it('says that there is no GPU, and what may hide it', () => {
  expect(whyNone({ ...fake, FAKE_INIT: '100' })).toMatchObject({ reason: 'the NVIDIA driver finds no GPU', remedy: expect.stringContaining('in a container') }); // prettier-ignore
  expect(whyNone(fake).reason).toBe('the NVIDIA driver finds no GPU');
  const hidden = whyNone({ ...fake, FAKE_INIT: '100', CUDA_VISIBLE_DEVICES: '7' });
  expect(hidden.reason).toMatch(/with CUDA_VISIBLE_DEVICES='7'$/);
});

it('says which GPU cannot be used while others can', () => {
  const { devices } = list(withGpus('7.5 0 15360 15000, 9.0 2 143771 141000, 9.0 0 143771 141000'));
  expect(devices.map(({ usable }) => usable)).toEqual([false, false, true]);
  expect(devices[0]).toMatchObject({ reason: 'compute capability 7.5; 8.0 or newer is needed', remedy: 'use a GPU of the Ampere generation or newer' }); // prettier-ignore
  expect(devices[1]).toMatchObject({ reason: 'its compute mode is Prohibited', remedy: 'allow computing: nvidia-smi -i 1 -c DEFAULT' }); // prettier-ignore
});

it('knows which GPUs it was built for', () => {
  const usable = (capability: string, architectures = everything) =>
    list(withGpus(`${capability} 0 40960 40000`), architectures).devices[0]!.usable;
  for (const capability of [
    '8.0',
    '8.6',
    '8.7',
    '8.9',
    '9.0',
    '10.0',
    '10.3',
    '11.0',
    '12.0',
    '12.1',
    '13.0',
  ])
    expect(usable(capability), capability).toBe(true);
  expect(usable('9.0', '90a-real')).toBe(true);
  expect(usable('8.9', '86-real')).toBe(true);
  expect(usable('8.0', '86-real')).toBe(false);
  expect(usable('10.0', '90a-real')).toBe(false);
  expect(usable('10.0', '90a-real 80')).toBe(true);
  const { reason, remedy } = list(withGpus('8.0 0 40960 40000'), '90a-real').devices[0]!;
  expect(reason).toBe('compute capability 8.0, and the native part was built for others (90a-real)');
  expect(remedy).toContain('npm run build:native');
});
