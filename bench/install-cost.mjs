#!/usr/bin/env node
/**
 * What an application pays for Tenon: megabytes, packages and seconds to install, and the time to find plugins among 300 direct
 * dependencies. Installs packed packages, and theirs from npm's registry, into empty folders.
 * Usage: node bench/install-cost.mjs; needs `npm run build`. Ends with status 1 where a limit is exceeded.
 */
import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const repository = fileURLToPath(new URL('..', import.meta.url));

/** What is promised. Also checked by tests/registry.test.ts and tests/install-cost.test.ts. */
export const limits = { coreMegabytes: 30, corePackages: 40, discoveryMs: 50, doctorMs: 2000 };

/** An application's folder without anything installed. */
export function emptyApp(folder) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'app', private: true }));
  return folder;
}

/** Disk space of the files under a folder, and the number of packages. */
export function installed(folder) {
  const entries = readdirSync(folder, { withFileTypes: true, recursive: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  const bytes = files.reduce((sum, file) => sum + lstatSync(file).blocks * 512, 0);
  const packages = files.filter((file) => /node_modules\/(@[^/]+\/)?[^/]+\/package\.json$/.test(file));
  return { megabytes: bytes / 1e6, packages: packages.length };
}

/** Gives the application 300 direct dependencies, as large as usual ones; every 30th has a backend that may not run here. */
export function addDependencies(app, count = 300) {
  const { dependencies = {}, ...manifest } = JSON.parse(readFileSync(join(app, 'package.json'), 'utf8'));
  for (let i = 0; i < count; i++) {
    const name = i % 2 === 0 ? `package-${i}` : `@scope-${i % 7}/package-${i}`;
    const backend = { id: `backend-${i}`, entry: './index.js', api: '^1.0', platforms: ['plan9-mips'] };
    const folder = join(app, 'node_modules', name);
    const filler = Object.fromEntries(
      Array.from({ length: 40 }, (_, k) => [`script-${k}`, `node script-${k}.js --flag`]),
    );
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'index.js'), '');
    writeFileSync(
      join(folder, 'package.json'),
      JSON.stringify(
        { name, version: '1.0.0', scripts: filler, ...(i % 30 === 0 && { tenon: { backend } }) },
        null,
        2,
      ),
    );
    dependencies[name] = '1.0.0';
  }
  writeFileSync(join(app, 'package.json'), JSON.stringify({ ...manifest, dependencies }));
}

/** Milliseconds of a first discovery in a fresh process, median of 5. */
export function discoveryMs(app) {
  const module = pathToFileURL(join(repository, 'packages/core/src/plugins/discover.ts')).href;
  const program = `import { discoverBackends } from '${module}';
    const start = performance.now();
    const found = discoverBackends({ plugins: [], root: ${JSON.stringify(app)}, env: {} });
    console.log(JSON.stringify([performance.now() - start, found.length]));`;
  const runs = Array.from({ length: 5 }, () =>
    JSON.parse(
      execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
        cwd: repository,
        encoding: 'utf8',
      }),
    ),
  );
  return { ms: median(runs.map(([ms]) => ms)), found: runs[0][1] };
}

/** Milliseconds of `tenon doctor` in an application, median of 5. */
export function doctorMs(app, tenon = join(app, 'node_modules/.bin/tenon')) {
  return median(
    Array.from({ length: 5 }, () => {
      const start = performance.now();
      execFileSync(process.execPath, [tenon, 'doctor'], { cwd: app, stdio: 'ignore' });
      return performance.now() - start;
    }),
  );
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

function pack(out) {
  const npm = (name) =>
    execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', out], {
      cwd: join(repository, 'packages', name),
      stdio: 'ignore',
    });
  npm('core');
  npm('model-stories');
  const tenon = join(repository, 'packages/core/bin/tenon.js');
  execFileSync(process.execPath, [
    tenon,
    'plugin',
    'pack',
    join(repository, 'packages/backend-cpu'),
    '--out',
    out,
  ]);
  const tarball = (start) =>
    join(
      out,
      readdirSync(out).find((file) => new RegExp(`^tenon-${start}-\\d`).test(file)),
    );
  const platform = `${process.platform}-${process.arch}`;
  return {
    core: tarball('core'),
    model: tarball('model-stories'),
    backend: [tarball(`backend-cpu-${platform}`), tarball('backend-cpu')],
  };
}

/** Seconds of `npm install` with npm's cache filled, as on a machine that has installed it before. */
function install(app, tarballs) {
  const run = () =>
    execFileSync('npm', ['install', '--no-audit', '--no-fund', ...tarballs], {
      cwd: app,
      stdio: 'ignore',
    });
  run();
  rmSync(join(app, 'node_modules'), { recursive: true });
  const start = performance.now();
  run();
  return (performance.now() - start) / 1000;
}

function main() {
  const folder = mkdtempSync(join(tmpdir(), 'tenon-install-cost-'));
  try {
    const { core, model, backend } = pack(folder);
    const rows = [];
    for (const [what, tarballs] of [
      ['@tenon/core', [core]],
      ['@tenon/core and @tenon/backend-cpu', [core, ...backend]],
      ['the same and the embedded model', [core, ...backend, model]],
    ]) {
      const app = emptyApp(join(folder, `app-${rows.length}`));
      rows.push({ what, app, seconds: install(app, tarballs), ...installed(join(app, 'node_modules')) });
    }
    for (const { what, megabytes, packages, seconds } of rows)
      console.log(`${what}: ${megabytes.toFixed(1)} MB, ${packages} packages, ${seconds.toFixed(1)} s`);
    const { app } = rows[1];
    addDependencies(app);
    const discovery = discoveryMs(app);
    const doctor = doctorMs(app);
    console.log(`discovery among 300 dependencies: ${discovery.ms.toFixed(1)} ms (${discovery.found} found)`);
    console.log(`tenon doctor: ${doctor.toFixed(0)} ms`);
    const [{ megabytes, packages }] = rows;
    const isOver =
      megabytes > limits.coreMegabytes ||
      packages > limits.corePackages ||
      discovery.ms > limits.discoveryMs ||
      doctor > limits.doctorMs;
    if (isOver) throw new Error(`over the limits: ${JSON.stringify(limits)}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
