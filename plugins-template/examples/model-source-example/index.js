/**
 * A hub of one's own: `tenon serve shelf://org/name` with SHELF_URL=https://models.example.com takes the model from that web
 * server, which needs to be nothing but a folder of files. Beside each model's files lies `shelf.json`, their list:
 *
 *     { "files": [{ "name": "config.json", "sizeBytes": 803, "sha256": "…" }, …] }
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/** `shelf://org/name` → the folder with the model's files, all of them there and checked. */
async function resolve(uri, { revision = 'main', cacheDir, tokenizerOnly, onProgress }) {
  const [, model] = /^shelf:\/\/([\w.-]+\/[\w.-]+)$/.exec(uri) ?? [];
  if (model === undefined || model.includes('..')) throw new Error('expected shelf://<org>/<name>');
  const server = process.env.SHELF_URL;
  if (server === undefined) throw new Error('set SHELF_URL to the address of the web server with the models');
  const base = `${server.replace(/\/$/, '')}/${model}/${revision}`;
  const folder = join(cacheDir, model, revision);
  await mkdir(folder, { recursive: true });
  const { files } = await (await get(`${base}/shelf.json`)).json();
  for (const file of files) {
    if (file.name !== basename(file.name))
      throw new Error(`${base}/shelf.json names '${file.name}'; expected plain names`);
    if (tokenizerOnly && file.name.endsWith('.safetensors')) continue;
    const progress = (receivedBytes) =>
      onProgress({ file: `${model}/${file.name}`, receivedBytes, totalBytes: file.sizeBytes });
    await fetchFile(`${base}/${file.name}`, join(folder, file.name), file, progress);
  }
  return { folder };
}

/** Under another name until it is checked: a download that breaks off leaves nothing that looks like a model. */
async function fetchFile(url, path, { sizeBytes, sha256 }, progress) {
  if ((await sizeOf(path)) === sizeBytes && (await hashOf(path)) === sha256) return;
  const partial = `${path}.${process.pid}.partial`;
  try {
    const response = await get(url);
    await pipeline(Readable.fromWeb(response.body), counted(progress), createWriteStream(partial));
    if ((await hashOf(partial)) !== sha256)
      throw new Error(`${url} is damaged: its sha256 is not ${sha256}; try again`);
    await rename(partial, path);
  } finally {
    await rm(partial, { force: true });
  }
}

async function get(url) {
  const response = await fetch(url);
  if (response.ok) return response;
  throw new Error(`${url} answered ${response.status}; check the model's name, --revision and SHELF_URL`);
}

/** Passes bytes on and tells how many have come. */
function counted(progress) {
  let received = 0;
  return new Transform({
    transform(chunk, _encoding, done) {
      progress((received += chunk.length));
      done(undefined, chunk);
    },
  });
}

async function hashOf(path) {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest('hex');
}

const sizeOf = async (path) => (await stat(path).catch(() => undefined))?.size;

/** @type {import('@tenon/core/extensions').ModelSource} */
const shelf = { resolve };
export default shelf;
