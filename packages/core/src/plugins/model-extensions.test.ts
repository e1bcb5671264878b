import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { f32Tensors, safetensors, temporaryFolder, tinyLlama, type Folder } from '../../tests/fixtures/model-files.js'; // prettier-ignore
import { referenceBackend } from '../conformance/reference-backend.js';
import { explainModel } from '../container.js';
import { LLM } from '../llm.js';

let app: Folder;
beforeEach(() => {
  app = temporaryFolder();
  app.write('package.json', { dependencies: { 'tiny-model': '1' } });
});
afterEach(() => {
  vi.unstubAllEnvs();
  app[Symbol.dispose]();
});

/** One layer of attention whose q and k are one matrix, and whose configuration has names of its own. */
const tiny = {
  config: `(fields) => ({ ...fields.raw, hidden_size: fields.int('width', { min: 1, max: 64 }), logit_scale: undefined })`,
  tensors: `(tensor) => {
    if (tensor.name !== 'qk') return [{ ...tensor, name: tensor.name + '.weight' }];
    const { offset, sizeBytes } = tensor;
    const part = (name, rows, first) => ({ ...tensor, name, shape: [rows, 4], sizeBytes: rows * 16, offset: offset + first * 16 });
    return [part('q.weight', 4, 0), part('k.weight', 2, 4)];
  }`,
  build: `(g, { vocabSize, hiddenSize, numHeads, numKvHeads, headDim }, fields) => {
    const scale = fields.number('logit_scale', { min: 0, max: 10 }, 1);
    const matrix = (name, rows) => g.matrix(name + '.weight', rows, hiddenSize);
    const norm = (x, name) => g.rmsNorm(x, g.constant(name, new Float32Array(hiddenSize).fill(scale)), { eps: 1e-5 });
    const cosSin = g.ropeCosSin(g.input('positions'), g.constant('frequencies', Float32Array.of(1)), { scale: 1 });
    const rotate = (x, heads) => g.rope(x, cosSin, { numHeads: heads, headDim, rotaryDim: 2, interleaved: false });
    const x = g.embedding(g.input('tokenIds'), matrix('embed', vocabSize));
    const h = norm(x, 'before');
    const q = rotate(g.linear(h, matrix('q', 4)), numHeads);
    const k = rotate(g.linear(h, matrix('k', 2)), numKvHeads);
    const layer = g.kvLayer({ numKvHeads, headDim });
    g.kvWrite(k, g.linear(h, matrix('v', 2)), layer, { numKvHeads, headDim });
    const y = g.attention(q, layer, { numHeads, numKvHeads, headDim, scale: 0.7 });
    const rows = g.gatherRows(g.add(x, g.linear(y, matrix('out', hiddenSize))), g.input('logitRows'));
    return g.sample(g.linear(norm(rows, 'after'), matrix('head', vocabSize)));
  }`,
};

function addModel(architecture: string, functions: Readonly<Record<string, string>> = tiny): void {
  const name = 'tiny-model';
  const manifest = { name, version: '1.0.0', type: 'module', tenon: { models: [{ architecture, entry: './model.js' }] } }; // prettier-ignore
  app.write(`node_modules/${name}/package.json`, manifest);
  const members = Object.entries(functions).map(([key, code]) => `${key}: ${code}`);
  app.write(`node_modules/${name}/model.js`, `export default { ${members.join(',\n')} };`);
}

function addCheckpoint(config: object): string {
  const { hidden_size: width, ...fields } = tinyLlama;
  app.write('checkpoint/config.json', { ...fields, width, logit_scale: 2, ...config });
  const shapes = { embed: [8, 4], qk: [6, 4], v: [2, 4], out: [4, 4], head: [8, 4] };
  app.write('checkpoint/model.safetensors', safetensors(f32Tensors(shapes)));
  return `${app.path}/checkpoint`;
}

const architectures = ['TinyForCausalLM'];
/** embed, q, k, v, out, head and the frequencies. */
const ownTensors = '484 B in 7 tensors';
const warnings: string[] = [];
const host = () => ({ backend: referenceBackend, root: app.path, log: (_: string, message: string) => void warnings.push(message) }); // prettier-ignore
const run = (model: string, plugins: readonly string[] = []) => explainModel(model, { plugins }, host());

describe("a package's model", () => {
  it('runs a checkpoint whose configuration and tensors have names of their own', async () => {
    addModel('TinyForCausalLM');
    await using llm = await LLM.load(addCheckpoint({ architectures }), { skipTokenizerInit: true }, host());
    const [output] = await llm.generate([[1, 5, 3]], { temperature: 0, maxTokens: 4, ignoreEos: true });
    expect(output!.outputs[0]!.tokenIds).toHaveLength(4);
    expect(llm.engine.info.architecture).toBe('TinyForCausalLM');
  });

  it('counts for an architecture that Tenon knows and lacks', async () => {
    addModel('Gemma2ForCausalLM');
    expect(await run(addCheckpoint({ architectures: ['Gemma2ForCausalLM'] }))).toContain(ownTensors);
  });

  it('counts for an architecture of ours only where the user names its package', async () => {
    addModel('LlamaForCausalLM');
    const checkpoint = addCheckpoint({ architectures: ['LlamaForCausalLM'] });
    warnings.length = 0;
    await expect(run(checkpoint)).rejects.toThrow('logit_scale 2 is not supported');
    expect(warnings).toEqual([
      'the model LlamaForCausalLM of tiny-model is not used, as Tenon has its own; to use it, name the package with --plugin',
    ]);
    expect(await run(checkpoint, ['tiny-model'])).toContain(ownTensors);
  });

  it('does not run where its package is not trusted, which is said', async () => {
    addModel('TinyForCausalLM');
    vi.stubEnv('TENON_PLUGINS', 'another');
    await expect(run(addCheckpoint({ architectures }))).rejects.toMatchObject({
      code: 'config.extension-invalid',
      message:
        "model 'TinyForCausalLM' of tiny-model: its code may not run; to allow it, add tiny-model to TENON_PLUGINS",
    });
  });

  it('is asked for by its package where there is none', async () => {
    await expect(run(addCheckpoint({ architectures }))).rejects.toMatchObject({
      code: 'unsupported.architecture',
    });
  });

  it.each([
    ['build', `() => { throw new Error('too wide'); }`, 'its build failed: too wide'],
    ['build', `(g) => g.sample(g.input('positions'))`, 'its build failed: op 0 (sample): logits must be'],
    [
      'build',
      `(g) => g.input('positions')`,
      'its build makes no tokens; end it with return g.sample(logits)',
    ],
    ['config', `() => 3`, 'its config returns no object; expected config.json as Llama would spell it'],
    ['tensors', `(tensor) => [tensor, tensor]`, 'its tensors gives two the name embed'],
  ])('whose %s is %s is blamed by name', async (part, code, reason) => {
    addModel('TinyForCausalLM', { ...tiny, [part]: code });
    const error = await run(addCheckpoint({ architectures })).catch((thrown: unknown) => thrown as Error);
    expect(error).toMatchObject({ code: 'config.extension-invalid' });
    const { message } = error as Error;
    expect(message).toContain(`model 'TinyForCausalLM' of tiny-model: ${reason}`);
    expect(message).not.toContain('bug in Tenon');
  });

  it.each([
    [{ width: 'x' }, 'config.model-invalid', 'width is "x"; expected an integer from 1 to 64'],
    [{ logit_scale: 'x' }, 'config.model-invalid', 'logit_scale is "x"; expected a number from 0 to 10'],
    [{ residual_multiplier: 3 }, 'unsupported.model-feature', 'residual_multiplier 3 is not supported'],
    [{ vocab_size: 9 }, 'config.weights-invalid', 'embed.weight [8, 4], expected [9, 4]'],
  ])('leaves the checks of a checkpoint with %j as they are', async (config, code, reason) => {
    addModel('TinyForCausalLM');
    const error = await run(addCheckpoint({ architectures, ...config })).catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ code });
    expect((error as Error).message).toContain(reason);
  });
});
