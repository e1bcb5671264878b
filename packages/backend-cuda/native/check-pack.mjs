// What `tenon plugin pack` asks before it packs: whether the addon that was built is what is promised. It has code for every GPU, loads
// on systems that are not new, and is not too large.
import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const promisedCode = ['sm_80', 'sm_86', 'sm_89', 'sm_90a', 'compute_90', 'sm_100', 'sm_120'];
/** Minor version of 2: that of Ubuntu 22.04 is 35, of RHEL 9 and Amazon Linux 2023, 34. */
const newestGlibc = 34;
const largestMegabytes = 150;

const addon = fileURLToPath(new URL('build/Release/tenon_cuda.node', import.meta.url));

function* problems() {
  const { code } = createRequire(import.meta.url)(addon).info().runtime;
  const missing = promisedCode.filter((name) => !code.split(' ').includes(name));
  if (missing.length > 0)
    yield `it was built for ${code} alone, without ${missing.join(', ')}; run npm run build:native`;
  const symbols = execFileSync('objdump', ['-T', addon], { encoding: 'utf8', maxBuffer: 2 ** 26 });
  const glibc = Math.max(...[...symbols.matchAll(/GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor)));
  if (glibc > newestGlibc)
    yield `it needs glibc 2.${glibc}; 2.${newestGlibc} is promised: build it on an older distribution`;
  const megabytes = statSync(addon).size / 1e6;
  if (megabytes > largestMegabytes)
    yield `it has ${megabytes.toFixed(0)} MB; ${largestMegabytes} are the most`;
}

for (const problem of problems()) {
  console.error(problem);
  process.exitCode = 1;
}
