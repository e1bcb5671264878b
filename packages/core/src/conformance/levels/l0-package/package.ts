/** The package: its manifest, its entry, and loading it in threads and processes of any kind. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { BackendModule } from '../../../backend/index.js';
import { readManifest } from '../../../plugins/manifest.js';
import { check, fail, notApplicable, type ConformanceCase } from '../../case.js';
import { exportedSymbols } from '../../elf-symbols.js';
import type { Kit, PackageUnderTest } from '../../kit.js';
import { Elsewhere } from './elsewhere.js';

export function packageCases(): ConformanceCase[] {
  const cases: readonly [string, (kit: Kit) => Promise<void>][] = [
    ['manifest', manifestIsValid],
    ['entry', entryExportsTheBackend],
    ['in-a-child-process', inAChildProcess],
    ['in-worker-threads', inWorkerThreads],
    ['exported-symbols', exportsNodeApiOnly],
    ['beside-another-backend', besideAnother],
  ];
  return cases.map(([name, run]) => ({ name: `L0/package/${name}`, run }));
}

function packageOf({ options }: Kit): PackageUnderTest {
  return options.package ?? notApplicable('the backend was given as an object, not as a package');
}

async function manifestIsValid(kit: Kit): Promise<void> {
  const folder = resolve(packageOf(kit).folder);
  const reading = readManifest(folder);
  check(reading !== undefined, `${folder}/package.json has no field tenon.backend`);
  if ('problems' in reading)
    fail(reading.problems.map(({ reason, remedy }) => `${reason}; ${remedy}`).join('; '));
  const { id } = kit.backend.info;
  check(reading.manifest.id === id, `tenon.backend.id is '${reading.manifest.id}'; the backend says '${id}'`);
}

async function entryExportsTheBackend(kit: Kit): Promise<void> {
  const { href } = pathToFileURL(packageOf(kit).entry);
  const { default: first } = (await import(href)) as { default: BackendModule };
  const { default: again } = (await import(`${href}?again`)) as { default: BackendModule };
  for (const module of [first, again]) {
    check(
      typeof module?.create === 'function',
      `${href} has no backend as its default export; expected { api, create }`,
    );
    const { id } = module.create({ log: () => {} }).info;
    check(
      id === kit.backend.info.id,
      `loaded again, the backend says it is '${id}'; before, '${kit.backend.info.id}'`,
    );
  }
}

async function inAChildProcess(kit: Kit): Promise<void> {
  const elsewhere = await Elsewhere.prepare(kit);
  await elsewhere.inChild();
  await elsewhere.inChild([elsewhere.package.entry, elsewhere.package.entry]);
}

/** One thread after another, and two at a time. */
async function inWorkerThreads(kit: Kit): Promise<void> {
  const elsewhere = await Elsewhere.prepare(kit);
  await elsewhere.inWorker();
  await elsewhere.inWorker();
  await Promise.all([elsewhere.inWorker(), elsewhere.inWorker()]);
}

/** What addons may offer others: two made of different versions of the SDK would otherwise use each other's functions. */
const entryPoints = ['napi_register_module_v1', 'node_api_module_get_api_version_v1'];
/** Linkers' own. */
const linkerSymbols = ['_init', '_fini', '_edata', '_end', '__bss_start'];

async function exportsNodeApiOnly(kit: Kit): Promise<void> {
  const { libraries } = await (await Elsewhere.prepare(kit)).inChild();
  const addons = libraries.filter((library) => library.endsWith('.node'));
  if (addons.length === 0) notApplicable('the backend loads no native addon');
  for (const addon of addons) {
    const symbols = exportedSymbols(readFileSync(addon));
    if (symbols === undefined) notApplicable(`${addon} is no 64-bit ELF file`);
    const others = symbols.filter((name) => !entryPoints.includes(name) && !linkerSymbols.includes(name));
    if (others.length > 0)
      fail(`${addon} shows ${others.length} symbols besides those of Node-API: ${others.slice(0, 5).join(', ')}; build it with hidden visibility and an exports map`);
  }
} // prettier-ignore

async function besideAnother(kit: Kit): Promise<void> {
  const { otherEntry, entry } = packageOf(kit);
  if (otherEntry === undefined) notApplicable('no other backend is installed that it could be loaded beside');
  const elsewhere = await Elsewhere.prepare(kit);
  await elsewhere.inChild([entry, otherEntry]);
  await elsewhere.inChild([entry, otherEntry, entry]);
}
