/** What the cases work with: the backend, its device, one open group that they share, a folder for files, random numbers. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Backend, BackendModule, DeviceGroup, DeviceInfo, Dtype, Host } from '../backend/index.js';
import { fail, skip } from './case.js';
import { Random } from './random.js';

/** Where the backend was found, if it is a package: level 0 looks at that too. */
export interface PackageUnderTest {
  /** The package's folder. */
  readonly folder: string;
  /** Absolute path of the module whose default export is the backend. */
  readonly entry: string;
  /** Entry of another backend, to be loaded in the same process. */
  readonly otherEntry?: string | undefined;
}

export interface KitOptions {
  readonly seed: number;
  /** The first usable one if absent. */
  readonly deviceId?: string | undefined;
  readonly package?: PackageUnderTest | undefined;
  readonly host?: Host;
}

export class Kit {
  readonly module: BackendModule;
  readonly options: KitOptions;
  readonly backend: Backend;
  readonly device: DeviceInfo;
  readonly folder = mkdtempSync(join(tmpdir(), 'tenon-conform-'));
  #group: Promise<DeviceGroup> | undefined;
  #numFiles = 0;
  /** Of the case that runs. */
  caseName = '';
  /** Measured by level 5, for the report. */
  readonly speeds: KernelSpeed[] = [];

  private constructor(module: BackendModule, options: KitOptions, backend: Backend, device: DeviceInfo) {
    this.module = module;
    this.options = options;
    this.backend = backend;
    this.device = device;
  }

  /** Fails where the module has no usable device. */
  static async create(module: BackendModule, options: KitOptions): Promise<Kit> {
    const backend = module.create(options.host ?? quietHost);
    const devices = await backend.devices();
    const wanted = devices.filter(({ id }) => options.deviceId === undefined || id === options.deviceId);
    const device = wanted.find(({ usable }) => usable);
    if (device === undefined) {
      const listed = devices.map(({ id, reason }) => (reason ? `${id} (${reason})` : id)).join(', ');
      fail(`${backend.info.id} has no usable device ${options.deviceId ?? ''}; it has: ${listed || 'none'}`);
    }
    return new Kit(module, options, backend, device);
  }

  /** Random numbers of the case that runs, the same whatever else is run. */
  random(part = ''): Random {
    return new Random(this.options.seed, this.caseName + part);
  }

  /** The open group that cases share; they leave it open. */
  async group(): Promise<DeviceGroup> {
    this.#group ??= this.open();
    return this.#group;
  }

  open(): Promise<DeviceGroup> {
    return this.backend.open([this.device.id], {});
  }

  /** After a failure: the next case gets a new group. The old one may hang, so that its end is not waited for long. */
  async dropGroup(): Promise<void> {
    const group = this.#group;
    this.#group = undefined;
    if (group === undefined) return;
    const closing = group.then((opened) => opened.close()).catch(() => {});
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([closing, new Promise((resolve) => (timer = setTimeout(resolve, 2000)))]);
    clearTimeout(timer);
  }

  requireDtype(dtype: Dtype): void {
    const { id, dtypes } = this.device;
    if (!dtypes.includes(dtype)) skip(`${id} does not compute in ${dtype}; it has ${dtypes.join(', ')}`);
  }

  /** Types of programs that the device computes in, the preferred one first. */
  get dtypes(): Dtype[] {
    const { preferredDtype, dtypes } = this.device;
    return [preferredDtype, ...dtypes.filter((dtype) => dtype !== preferredDtype)];
  }

  /** A path for a new file. */
  file(name: string): string {
    return join(this.folder, `${this.#numFiles++}-${name}`);
  }

  newFolder(name: string): string {
    const folder = this.file(name);
    mkdirSync(folder);
    return folder;
  }

  async close(): Promise<void> {
    await this.dropGroup();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export const quietHost: Host = { log: () => {} };

/** How fast a kernel is at one shape. */
export interface KernelSpeed {
  readonly op: string;
  readonly shape: string;
  readonly microseconds: number;
  readonly gbPerSecond: number;
  readonly gflops: number;
  /** Of the measured bandwidth of copying, or of the best rate of `linear`, whichever is the larger share. */
  readonly fraction: number;
  readonly of: 'copy bandwidth' | 'best linear rate';
}
