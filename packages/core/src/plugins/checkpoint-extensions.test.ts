import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ggufFile, temporaryFolder, tinyLlamaGguf, type Folder } from '../../tests/fixtures/model-files.js';
import { openCheckpoint, type OpenCheckpointOptions } from '../weights/open-checkpoint.js';
import { checkpointExtensions } from './checkpoint-extensions.js';
import { listExtensions } from './extensions.js';

let app: Folder;
beforeEach(() => {
  app = temporaryFolder();
  app.write('package.json', { dependencies: { 'shelf-source': '1' } });
  app.write('node_modules/shelf-source/package.json', {
    name: 'shelf-source',
    version: '1.0.0',
    type: 'module',
    tenon: { modelSources: [{ scheme: 'shelf', entry: './source.js' }] },
  });
});
afterEach(() => app[Symbol.dispose]());

/** Opens `model` with a source whose resolve is this code. */
function open(model: string, resolve: string, options: OpenCheckpointOptions = {}) {
  app.write('node_modules/shelf-source/source.js', `export default { resolve: ${resolve} };`);
  const found = listExtensions({ plugins: [], root: app.path, env: {} });
  return openCheckpoint(model, { ...options, extensions: checkpointExtensions(found, () => {}) });
}

describe('a model source', () => {
  it('is given the URI and the options, and answers with a file', async () => {
    const file = app.write('model.gguf', ggufFile(tinyLlamaGguf()));
    const code = `async (uri, { revision, cacheDir, tokenizerOnly, onProgress }) => {
      onProgress({ file: [uri, revision, cacheDir, tokenizerOnly].join(), receivedBytes: 1, totalBytes: 2 });
      return { file: ${JSON.stringify(file)} };
    }`;
    const said: string[] = [];
    const onProgress: OpenCheckpointOptions['onProgress'] = (progress) => void said.push(progress.file);
    const options = { revision: 'v2', downloadDir: '/cache', onProgress };
    expect(await open('shelf://a/b?c', code, options)).toMatchObject({ format: 'gguf', path: file });
    expect(said).toEqual(['shelf://a/b?c,v2,/cache,false']);
  });

  it('has a cache folder of its own by default', async () => {
    const code = `async (uri, { cacheDir }) => { throw new Error(cacheDir); }`;
    await expect(open('shelf://a', code)).rejects.toThrow(/\.cache\/tenon\/shelf$|\/tenon\/shelf$/);
  });

  it('fails with its own reason', async () => {
    const code = `async () => { throw new Error('no such model; see shelf --list'); }`;
    await expect(open('shelf://a/b', code)).rejects.toMatchObject({
      code: 'config.download-failed',
      message: `shelf://a/b: model source 'shelf' of shelf-source: no such model; see shelf --list`,
    });
  });

  it.each([
    ['undefined', 'its resolve gave undefined for shelf://a'],
    ['({ folder: "models/a" })', 'its resolve gave {"folder":"models/a"} for shelf://a; expected { folder } or { file } with the absolute path'],
    ['({ folder: "/no/such/folder" })', 'expected { folder } or { file } with the absolute path of one that is there'],
    ['({ file: "/" })', 'with the absolute path of one that is there'],
  ])('that gives %s is blamed by name', async (value, reason) => {
    const error = await open('shelf://a', `async () => ${value}`).catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ code: 'config.extension-invalid' });
    expect((error as Error).message).toContain(reason);
  }); // prettier-ignore

  it('that is not there is named with those that are', async () => {
    await expect(open('shelv://a/b', 'async () => 3')).rejects.toMatchObject({
      code: 'config.extension-not-found',
      message:
        "no model source 'shelv'; found: shelf (shelf-source); install a package whose tenon.modelSources has this scheme, or name its folder with --plugin; a model of the hub is org/name, without an address",
    });
  });
});
