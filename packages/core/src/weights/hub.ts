/**
 * Models from a Hugging Face hub, kept in the cache that Python's huggingface_hub keeps:
 * <cache>/models--org--name/{refs/<revision>, blobs/<etag>, snapshots/<commit>/<file> -> blob}.
 * Listing goes through @huggingface/hub; its downloads neither resume nor check, so `downloadBlob` does that part.
 */
import { mkdir, readdir, readFile, stat, statfs, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { getRepoFolderName, listFiles, modelInfo, type ListFileEntry } from '@huggingface/hub';
import { TenonError } from '../errors.js';
import { tryReadJsonObject } from './json-file.js';
import { linkBlob, downloadBlob } from './hub-download.js';
import type { DownloadOptions, HubModel } from './hub-model.js';
import { hubFetch, readHubSettings, type HubSettings } from './hub-settings.js';
import { parseShardIndex } from './safetensors.js';

const sideFiles = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'chat_template.json',
];
const indexName = 'model.safetensors.index.json';
const maxParallel = 4;

/**
 * Brings the model here, or finds it in the cache; returns its folder or GGUF file.
 * `checkConfig` sees the folder when only the small files are there, and may throw before the weights are fetched.
 */
export async function downloadModel(
  model: HubModel,
  options: DownloadOptions & { readonly checkConfig?: (folder: string) => Promise<void> },
): Promise<string> {
  const settings = await readHubSettings(options.downloadDir);
  const revision = checkRevision(options.revision ?? 'main');
  const repo = join(settings.cacheDir, getRepoFolderName({ type: 'model', name: model.id }));
  if (settings.offline || isCommit(revision)) {
    const cached = await findCached(repo, model, revision, options.tokenizerOnly);
    if (cached.path !== undefined) return cached.path;
    if (settings.offline) throw offlineError(settings, model, revision, cached.missing);
  }
  let listing: Listing;
  try {
    listing = await listModel(settings, model, revision);
  } catch (error) {
    const cached = await findCached(repo, model, revision, options.tokenizerOnly);
    if (cached.path === undefined || (error as TenonError).code !== 'config.download-failed') throw error;
    options.onNotice?.(`${(error as Error).message}; using the copy in ${cached.path}`);
    return cached.path;
  }
  return fetchModel(settings, repo, model, revision, listing, options);
}

interface Listing {
  readonly commit: string;
  readonly entries: ReadonlyMap<string, ListFileEntry>;
}

async function listModel(settings: HubSettings, model: HubModel, revision: string): Promise<Listing> {
  const access = {
    hubUrl: settings.endpoint,
    fetch: hubFetch(settings, `${model.id} (revision ${revision})`),
  };
  const { sha } = await modelInfo({ name: model.id, revision, additionalFields: ['sha'], ...access });
  if (typeof sha !== 'string' || !isCommit(sha)) {
    throw new TenonError(
      'config.download-failed',
      `${settings.endpoint} names no commit for ${model.id} ${revision}`,
    );
  }
  const entries = new Map<string, ListFileEntry>();
  for await (const entry of listFiles({
    repo: { type: 'model', name: model.id },
    revision: sha,
    ...access,
  })) {
    if (entry.type === 'file') entries.set(entry.path, entry);
  }
  return { commit: sha, entries };
}

async function fetchModel(
  settings: HubSettings,
  repo: string,
  model: HubModel,
  revision: string,
  { commit, entries }: Listing,
  options: Parameters<typeof downloadModel>[1],
): Promise<string> {
  const snapshot = join(repo, 'snapshots', commit);
  const fetchFiles = async (names: readonly string[]) => {
    await checkDiskSpace(
      repo,
      names.map((name) => entries.get(name)!),
    );
    await inParallel(names, (name) =>
      fetchFile(settings, repo, model, commit, entries.get(name)!, options.onProgress),
    );
  };
  await makeFolder(snapshot);
  if (revision !== commit) await writeRef(repo, revision, commit);
  const names = [...entries.keys()];
  if (options.tokenizerOnly && entries.has('tokenizer.json')) {
    await fetchFiles(sideFiles.filter((name) => entries.has(name)));
    return snapshot;
  }
  const gguf = chooseGguf(names, model);
  if (gguf !== undefined) {
    await fetchFiles([gguf]);
    return join(snapshot, gguf);
  }
  const wanted = names.includes('model.safetensors') ? sideFiles : [...sideFiles, indexName];
  await fetchFiles(wanted.filter((name) => entries.has(name)));
  await options.checkConfig?.(snapshot);
  await fetchFiles(await weightFiles(snapshot, names, model.id));
  return snapshot;
}

async function fetchFile(
  settings: HubSettings,
  repo: string,
  model: HubModel,
  commit: string,
  entry: ListFileEntry,
  onProgress: DownloadOptions['onProgress'],
): Promise<void> {
  const etag = entry.lfs?.oid ?? entry.oid ?? '';
  if (!/^[0-9a-f]{40,64}$/.test(etag)) {
    throw new TenonError(
      'config.download-failed',
      `${settings.endpoint} gives no checksum for ${entry.path} of ${model.id}`,
    );
  }
  const blob = join(repo, 'blobs', etag);
  await downloadBlob({
    name: `${model.id}/${entry.path}`,
    url: `${settings.endpoint}/${model.id}/resolve/${commit}/${encodeURIComponent(entry.path)}`,
    blob,
    sizeBytes: entry.lfs?.size ?? entry.size,
    checksum: entry.lfs ? { kind: 'sha256', hex: etag } : { kind: 'git-sha1', hex: etag },
    fetch: hubFetch(settings, `${entry.path} of ${model.id}`),
    onProgress,
  });
  await linkBlob(blob, join(repo, 'snapshots', commit, entry.path));
}

/** The GGUF file meant: the one asked for, or the only one of a model without safetensors. */
function chooseGguf(names: readonly string[], model: HubModel): string | undefined {
  const ggufs = names.filter((name) => name.endsWith('.gguf'));
  const wanted = model.gguf?.toLowerCase();
  if (wanted === undefined && names.some((name) => name.endsWith('.safetensors'))) return undefined;
  if (wanted === undefined && ggufs.length === 0) {
    throw new TenonError(
      'config.weights-missing',
      `${model.id} has neither .safetensors nor .gguf files; its others are not read (a pickle could run code)`,
    );
  }
  const exact = ggufs.find((name) => name.toLowerCase() === wanted);
  const matching = ggufs.filter((name) => name.toLowerCase().includes(wanted ?? ''));
  if (exact === undefined && matching.length !== 1) {
    const choices = ggufs.map((name) => `${model.id}:${name}`).join(', ') || 'none';
    throw new TenonError(
      'config.model-not-found',
      `${model.id} has ${matching.length} GGUF files${wanted === undefined ? '' : ` like '${model.gguf}'`}; name one: ${choices}`,
      { param: 'model' },
    );
  }
  return exact ?? matching[0];
}

/** The safetensors files of a snapshot that has its index, checked to be among `names`. */
async function weightFiles(
  snapshot: string,
  names: readonly string[],
  id: string,
): Promise<readonly string[]> {
  if (names.includes('model.safetensors')) return ['model.safetensors'];
  const index = await tryReadJsonObject(join(snapshot, indexName), 'config.weights-invalid');
  if (index === undefined) {
    throw new TenonError('config.weights-missing', `${id} has neither model.safetensors nor ${indexName}`);
  }
  const shards = [...new Set(Object.values(parseShardIndex(index, `${indexName} of ${id}`)))].toSorted();
  const missing = shards.filter((shard) => !names.includes(shard));
  if (missing.length > 0) {
    throw new TenonError(
      'config.weights-missing',
      `${id} lacks weight files that its index names: ${missing.join(', ')}`,
    );
  }
  return shards;
}

/** The cache's copy, where it is whole; else the first file that it lacks. */
async function findCached(
  repo: string,
  model: HubModel,
  revision: string,
  tokenizerOnly = false,
): Promise<{ readonly path?: string; readonly missing: string }> {
  const ref = isCommit(revision)
    ? revision
    : await readFile(join(repo, 'refs', revision), 'utf8').catch(() => '');
  const snapshot = join(repo, 'snapshots', ref.trim());
  if (ref.trim() === '') return { missing: 'any copy' };
  const names = await presentFiles(snapshot);
  if (tokenizerOnly && names.includes('tokenizer.json')) return { path: snapshot, missing: '' };
  const ggufs = names.filter((name) => name.endsWith('.gguf'));
  if (model.gguf !== undefined || (!names.includes('config.json') && ggufs.length > 0)) {
    const wanted = ggufs.filter((name) => name.toLowerCase().includes(model.gguf?.toLowerCase() ?? ''));
    return wanted.length === 1
      ? { path: join(snapshot, wanted[0]!), missing: '' }
      : { missing: model.gguf ?? 'a .gguf file' };
  }
  if (!names.includes('config.json')) return { missing: 'config.json' };
  if (names.includes('model.safetensors')) return { path: snapshot, missing: '' };
  const index = await tryReadJsonObject(join(snapshot, indexName), 'config.weights-invalid');
  if (index === undefined) return { missing: 'model.safetensors' };
  const missing = Object.values(parseShardIndex(index, join(snapshot, indexName))).find(
    (shard) => !names.includes(shard),
  );
  return missing === undefined ? { path: snapshot, missing: '' } : { missing };
}

/** Names in the snapshot whose blobs are there too. */
async function presentFiles(snapshot: string): Promise<readonly string[]> {
  const names = await readdir(snapshot).catch(() => []);
  const present = await Promise.all(names.map((name) => stat(join(snapshot, name)).catch(() => undefined)));
  return names.filter((_, i) => present[i]?.isFile());
}

function offlineError(settings: HubSettings, model: HubModel, revision: string, missing: string): TenonError {
  return new TenonError(
    'config.download-failed',
    `HF_HUB_OFFLINE is set, and ${settings.cacheDir} lacks ${missing} of ${model.id} (revision ${revision}); ` +
      `unset HF_HUB_OFFLINE to download it, or name a folder`,
    { param: 'model' },
  );
}

const isCommit = (revision: string) => /^[0-9a-f]{40}$/.test(revision);

function checkRevision(revision: string): string {
  if (/^[\w][\w./-]*$/.test(revision) && !revision.split('/').includes('..')) return revision;
  throw new TenonError('config.invalid-option', `revision '${revision}' is no branch, tag or commit`, {
    param: 'revision',
  });
}

async function writeRef(repo: string, revision: string, commit: string): Promise<void> {
  const ref = join(repo, 'refs', revision);
  await makeFolder(dirname(ref));
  await writeFile(ref, commit);
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw new TenonError(
      'config.download-failed',
      `cannot make ${folder}: ${(error as Error).message}; set HF_HUB_CACHE to a folder that can be written`,
      { cause: error },
    );
  }
}

async function checkDiskSpace(repo: string, entries: readonly ListFileEntry[]): Promise<void> {
  const here = await Promise.all(
    entries.map(async (entry) => {
      const blob = join(repo, 'blobs', entry.lfs?.oid ?? entry.oid ?? '');
      const found =
        (await stat(blob).catch(() => undefined)) ??
        (await stat(`${blob}.incomplete`).catch(() => undefined));
      return Math.min(found?.size ?? 0, entry.size);
    }),
  );
  const needed = entries.reduce((sum, entry, i) => sum + entry.size - here[i]!, 0);
  const { bavail, bsize } = await statfs(repo);
  if (needed <= bavail * bsize) return;
  throw new TenonError(
    'config.download-failed',
    `${needed} bytes are to be downloaded, but ${repo} has ${bavail * bsize} free; make room, or set HF_HUB_CACHE to another disk`,
  );
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(maxParallel, items.length) }, worker));
}
