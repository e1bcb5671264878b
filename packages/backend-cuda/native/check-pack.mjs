// What `tenon plugin pack` asks before it packs: whether the addon that was built has code for every GPU that is promised, and is not larger
// than promised.
import { statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const promised = ['sm_80', 'sm_86', 'sm_89', 'sm_90a', 'compute_90', 'sm_100', 'sm_120'];
const largestMegabytes = 150;

const addon = fileURLToPath(new URL('build/Release/tenon_cuda.node', import.meta.url));
const { runtime } = createRequire(import.meta.url)(addon).info();
const missing = promised.filter((name) => !runtime.code.split(' ').includes(name));
const megabytes = statSync(addon).size / 1e6;
if (missing.length > 0)
  console.error(
    `it was built for ${runtime.code} alone, without ${missing.join(', ')}; run npm run build:native`,
  );
if (megabytes > largestMegabytes)
  console.error(`the addon has ${megabytes.toFixed(0)} MB; ${largestMegabytes} are the most`);
process.exitCode = missing.length > 0 || megabytes > largestMegabytes ? 1 : 0;
