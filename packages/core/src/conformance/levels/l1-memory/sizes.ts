/** What the backend says about its memory, and what it does where there is too little. */
import { dtypeBytes } from '../../../backend/index.js';
import { asTenonError } from '../../../errors.js';
import { planBytes } from '../../../program/explain.js';
import { check, fail, type ConformanceCase } from '../../case.js';
import type { Kit } from '../../kit.js';
import { tinyLoad, type TinyLoad } from './tiny-load.js';

export function sizeCases(): ConformanceCase[] {
  return [
    { name: 'L1/memory/kv-block-bytes', run: kvBlockBytes },
    { name: 'L1/memory/arenas', run: arenas },
    { name: 'L1/memory/out-of-memory', run: outOfMemory },
    { name: 'L1/memory/close-twice', run: closeTwice },
    { name: 'L1/memory/close-in-flight', run: closeInFlight },
  ];
}

/** Never less than the keys and values themselves, and in whole blocks. */
async function kvBlockBytes(kit: Kit): Promise<void> {
  const group = await kit.group();
  for (const blockSize of group.constraints.blockSizes) {
    for (const dtype of kit.device.dtypes) {
      for (const [numKvHeads, headDim] of [[1, 64], [2, 16], [8, 128], [3, 80]] as const) {
        const least = 2 * numKvHeads * headDim * blockSize * dtypeBytes[dtype];
        const said = group.kvBlockBytes({ numKvHeads, headDim, dtype }, blockSize);
        if (!Number.isSafeInteger(said) || said < least)
          fail(`kvBlockBytes says ${said} for blocks of ${blockSize} tokens, ${numKvHeads} heads of ${headDim} in ${dtype}; keys and values alone take ${least}`);
      }
    }
  }
} // prettier-ignore

/** `memory()` says at least what the plan needs, and for the cache no more than `kvBlockBytes` promised. */
async function arenas(kit: Kit): Promise<void> {
  const group = await kit.group();
  const { runner } = await (await tinyLoad(kit))(group);
  const used = (arena: string): number =>
    runner.executable.memory().find((stats) => stats.arena === arena)?.usedBytes ?? fail(`memory() lacks the arena '${arena}'`);
  const { plan } = runner;
  const { blockSize, numBlocks } = plan.limits;
  const kvBytes = numBlocks * plan.kvLayers.reduce((sum, layer) => sum + group.kvBlockBytes(layer, blockSize), 0);
  const { weights } = planBytes(plan);
  const slack = 64 * 1024 + kvBytes / 64;
  check(used('weights') >= weights, `memory() says ${used('weights')} bytes of weights; the plan's take ${weights}`);
  check(used('workspace') >= plan.arenaBytes, `memory() says ${used('workspace')} bytes of workspace; the plan has ${plan.arenaBytes}`);
  check(used('kv') >= kvBytes - slack && used('kv') <= kvBytes + slack, `memory() says ${used('kv')} bytes of KV cache; ${numBlocks} blocks take ${kvBytes} by kvBlockBytes`);
  await runner.close();
} // prettier-ignore

/** A cache of 16 times the device's memory: refused with what was wanted, and the group works as before. */
async function outOfMemory(kit: Kit): Promise<void> {
  const group = await kit.group();
  const shape = { numHeads: 16, numKvHeads: 16, headDim: 128 };
  const load = await tinyLoad(kit, shape);
  const { runner, step } = await load(group);
  const { blockSize } = runner.plan.limits;
  const blockBytes = group.kvBlockBytes({ ...shape, dtype: kit.device.preferredDtype }, blockSize);
  const wanted = Math.ceil((16 * kit.device.memoryBytes) / blockBytes);
  const numBlocks = Math.min(wanted, Math.floor((2 ** 31 - 1) / blockSize));
  await expectOutOfMemory(() => load(group, numBlocks), `${numBlocks * blockBytes} bytes`);
  await runner.enqueue(step);
  await runner.close();
  const after = await load(group);
  await after.runner.enqueue(after.step);
  await after.runner.close();
}

async function expectOutOfMemory(load: () => Promise<TinyLoad>, size: string): Promise<void> {
  const refusal = await load().then(
    async ({ runner }) => {
      await runner.close();
      return undefined;
    },
    (error: unknown) => asTenonError(error),
  );
  if (refusal === undefined) fail(`a KV cache of ${size} was loaded, which the device does not have`);
  const { code, message } = refusal;
  if (code !== 'backend.out-of-memory')
    fail(`a KV cache of ${size} is refused as ${code}: ${message}; expected backend.out-of-memory`);
  if (!/\d/.test(message)) fail(`backend.out-of-memory says '${message}'; expected how much was wanted`);
}

/** Again on what is closed: nothing happens. */
async function closeTwice(kit: Kit): Promise<void> {
  const group = await kit.open();
  const { runner, step } = await (await tinyLoad(kit))(group);
  await runner.enqueue(step);
  await Promise.all([runner.executable.close(), runner.executable.close()]);
  await runner.executable.close();
  await Promise.all([group.close(), group.close()]);
  await group.close();
}

/** Steps in flight do not keep anything from closing, and nothing is written to their buffers afterwards. */
async function closeInFlight(kit: Kit): Promise<void> {
  const group = await kit.open();
  const { runner, step } = await (await tinyLoad(kit))(group);
  const { stepsInFlight } = group.constraints;
  const steps = Array.from({ length: stepsInFlight }, () => runner.enqueue(step));
  for (const each of steps) each.catch(() => {});
  await runner.executable.close();
  runner.abandon();
  await group.close();
}
