/** The native addon as TypeScript sees it: what `TENON_ADDON` of the SDK exports (`tenon/addon.h`). */
import type {
  BackendFailure, BackendInfo, DeviceGroup, DeviceInfo, Executable, Negotiation, NegotiateRequest, OpenOptions, PlanWeight,
  SchedulingConstraints, TensorLocation,
} from '@tenon/core/backend'; // prettier-ignore

/** A weight of the plan with its parts found on disk. */
export type NativeWeight = Omit<PlanWeight, 'parts'> & { readonly parts: readonly TensorLocation[] };

export interface NativeGroup {
  readonly constraints: SchedulingConstraints;
  kvBlockBytes: DeviceGroup['kvBlockBytes'];
  negotiate(request: NegotiateRequest): Negotiation;
  /** Loads off the JavaScript thread. */
  load(
    planWords: Int32Array,
    weights: readonly NativeWeight[],
    onProgress: ((loadedBytes: number, totalBytes: number) => void) | undefined,
    onStepDone: (stepId: number, error?: BackendFailure) => void,
  ): Promise<Executable>;
  close(): Promise<void>;
}

export interface Binding {
  info(): Pick<BackendInfo, 'runtime'>;
  devices(): DeviceInfo[];
  open(deviceIds: readonly string[], options: OpenOptions): NativeGroup;
}
