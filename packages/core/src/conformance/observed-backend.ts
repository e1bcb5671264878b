/** A backend as it is, with a look at what the engine does with it: its executables, and whether they were frozen. */
import type {
  Backend,
  BackendModule,
  DeviceGroup,
  Executable,
  LoadOptions,
  Plan,
  WeightSource,
} from '../backend/index.js';

export class ObservedBackend {
  readonly module: BackendModule;
  /** The last one that was loaded. */
  executable: Executable | undefined;
  isFrozen = false;
  /** Of the last negotiation. */
  batchInvariant = false;

  constructor(module: BackendModule) {
    this.module = { api: module.api, create: (host) => this.#backend(module.create(host)) };
  }

  #backend(backend: Backend): Backend {
    return {
      info: backend.info,
      devices: () => backend.devices(),
      open: async (deviceIds, options) => this.#group(await backend.open(deviceIds, options)),
    };
  }

  #group(group: DeviceGroup): DeviceGroup {
    return {
      constraints: group.constraints,
      kvBlockBytes: (layer, blockSize) => group.kvBlockBytes(layer, blockSize),
      negotiate: async (request) => {
        const negotiation = await group.negotiate(request);
        this.batchInvariant = negotiation.batchInvariant;
        return negotiation;
      },
      load: (plan, weights, options) => this.#load(group, plan, weights, options),
      close: () => group.close(),
    };
  }

  async #load(
    group: DeviceGroup,
    plan: Plan,
    weights: WeightSource,
    options: LoadOptions,
  ): Promise<Executable> {
    const executable = await group.load(plan, weights, options);
    this.executable = executable;
    this.isFrozen = false;
    return {
      run: (step, result) => executable.run(step, result),
      memory: () => executable.memory(),
      ...(executable.numBlocks !== undefined && { numBlocks: executable.numBlocks }),
      freeze: () => {
        this.isFrozen = true;
        executable.freeze?.();
      },
      ...(executable.counters && { counters: () => executable.counters!() }),
      close: () => executable.close(),
    };
  }
}
