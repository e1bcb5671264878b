// Whether the conformance kit sees what can be wrong with a backend: breaks plugins-template in one place at a time (scripts/mutants.mjs), builds it,
// and runs `tenon conform` on it, level by level until a case fails. Ends with 1 where a fault stays unseen, or is seen in the wrong place.
//   node scripts/mutation-check.mjs [words of names...]        (after npm run build; half a minute per fault and core)
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mutants } from './mutants.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const template = join(root, 'plugins-template');
const tenon = join(root, 'packages/core/bin/tenon.js');
// Inside the repository, so that core is found; git ignores it.
const work = join(root, 'build/mutants');
const sources = ['kernels', 'sim', 'src'];
const lastLevel = 4;

/** Resolves with the exit status and what was printed. */
function run(command, args, cwd) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    let printed = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (printed += data));
    child.once('exit', (status) => resolve({ status, printed }));
  });
}

function prepare(folder) {
  mkdirSync(folder, { recursive: true });
  cpSync(template, folder, {
    recursive: true,
    filter: (path) => !/examples|node_modules|native\/build/.test(path),
  });
}

function mutate(folder, { name, edits }) {
  for (const part of sources)
    cpSync(join(template, 'native', part), join(folder, 'native', part), { recursive: true });
  for (const [file, find, replacement, how] of edits) {
    const path = join(folder, 'native', file);
    const text = readFileSync(path, 'utf8');
    const parts = text.split(find);
    if (parts.length < 2 || (how !== 'all' && parts.length > 2))
      throw new Error(`'${name}': ${file} has ${parts.length - 1} times: ${find}`);
    writeFileSync(path, parts.join(replacement));
  }
}

/** Failing cases, level by level until one is where the fault is. */
async function conform(folder, where) {
  const failures = [];
  for (let level = 0; level <= lastLevel; level++) {
    const report = join(folder, 'report.json');
    rmSync(report, { force: true });
    const range = `${level}-${level}`;
    const args = [
      'conform',
      '--plugin',
      folder,
      '--backend',
      'template',
      '--level',
      range,
      '--output',
      report,
    ];
    const { status, printed } = await run(process.execPath, [tenon, ...args], root);
    if (status === 0) continue;
    failures.push(...(readReport(report)?.failures ?? [{ case: `L${level}`, message: printed.trim() }]));
    if (failures.some((failure) => says(failure, where))) break;
  }
  return failures;
}

const says = (failure, where) => where.test(`${failure.case} ${failure.message}`);

function readReport(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

async function check(folder, mutant) {
  mutate(folder, mutant);
  const build = await run('npm', ['run', 'build:native'], folder);
  if (build.status !== 0) return { mutant, verdict: 'does not build', detail: build.printed.slice(-2000) };
  const failures = await conform(folder, mutant.where);
  if (failures.length === 0) return { mutant, verdict: 'UNSEEN', detail: '' };
  const said = failures.find((failure) => says(failure, mutant.where));
  const shown = said ?? failures[0];
  const detail = `${failures.length} cases: ${shown.case}: ${shown.message.split('\n')[0].slice(0, 160)}`;
  return { mutant, verdict: said === undefined ? 'elsewhere' : 'caught', detail };
}

const wanted = process.argv.slice(2);
const queue = mutants.filter(({ name }) => wanted.length === 0 || wanted.some((word) => name.includes(word)));
const results = [];

async function worker(folder) {
  prepare(folder);
  for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
    const result = await check(folder, mutant);
    results.push(result);
    console.log(`${result.verdict.padEnd(10)} ${mutant.name}\n           ${result.detail}`);
  }
}

rmSync(work, { recursive: true, force: true });
await Promise.all(Array.from({ length: availableParallelism() }, (_, i) => worker(join(work, String(i)))));
const caught = results.filter(({ verdict }) => verdict === 'caught').length;
console.log(`\n${caught} of ${results.length} faults caught, and where they are`);
process.exitCode = caught === results.length ? 0 : 1;
