/** The backend contract over the native addon. */
import { createRequire } from 'node:module';
import {
  encodePlan, type Backend, type BackendInfo, type DeviceGroup, type DeviceInfo, type Executable, type LoadOptions,
  type Negotiation, type NegotiateRequest, type OpenOptions, type Plan, type PlanWeight, type SchedulingConstraints,
  type WeightSource,
} from '@tenon/core/backend'; // prettier-ignore
import type { Binding, NativeGroup, NativeWeight } from './binding.js';
import { failure } from './failure.js';

const { version } = createRequire(import.meta.url)('../package.json') as { version: string };

export class CpuBackend implements Backend {
  readonly info: BackendInfo;
  readonly #binding: Binding;

  constructor(binding: Binding) {
    this.#binding = binding;
    this.info = { id: 'cpu', owner: 'tenon', version, ...binding.info() };
  }

  async devices(): Promise<DeviceInfo[]> {
    return this.#binding.devices();
  }

  async open(deviceIds: readonly string[], options: OpenOptions): Promise<DeviceGroup> {
    return new CpuGroup(this.#binding.open(deviceIds, options));
  }
}

class CpuGroup implements DeviceGroup {
  readonly constraints: SchedulingConstraints;
  readonly #native: NativeGroup;

  constructor(native: NativeGroup) {
    this.constraints = native.constraints;
    this.#native = native;
  }

  kvBlockBytes(layer: Parameters<DeviceGroup['kvBlockBytes']>[0], blockSize: number): number {
    return this.#native.kvBlockBytes(layer, blockSize);
  }

  async negotiate(request: NegotiateRequest): Promise<Negotiation> {
    return this.#native.negotiate(request);
  }

  async load(plan: Plan, source: WeightSource, options: LoadOptions): Promise<Executable> {
    const weights = plan.weights.map((weight) => locate(weight, source));
    return this.#native.load(encodePlan(plan), weights, options.onProgress, options.onStepDone);
  }

  async close(): Promise<void> {
    await this.#native.close();
  }
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
