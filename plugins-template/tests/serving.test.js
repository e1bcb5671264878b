/** The backend as an application has it: the embedded model on every device that the simulator plays. `npm test` */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { LLM } from '@tenon/core';
import { referenceBackend } from '@tenon/core/conformance';

const plugin = fileURLToPath(new URL('..', import.meta.url));
const model = dirname(createRequire(import.meta.url).resolve('@tenon/model-stories/model/config.json'));
const prompts = ['Once upon a time', 'The moon', 'Tom and his mother went to the park because'];
const greedy = { temperature: 0, maxTokens: 16, ignoreEos: true };

const load = (options) =>
  LLM.load(model, { device: 'template', plugins: [plugin], maxModelLen: 128, ...options });

async function answers(llm) {
  const outputs = await llm.generate(prompts, greedy);
  await llm.close();
  return outputs.map((output) => output.outputs[0].text);
}

/** What plain loops of TypeScript say. */
const reference = { backend: referenceBackend };
const expected = LLM.load(model, { maxModelLen: 128, dtype: 'float32' }, reference).then(answers);

/** Sets variables of the environment for one test. */
function set(test, variables) {
  Object.assign(process.env, variables);
  test.after(() => Object.keys(variables).forEach((name) => delete process.env[name]));
}

describe('the simulated device', () => {
  for (const mode of ['paged', 'gaudi', 'ascend', 'spyre'])
    it(`answers as the reference does (${mode})`, async (test) => {
      set(test, { TENON_SIM_MODE: mode });
      assert.deepEqual(await answers(await load()), await expected);
    });

  it('answers the same with little memory, requests taking turns', async (test) => {
    set(test, { TENON_SIM_MEMORY: '20' });
    assert.deepEqual(await answers(await load({ dtype: 'bfloat16' })), await expected);
  });

  it('says which memory is too small for what', async (test) => {
    set(test, { TENON_SIM_MEMORY: '8' });
    await assert.rejects(load(), { code: 'capacity.memory', message: /:0/ });
  });

  it('refuses plain weights where it multiplies int8 alone', async (test) => {
    set(test, { TENON_SIM_MODE: 'int8' });
    await assert.rejects(load(), { code: 'unsupported.op', message: /take a checkpoint in Q8_0/ });
  });

  it('has no wrong kernel that goes unseen', async (test) => {
    set(test, { TENON_SIM_FAULT: 'kernel:wrong:embedding' });
    assert.notDeepEqual(await answers(await load()), await expected);
  });

  it('fails the request whose step runs out of memory, and serves the next', async (test) => {
    set(test, { TENON_SIM_FAULT: 'step:oom@2' });
    const llm = await load();
    await assert.rejects(llm.generate(prompts[0], greedy), { code: 'backend.out-of-memory' });
    assert.deepEqual(await answers(llm), await expected);
  });

  it('takes no environment that means nothing', async (test) => {
    set(test, { TENON_SIM_FAULT: 'step:lost' });
    await assert.rejects(load(), /TENON_SIM_FAULT has 'step:lost'; expected .*step:/);
  });
});
