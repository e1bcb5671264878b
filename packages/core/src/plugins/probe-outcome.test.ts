import { describe, expect, it } from 'vitest';
import type { BackendManifest } from './manifest.js';
import { judgeProbe, type ProbeRun } from './probe-outcome.js';

const manifest = { id: 'toy' } as BackendManifest;
const info = { id: 'toy', owner: 'o', version: '1.2.3', runtime: {} };
const device = {
  id: 'toy:0', class: 'npu', name: 'Toy', usable: true, memoryBytes: 1, freeBytes: 1, dtypes: ['f32'], preferredDtype: 'f32',
}; // prettier-ignore

function judge(said: object, run: Partial<ProbeRun> = {}): ReturnType<typeof judgeProbe> {
  const messages = [{ phase: 'devices' }, { info, devices: [device], ...said }] as ProbeRun['messages'];
  return judgeProbe(manifest, {
    messages,
    exitCode: 0,
    signal: null,
    timedOut: false,
    timeoutMs: 1500,
    stdout: '',
    stderr: '',
    ...run,
  });
}

const reasonOf = (...args: Parameters<typeof judge>): string => {
  const outcome = judge(...args);
  return 'problem' in outcome ? outcome.problem.reason : 'none';
};

describe('judgeProbe', () => {
  it('takes what follows the contract', () => {
    expect(judge({})).toEqual({ facts: { info, devices: [device] } });
    const broken = { id: 'toy:1', class: 'npu', name: 'Toy', usable: false, reason: 'no driver' };
    expect(reasonOf({ devices: [device, broken] })).toBe('none');
    expect(reasonOf({ devices: [] })).toBe('none');
  });

  it.each<[object, string]>([
    [{ info: undefined }, 'info is undefined; expected { id, owner, version, runtime }'],
    [{ info: { ...info, id: 'other' } }, `info.id is "other"; expected 'toy', as tenon.backend.id`],
    [{ info: { ...info, version: 3 } }, 'info.version is 3; expected a text'],
    [{ info: { ...info, runtime: 'none' } }, 'info.runtime is "none"; expected an object of texts'],
    [{ devices: undefined }, 'devices() gave undefined; expected a list'],
    [{ devices: device }, `devices() gave ${JSON.stringify(device)}; expected a list`],
    [{ devices: [device, 'toy:1'] }, 'devices()[1] is "toy:1"; expected an object'],
  ])('refuses %j', (said, reason) => {
    expect(reasonOf(said)).toBe(reason);
  });

  it.each<[object, string]>([
    [{ id: 'toy' }, 'id is "toy"; expected toy:<n>'],
    [{ id: 'npu:0' }, 'id is "npu:0"; expected toy:<n>'],
    [{ class: 'fpga' }, 'class is "fpga"; expected gpu, npu, tpu, other, cpu'],
    [{ name: '' }, 'name is ""; expected a text'],
    [{ usable: 'yes' }, 'usable is "yes"; expected true or false'],
    [{ memoryBytes: null }, 'memoryBytes is null; expected a number of bytes'],
    [{ freeBytes: -1 }, 'freeBytes is -1; expected a number of bytes'],
    [{ dtypes: [] }, 'dtypes is []; expected a list of f32, bf16, f16'],
    [{ dtypes: ['f64'] }, 'dtypes is ["f64"]; expected a list of f32, bf16, f16'],
    [{ preferredDtype: undefined }, 'preferredDtype is undefined; expected f32, bf16, f16'],
    [{ usable: false }, 'reason is undefined; expected why it cannot be used'],
  ])('refuses a device with %j', (fields, reason) => {
    expect(reasonOf({ devices: [{ ...device, ...fields }] })).toBe(`devices()[0].${reason}`);
  });

  const rebuild = `rebuild or reinstall the package for Node.js ${process.version}`;
  it.each([
    ['was compiled against a different Node.js version using\nNODE_MODULE_VERSION 93.', rebuild],
    ['libnpu.so.7: cannot open shared object file: No such file', "install the library that it names: it comes with the device's driver or the vendor's toolkit"],
    ['a.node: undefined symbol: npu_open', `rebuild or reinstall the package on this machine (${process.platform}-${process.arch})`],
    ['a.node: invalid ELF header', `rebuild or reinstall the package on this machine (${process.platform}-${process.arch})`],
    ['out of cheese', 'update the package, or tell its authors'],
  ])('knows what helps against "%s"', (error, remedy) => {
    expect(judge({}, { messages: [{ phase: 'create' }, { error }] })).toMatchObject({
      problem: { reason: error.replace('\n', ' '), remedy },
    });
  }); // prettier-ignore

  it('says what a process that died has printed last', () => {
    const stderr = 'driver 7\nterminate called: no card\n\n';
    expect(reasonOf({}, { signal: 'SIGABRT', exitCode: null, stderr })).toBe(
      'it was ended by SIGABRT in devices(): terminate called: no card',
    );
    const uncaught = '/x.js:1\n\nError: no card\n    at f (/x.js:1)\n\nNode.js v20.20.2\n';
    expect(reasonOf({}, { messages: [], exitCode: 1, stderr: uncaught })).toBe(
      'it ended the process with exit code 1 while its module was loading: Error: no card',
    );
  });
});
