/**
 * A backend whose work is done by a native addon on the SDK: finds the addon, and makes the contract of what
 * `TENON_ADDON` (`tenon/addon.h`) exports. A package's entry point is then one call:
 *
 * ```ts
 * export default nativeBackend({ id: 'npu', owner: 'example', addon: 'example_npu', packageJson: new URL('../package.json', import.meta.url) });
 * ```
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type {
  Backend, BackendFailure, BackendInfo, BackendModule, DeviceGroup, DeviceInfo, Executable, NegotiateRequest, Negotiation,
  OpenOptions, SchedulingConstraints, WeightSource,
} from './contract.js'; // prettier-ignore
import { encodePlan, type PlanWeight, type TensorLocation } from './plan.js';

export interface NativeBackendOptions {
  readonly id: string;
  readonly owner: string;
  /** The package's package.json, whose folder the addon is looked for in: `new URL('../package.json', import.meta.url)`. */
  readonly packageJson: URL;
  /** The addon's name: `<addon>.node`. */
  readonly addon: string;
}

/** What an addon on the SDK exports. */
interface NativeAddon {
  info(): Pick<BackendInfo, 'runtime'>;
  devices(): DeviceInfo[];
  open(deviceIds: readonly string[], options: OpenOptions): NativeGroup;
}

interface NativeGroup {
  readonly constraints: SchedulingConstraints;
  kvBlockBytes: DeviceGroup['kvBlockBytes'];
  negotiate(request: NegotiateRequest): Negotiation;
  /** Loads off the JavaScript thread. */
  load(
    planWords: Int32Array,
    weights: readonly NativeWeight[],
    onProgress: ((loadedBytes: number, totalBytes: number) => void) | undefined,
    onStepDone: (stepId: number, error?: BackendFailure) => void,
    spareBytes: number | undefined,
  ): Promise<Executable>;
  close(): Promise<void>;
}

/** A weight of the plan with its parts found on disk. */
type NativeWeight = Omit<PlanWeight, 'parts'> & { readonly parts: readonly TensorLocation[] };

/** The module to export by default. Its `create` throws backend.load-failed where the addon is missing or does not load. */
export function nativeBackend(options: NativeBackendOptions): BackendModule {
  return {
    api: { major: 1, minor: 1, features: [] },
    create: () => makeBackend(options, loadAddon(options)),
  };
}

function makeBackend({ id, owner, packageJson }: NativeBackendOptions, addon: NativeAddon): Backend {
  const { version } = readPackage(packageJson);
  return {
    info: { id, owner, version, ...addon.info() },
    devices: async () => addon.devices(),
    open: async (deviceIds, openOptions) => makeGroup(addon.open(deviceIds, openOptions)),
  };
}

function makeGroup(native: NativeGroup): DeviceGroup {
  return {
    constraints: native.constraints,
    kvBlockBytes: (layer, blockSize) => native.kvBlockBytes(layer, blockSize),
    negotiate: async (request) => native.negotiate(request),
    load: async (plan, source, { onProgress, onStepDone, spareBytes }) => {
      const weights = plan.weights.map((weight) => locate(weight, source));
      return native.load(encodePlan(plan), weights, onProgress, onStepDone, spareBytes);
    },
    close: () => native.close(),
  };
}

/** The weight with the places of its parts. Throws config.weights-missing. */
function locate(weight: PlanWeight, { locations }: WeightSource): NativeWeight {
  const parts = weight.parts.map((name) => {
    const location = locations.get(name);
    if (location === undefined)
      throw failure('config.weights-missing', `the checkpoint has no tensor '${name}'`);
    return location;
  });
  return { ...weight, parts };
}

/** The addon as built in the package, else the prebuilt one of the optional dependency `<package>-<platform>-<arch>`. */
function loadAddon(options: NativeBackendOptions): NativeAddon {
  const require = createRequire(options.packageJson);
  const path = findAddon(options, require);
  try {
    return require(path) as NativeAddon;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw failure('backend.load-failed', `the native addon ${path} cannot be loaded: ${reason}`, error);
  }
}

function findAddon({ packageJson, addon }: NativeBackendOptions, require: NodeJS.Require): string {
  const built = fileURLToPath(new URL(`native/build/Release/${addon}.node`, packageJson));
  if (existsSync(built)) return built;
  const { name } = readPackage(packageJson);
  const prebuilt = `${name}-${process.platform}-${process.arch}`;
  try {
    return require.resolve(`${prebuilt}/${addon}.node`);
  } catch {
    const tools = 'npm install cmake-js node-addon-api node-api-headers';
    const remedy = `install ${prebuilt}, or build it, with a C++20 compiler, make, cmake and what its README names: ${tools} && npm explore ${name} -- npm run build:native`;
    throw failure(
      'backend.load-failed',
      `the native addon ${built} does not exist, and ${prebuilt} is not installed; ${remedy}`,
    );
  }
}

function readPackage(packageJson: URL): { readonly name: string; readonly version: string } {
  return JSON.parse(readFileSync(packageJson, 'utf8')) as { name: string; version: string };
}

/** An Error as the contract asks for: core makes a TenonError of its code. */
function failure(
  code: 'backend.load-failed' | 'config.weights-missing',
  message: string,
  cause?: unknown,
): Error {
  return Object.assign(new Error(message, { cause }), { code });
}
