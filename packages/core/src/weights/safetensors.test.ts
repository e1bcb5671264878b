import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  f32Tensors, rawSafetensors, safetensors, temporaryFolder, tinyLlama, tinyLlamaTensors, u64,
} from '../../tests/fixtures/model-files.js'; // prettier-ignore
import { TenonError } from '../errors.js';
import { openCheckpoint } from './open-checkpoint.js';
import { readSafetensorsFolder } from './safetensors.js';

const two = f32Tensors({ a: [2, 3], b: [4] });

/** The error that reading a model.safetensors of these bytes gives. */
async function failure(bytes: Uint8Array): Promise<TenonError> {
  using folder = temporaryFolder();
  folder.write('model.safetensors', bytes);
  const error: unknown = await readSafetensorsFolder(folder.path).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(TenonError);
  return error as TenonError;
}

describe('safetensors', () => {
  it('locates tensors without reading them', async () => {
    using folder = temporaryFolder();
    const file = folder.write('model.safetensors', safetensors(two));
    const { locations } = await readSafetensorsFolder(folder.path);
    const dataOffset = safetensors(two).length - 40;
    expect([...locations.values()]).toEqual([
      { name: 'a', file, offset: dataOffset, sizeBytes: 24, dtype: 'F32', shape: [2, 3] },
      { name: 'b', file, offset: dataOffset + 24, sizeBytes: 16, dtype: 'F32', shape: [4] },
    ]);
  });

  it('keeps tensors of types that cannot be loaded apart', async () => {
    using folder = temporaryFolder();
    const ids = { dtype: 'I64', shape: [2], data: new Uint8Array(16) };
    folder.write('model.safetensors', safetensors({ ...two, ids }));
    const { locations, foreignDtypes } = await readSafetensorsFolder(folder.path);
    expect([...locations.keys()]).toEqual(['a', 'b']);
    expect([...foreignDtypes]).toEqual([['ids', 'I64']]);
  });

  it('reads scalars and empty tensors', async () => {
    using folder = temporaryFolder();
    folder.write('model.safetensors', safetensors(f32Tensors({ scalar: [], none: [0, 4], last: [1] })));
    const { locations } = await readSafetensorsFolder(folder.path);
    expect([...locations.values()].map(({ sizeBytes }) => sizeBytes)).toEqual([4, 0, 4]);
  });

  it('says how far a truncated file falls short', async () => {
    const whole = safetensors(two);
    const error = await failure(whole.subarray(0, whole.length - 10));
    expect(error.code).toBe('config.weights-invalid');
    expect(error.message).toMatch(
      new RegExp(
        `model.safetensors tensor b ends at byte ${whole.length}, but the file has ${whole.length - 10}: it is truncated`,
      ),
    );
  });

  const entry = (fields: object) =>
    JSON.stringify({ a: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...fields } });
  it.each([
    ['an empty file', Buffer.alloc(0), /has 0 bytes/],
    [
      'a header longer than the file',
      Buffer.concat([u64(1000), Buffer.from('{}')]),
      /header of 1000 bytes, but has 10/,
    ],
    [
      'an absurd header length',
      Buffer.concat([u64(2n ** 63n), Buffer.from('{}')]),
      /header of 9223372036854776000 bytes/,
    ],
    ['a header that is no JSON', rawSafetensors('{"a":', new Uint8Array()), /is not valid JSON/],
    ['a header that is no object', rawSafetensors('[1]', new Uint8Array()), /holds no JSON object/],
    [
      'an entry that is no object',
      rawSafetensors('{"a":7}', new Uint8Array(8)),
      /tensor a has dtype undefined/,
    ],
    [
      'an unknown dtype',
      rawSafetensors(entry({ dtype: 'F99' }), new Uint8Array(8)),
      /tensor a has dtype "F99"/,
    ],
    [
      'an inherited name as dtype',
      rawSafetensors(entry({ dtype: 'toString' }), new Uint8Array(8)),
      /dtype "toString"/,
    ],
    ['a negative dimension', rawSafetensors(entry({ shape: [-2] }), new Uint8Array(8)), /has shape \[-2\]/],
    [
      'a fractional dimension',
      rawSafetensors(entry({ shape: [0.5] }), new Uint8Array(8)),
      /has shape \[0.5\]/,
    ],
    [
      'an overflowing shape',
      rawSafetensors(entry({ shape: [1e9, 1e9, 1e9] }), new Uint8Array(8)),
      /has shape/,
    ],
    [
      'a size that contradicts the shape',
      rawSafetensors(entry({ shape: [3] }), new Uint8Array(8)),
      /a has 8 bytes; F32 \[3\] takes 12/,
    ],
    [
      'offsets in reverse',
      rawSafetensors(entry({ data_offsets: [8, 0] }), new Uint8Array(8)),
      /data_offsets \[8,0\]/,
    ],
    [
      'offsets of text',
      rawSafetensors(entry({ data_offsets: ['0', '8'] }), new Uint8Array(8)),
      /data_offsets \["0","8"\]/,
    ],
    [
      'a gap',
      rawSafetensors(entry({ data_offsets: [4, 12] }), new Uint8Array(12)),
      /leaves a gap after the header/,
    ],
    ['bytes after the last tensor', rawSafetensors(entry({}), new Uint8Array(9)), /its tensors end at/],
    [
      'an overlap',
      rawSafetensors(
        JSON.stringify({
          a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] },
          b: { dtype: 'F32', shape: [2], data_offsets: [4, 12] },
        }),
        new Uint8Array(12),
      ),
      /tensor b at byte \d+ overlaps a, which ends at/,
    ],
  ])('refuses %s', async (_, bytes, message) => {
    const error = await failure(bytes);
    expect(error.code).toBe('config.weights-invalid');
    expect(error.message).toMatch(message);
  });

  describe('in shards', () => {
    const index = { weight_map: { a: 'model-1.safetensors', b: 'model-2.safetensors' } };

    it('joins the files that the index names', async () => {
      using folder = temporaryFolder();
      folder.write('model.safetensors.index.json', index);
      folder.write('model-1.safetensors', safetensors({ a: two['a']! }));
      folder.write('model-2.safetensors', safetensors({ b: two['b']! }));
      const { files, locations } = await readSafetensorsFolder(folder.path);
      expect(files).toHaveLength(2);
      expect([...locations.keys()]).toEqual(['a', 'b']);
    });

    it('names the missing ones', async () => {
      using folder = temporaryFolder();
      folder.write('model.safetensors.index.json', index);
      folder.write('model-1.safetensors', safetensors({ a: two['a']! }));
      await expect(readSafetensorsFolder(folder.path)).rejects.toMatchObject({
        code: 'config.weights-missing',
        message: expect.stringContaining('lacks 1 of its 2 weight files: model-2.safetensors'),
      });
    });

    it('refuses an index that contradicts its files', async () => {
      using folder = temporaryFolder();
      folder.write('model.safetensors.index.json', {
        weight_map: { a: 'model-1.safetensors', c: 'model-1.safetensors' },
      });
      folder.write('model-1.safetensors', safetensors({ a: two['a']! }));
      await expect(readSafetensorsFolder(folder.path)).rejects.toThrow(
        'has no tensor c, though model.safetensors.index.json',
      );
    });

    it('refuses a tensor that is in two files', async () => {
      using folder = temporaryFolder();
      folder.write('model.safetensors.index.json', index);
      folder.write('model-1.safetensors', safetensors(two));
      folder.write('model-2.safetensors', safetensors(two));
      await expect(readSafetensorsFolder(folder.path)).rejects.toThrow('which another file holds too');
    });

    it.each([
      [{}, 'has no weight_map'],
      [{ weight_map: { a: '../secret.safetensors' } }, 'expected a .safetensors file name'],
      [{ weight_map: { a: 3 } }, 'names 3 as the file of a'],
    ])('refuses the index %j', async (wrong, message) => {
      using folder = temporaryFolder();
      folder.write('model.safetensors.index.json', wrong);
      await expect(readSafetensorsFolder(folder.path)).rejects.toMatchObject({
        code: 'config.weights-invalid',
        message: expect.stringContaining(message),
      });
    });
  });

  it('says that pickles are not read', async () => {
    using folder = temporaryFolder();
    folder.write('pytorch_model.bin', '');
    await expect(readSafetensorsFolder(folder.path)).rejects.toMatchObject({
      code: 'config.weights-missing',
      message: expect.stringContaining('pytorch_model.bin is a Python pickle'),
    });
  });

  it('refuses or reads, and never crashes, when cut anywhere or garbled', async () => {
    const whole = safetensors(f32Tensors(tinyLlamaTensors));
    using folder = temporaryFolder();
    folder.write('config.json', tinyLlama);
    const opens = async (bytes: Uint8Array) => {
      folder.write('model.safetensors', bytes);
      try {
        await openCheckpoint(folder.path);
        return true;
      } catch (error) {
        expect(error).toBeInstanceOf(TenonError);
        expect((error as TenonError).kind).toMatch(/^(config|unsupported)$/);
        return false;
      }
    };
    expect(await opens(whole)).toBe(true);
    for (let length = 0; length < whole.length; length += 7)
      expect(await opens(whole.subarray(0, length))).toBe(false);
    const garbled = fc.record({
      at: fc.nat(whole.length - 1),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 9 }),
    });
    await fc.assert(
      fc.asyncProperty(garbled, async ({ at, bytes }) => {
        const copy = Uint8Array.from(whole);
        copy.set(bytes.subarray(0, copy.length - at), at);
        await opens(copy);
      }),
      { numRuns: 300 },
    );
  });
});
