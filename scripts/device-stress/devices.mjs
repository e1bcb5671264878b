/** The devices that are compared: their modules, what they say of themselves, and engines on them. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { LLM } from '@tenon/core';
import { ObservedBackend, referenceBackend } from '@tenon/core/conformance';

/** A device of a backend, opened once to be asked for its constraints. */
export async function findDevice(name, folders) {
  const plugins = folders.map((folder) => resolve(folder));
  const [id] = name.split(':');
  const module = id === 'reference' ? referenceBackend : await loadModule(id, plugins);
  const backend = module.create({ log: () => {} });
  const device = await describe(backend, name);
  const group = await backend.open([device.id], {});
  const { constraints } = group;
  await group.close();
  return {
    name,
    id: device.id,
    module,
    backend,
    device,
    constraints,
    plugins,
    hasPackage: id !== 'reference',
  };
}

async function describe(backend, name) {
  const devices = await backend.devices();
  const found = devices.find(({ id, usable }) => usable && (id === name || id.split(':')[0] === name));
  if (found !== undefined) return found;
  const listed = devices.map(({ id, reason }) => `${id}${reason ? ` (${reason})` : ''}`).join(', ');
  throw new Error(`no usable device '${name}'; there are: ${listed || 'none'}`);
}

/** The backend `id` of the folders in `plugins`, else of the package @tenon/backend-<id>. */
async function loadModule(id, plugins) {
  for (const folder of [...plugins, packageFolder(`@tenon/backend-${id}`)]) {
    const backend = folder && JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')).tenon?.backend;
    if (backend?.id === id) return (await import(pathToFileURL(join(folder, backend.entry)).href)).default;
  }
  throw new Error(`no backend '${id}'; name its folder with --plugin, or install @tenon/backend-${id}`);
}

/** Undefined where it is not installed. */
function packageFolder(name) {
  try {
    return dirname(fileURLToPath(import.meta.resolve(`${name}/package.json`)));
  } catch {
    return undefined;
  }
}

/** The models that are there: the embedded one, with text, and two golden checkpoints of the core's. */
export function defaultModels() {
  const goldens = join(packageFolder('@tenon/core'), 'tests/goldens');
  const stories = packageFolder('@tenon/model-stories');
  const all = [stories && join(stories, 'model'), join(goldens, 'llama'), join(goldens, 'qwen3')];
  return all.filter((folder) => folder && existsSync(folder));
}

/** Whether a model has text. */
export const hasText = (model) => existsSync(join(model, 'tokenizer.json'));

/** An engine in this thread, with a view of its executable; or as it is served, in a thread of its own. */
export async function loadEngine(device, model, options, inThread = false) {
  const given = { ...options, device: device.id, skipTokenizerInit: !hasText(model) };
  if (inThread)
    return { llm: await LLM.load(model, { ...given, plugins: device.plugins }), observed: undefined };
  const observed = new ObservedBackend(device.module);
  return { llm: await LLM.load(model, given, { backend: observed.module }), observed };
}

/** Bytes of the device that are free; undefined where other programs take of them too. */
export async function freeBytes({ backend, device }) {
  const { freeBytes, memoryIsShared, class: kind } = await describe(backend, device.id);
  return (memoryIsShared ?? kind === 'cpu') ? undefined : freeBytes;
}
