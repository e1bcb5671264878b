/** From a model's configuration to the plan that a device runs: records, asks the device, fuses what it can, lowers. */
import type {
  DeviceGroup,
  Dtype,
  OpAnswer,
  Plan,
  PlanLimits,
  TensorLocation,
  WeightScheme,
} from '../backend/index.js';
import { TenonError, invariant } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import { recordModel, type RecordModel } from '../models/registry.js';
import { fuse } from './fuse.js';
import { gatherEarly } from './gather-early.js';
import { lower } from './lower.js';
import type { Program } from './program.js';
import { plain, signatureKey, signatureOf, weightOf, type OpSignature } from './signature.js';
import { withSchemes } from './weight-schemes.js';

/** What the device said about the ops of a plan. */
export interface PlanNegotiation {
  /** One per op of the plan. */
  readonly answers: readonly OpAnswer[];
  /** Fused ops that the device has no kernel for, and why; their parts run instead. */
  readonly declined: readonly { readonly op: string; readonly reason: string }[];
  /** Weight schemes that the device has no kernel for in an op, and why; such weights are unpacked. */
  readonly unpacked: readonly {
    readonly scheme: WeightScheme;
    readonly op: string;
    readonly reason: string;
  }[];
  readonly batchInvariant: boolean;
}

export interface BuiltPlan {
  readonly plan: Plan;
  readonly negotiation: PlanNegotiation;
}

/**
 * The plan of a model in `dtype` on a device group. `limits.maxTokens` is padded up to the device's buckets. Matrices that
 * `locations` (the checkpoint's tensors) says are quantized stay so, where the device computes from them.
 * Throws unsupported.architecture, unsupported.dtype, or unsupported.op with every op that the device lacks and its reason.
 */
export async function buildPlan(
  config: ModelConfig,
  dtype: Dtype,
  group: Pick<DeviceGroup, 'negotiate' | 'constraints'>,
  limits: PlanLimits,
  locations: ReadonlyMap<string, TensorLocation> = new Map(),
  record: RecordModel = recordModel,
): Promise<BuiltPlan> {
  return planProgram(withSchemes(record(config, dtype), locations), group, limits);
}

/** The same for a program of any origin. */
export async function planProgram(
  recorded: Program,
  group: Pick<DeviceGroup, 'negotiate' | 'constraints'>,
  limits: PlanLimits,
): Promise<BuiltPlan> {
  const program = gatherEarly(recorded);
  const fullyFused = fuse(program, () => true);
  const { answerTo, batchInvariant } = await askDevice(group, [program, fullyFused]);
  const isNative = (signature: OpSignature): boolean => answerTo(signature)?.support === 'native';
  const fused = fuse(program, (signature) => isNative(signature) || isNative(plain(signature)));
  const chosen = unpack(fused, isNative);
  const signatures = chosen.ops.map((op) => signatureOf(chosen, op));
  requireAll(signatures, answerTo);
  return {
    plan: lower(chosen, limits, group.constraints),
    negotiation: {
      answers: signatures.map((signature) => answerTo(signature)!),
      declined: declinedOf(fullyFused, answerTo),
      unpacked: unpackedOf(fused, answerTo),
      batchInvariant,
    },
  };
}

type AnswerTo = (signature: OpSignature) => OpAnswer | undefined;

/** Asks once about every distinct op of the programs, with packed and with plain weights. */
async function askDevice(
  group: Pick<DeviceGroup, 'negotiate'>,
  programs: readonly Program[],
): Promise<{ answerTo: AnswerTo; batchInvariant: boolean }> {
  const asked = new Map<string, OpSignature>();
  for (const program of programs) {
    for (const op of program.ops) {
      const signature = signatureOf(program, op);
      asked.set(signatureKey(signature), signature);
      asked.set(signatureKey(plain(signature)), plain(signature));
    }
  }
  const { answers, batchInvariant } = await group.negotiate({ ops: [...asked.values()] });
  if (answers.length !== asked.size) {
    const message = `the backend answered ${answers.length} of ${asked.size} ops; install a backend that follows the contract`;
    throw new TenonError('config.backend-invalid', message);
  }
  const byKey = new Map([...asked.keys()].map((key, i) => [key, answers[i]!]));
  return { answerTo: (signature) => byKey.get(signatureKey(signature)), batchInvariant };
}

/** The program with plain numbers for every weight that an op cannot read in its scheme. */
function unpack(program: Program, isNative: (signature: OpSignature) => boolean): Program {
  const refused = program.ops.filter((op) => !isNative(signatureOf(program, op)));
  const numbers = new Set(refused.map((op) => weightOf(program, op)));
  const weights = program.weights.map((weight, i) =>
    numbers.has(i) ? { ...weight, scheme: undefined } : weight,
  );
  return { ...program, weights };
}

/** The ops of the table have no smaller parts, so all that are left after fusion must be native. */
function requireAll(signatures: readonly OpSignature[], answerTo: AnswerTo): void {
  const missing = new Map<string, string>();
  for (const signature of signatures) {
    const answer = answerTo(signature);
    invariant(answer !== undefined, `${signature.op} was not negotiated`);
    if (answer.support !== 'native') missing.set(signatureKey(signature), describeMissing(signature, answer));
  }
  if (missing.size === 0) return;
  const list = [...missing.values()].map((line) => `\n  ${line}`).join('');
  throw new TenonError('unsupported.op', `the device cannot run ${missing.size} op(s) of this model:${list}`);
}

function describeMissing({ op, attrs, dtypes }: OpSignature, answer: OpAnswer): string {
  const attributes = Object.entries(attrs).filter(([name]) => name !== 'layer');
  const shown = attributes.map(([name, value]) => `${name}=${value}`).join(' ');
  const reason =
    answer.reason ?? (answer.support === 'decompose' ? 'it has no smaller parts' : 'no reason given');
  return `${op} (${dtypes.join(', ')}${shown ? `; ${shown}` : ''}): ${reason}`;
}

function declinedOf(fullyFused: Program, answerTo: AnswerTo): { op: string; reason: string }[] {
  const declined = new Map<string, { op: string; reason: string }>();
  for (const op of fullyFused.ops) {
    const signature = plain(signatureOf(fullyFused, op));
    const answer = answerTo(signature)!;
    if (answer.support === 'native') continue;
    declined.set(signatureKey(signature), {
      op: op.op,
      reason: answer.reason ?? `the device says ${answer.support}`,
    });
  }
  return [...declined.values()];
}

function unpackedOf(
  fused: Program,
  answerTo: AnswerTo,
): { scheme: WeightScheme; op: string; reason: string }[] {
  const unpacked = new Map<string, { scheme: WeightScheme; op: string; reason: string }>();
  for (const op of fused.ops) {
    const signature = signatureOf(fused, op);
    const { support, reason } = answerTo(signature)!;
    if (signature.weightScheme === undefined || support === 'native') continue;
    unpacked.set(signatureKey(signature), {
      scheme: signature.weightScheme,
      op: op.op,
      reason: reason ?? `the device says ${support}`,
    });
  }
  return [...unpacked.values()];
}
