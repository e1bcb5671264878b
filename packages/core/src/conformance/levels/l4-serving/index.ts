/** Level 4: the real engine on the backend: many requests, aborts, preemption, and nothing slow once it serves. */
import { check, fail, notApplicable, skip, type ConformanceCase } from '../../case.js';
import type { Kit } from '../../kit.js';
import { randomRequest, ServedModel, type Answer, type ServedRequest } from './served-model.js';

export function servingLevel(): ConformanceCase[] {
  const cases: readonly [string, (kit: Kit) => Promise<void>][] = [
    ['same-as-alone', sameAsAlone],
    ['soak-with-aborts', soakWithAborts],
    ['nothing-slow-after-warm-up', nothingSlow],
    ['adapter-swap', async () => notApplicable('core has no adapters yet')],
  ];
  return cases.map(([name, run]) => ({ name: `L4/serving/${name}`, run }));
}

/** Each request alone, then all at once, when blocks are too few for all of them. */
async function sameAsAlone(kit: Kit): Promise<void> {
  const model = await ServedModel.start(kit);
  const random = kit.random();
  const requests = Array.from({ length: 24 }, () => randomRequest(random));
  const alone: Answer[] = [];
  for (const request of requests) alone.push(await model.answer(request));
  await model.engine.resetPrefixCache();
  const together = await Promise.all(requests.map((request) => model.answer(request)));
  const { numPreemptionsTotal } = model.engine.stats();
  await model.expectIdle();
  await model.close();
  if (!model.observed.batchInvariant) skip('answers may depend on the batch (batchInvariant: false)');
  requests.forEach(({ prompt, params }, i) => {
    const [a, b] = [together[i]!, alone[i]!];
    if (String(a.tokenIds) === String(b.tokenIds) && a.finishReason === b.finishReason) return;
    const request = JSON.stringify({ prompt, ...params });
    fail(`beside ${requests.length - 1} others (${numPreemptionsTotal} preemptions), request ${i} gets ${a.tokenIds}; alone, ${b.tokenIds}: ${request}`);
  });
} // prettier-ignore

/** 240 requests, never more than 24 at a time; one in six goes away, before its first token or after some. */
async function soakWithAborts(kit: Kit): Promise<void> {
  const model = await ServedModel.start(kit);
  const random = kit.random();
  const jobs = Array.from({ length: 240 }, () => ({
    request: randomRequest(random),
    abortAfter: random.below(6) === 0 ? random.below(5) : undefined,
  }));
  const next = jobs.values();
  const worker = async (): Promise<void> => {
    for (const { request, abortAfter } of next) await answerOrAbort(model, request, abortAfter);
  };
  await Promise.all(Array.from({ length: 24 }, worker));
  await model.expectIdle();
  check(model.engine.health().ok, `the engine is unhealthy: ${model.engine.health().reason}`);
  await model.close();
}

async function answerOrAbort(
  model: ServedModel,
  request: ServedRequest,
  abortAfter: number | undefined,
): Promise<void> {
  const { tokenIds, finishReason } = await model.answer(request, abortAfter);
  if (abortAfter !== undefined) return;
  const { maxTokens } = request.params;
  check(finishReason !== undefined && finishReason !== 'abort', `a request ends as '${finishReason}'`);
  check(tokenIds.length <= maxTokens!, `a request for ${maxTokens} tokens gets ${tokenIds.length}`);
}

/** From the freeze on (the engine's, or after a few requests the kit's own) counters of slow things stand still. */
async function nothingSlow(kit: Kit): Promise<void> {
  const model = await ServedModel.start(kit);
  const random = kit.random();
  const serve = async (count: number): Promise<void> => {
    const requests = Array.from({ length: count }, () => randomRequest(random));
    await Promise.all(requests.map((request) => model.answer(request)));
  };
  const { executable, isFrozen } = model.observed;
  if (executable?.counters === undefined) {
    await model.close();
    notApplicable('the executable has no counters()');
  }
  if (!isFrozen) {
    await serve(40);
    executable.freeze?.();
  }
  const before = executable.counters();
  await serve(60);
  const after = executable.counters();
  await model.expectIdle();
  await model.close();
  for (const name of ['compiles', 'allocations', 'fallbacks', 'hostSyncs'] as const) {
    const grown = after[name] - before[name];
    check(
      grown === 0,
      `${grown} ${name} while serving, after ${isFrozen ? "the engine's warm-up" : '40 requests'} and freeze()`,
    );
  }
  check(after.steps > before.steps, 'counters().steps does not grow with the steps');
}
