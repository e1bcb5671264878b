// What a backend costs in lines: those of the template, file by file, blank ones not counted, and what adding a backend changes in
// this repository, as git says it of a copy in which `tenon plugin create` has added one. Ends with status 1 where the template is
// over its limit, or a line outside of the new backend's folder has changed.
//   node scripts/backend-lines.mjs        needs `npm run build`
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const maxLines = 1500;
const added = 'packages/backend-my-npu';

const git = (folder, ...args) => execFileSync('git', args, { cwd: folder, encoding: 'utf8' });

/** The template's own code, comments included: without its tests, its examples and what npm needs. */
function templateFiles() {
  const listed = git(root, 'ls-files', '--cached', '--others', '--exclude-standard', 'plugins-template');
  return listed
    .split('\n')
    .filter((path) => /\.(js|ts|mjs|h|hpp|cpp|cc|cmake)$|CMakeLists\.txt$/.test(path))
    .filter((path) => !/^plugins-template\/(examples|tests)\//.test(path));
}

const linesOf = (path) =>
  readFileSync(join(root, path), 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '').length;

function countTemplate() {
  const files = templateFiles().map((path) => ({ path, lines: linesOf(path) }));
  for (const { path, lines } of files) console.log(`${String(lines).padStart(5)}  ${path}`);
  const total = files.reduce((sum, { lines }) => sum + lines, 0);
  console.log(`${String(total).padStart(5)}  lines of the template, of ${maxLines} at most\n`);
  if (files.length === 0 || total > maxLines) process.exitCode = 1;
}

/** Adds a backend to a copy of the repository, and shows what git sees of it. */
function showDiff() {
  const copy = mkdtempSync(join(tmpdir(), 'tenon-backend-lines-'));
  try {
    git(root, 'clone', '--quiet', '--shared', root, copy);
    const tenon = join(root, 'packages/core/bin/tenon.js');
    execFileSync(process.execPath, [tenon, 'plugin', 'create', 'my-npu', '--folder', join(copy, added)]);
    git(copy, 'add', '--all');
    console.log(git(copy, 'diff', '--cached', '--stat=120'));
    const changed = git(copy, 'diff', '--cached', '--name-only').trim().split('\n');
    const outside = changed.filter((path) => !path.startsWith(`${added}/`));
    console.log(`${changed.length} files in ${added}; elsewhere: ${outside.length}`);
    if (changed.length < 5 || outside.length > 0) process.exitCode = 1;
  } finally {
    rmSync(copy, { recursive: true });
  }
}

countTemplate();
showDiff();
