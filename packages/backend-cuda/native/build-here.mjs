// What `npm run build` does in a checkout: compiles the native part for the GPUs of this machine. Without a GPU or nvcc it says so, in one line,
// and is done: nothing else needs the native part, and `tenon plugin pack` refuses a package without it. For all kinds of GPUs, wherever
// there is nvcc: `npm run build:native`.
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

const oldestRelease = 13;

const output = (command, args) => spawnSync(command, args, { encoding: 'utf8' }).stdout ?? '';

/** nvcc and its version: CUDACXX where that is set, else that of PATH, or where NVIDIA's packages put it. */
function findCompiler() {
  const { CUDACXX } = process.env;
  for (const path of CUDACXX ? [CUDACXX] : ['nvcc', '/usr/local/cuda/bin/nvcc']) {
    const release = /release (\d+\.\d+)/.exec(output(path, ['--version']))?.[1];
    if (release !== undefined) return { path, release };
  }
  return undefined;
}

/** "9.0" → 90a-real. */
function architectureOf(capability) {
  const number = capability.replace('.', '');
  return `${number}${number === '90' ? 'a' : ''}-real`;
}

function architecturesHere() {
  const capabilities = output('nvidia-smi', ['--query-gpu=compute_cap', '--format=csv,noheader']);
  const found = capabilities.split('\n').filter((line) => /^\d+\.\d$/.test(line.trim()));
  return [...new Set(found.map((line) => architectureOf(line.trim())))].join(';');
}

/** The exit status. */
function compile({ path }, architectures) {
  const options = [
    '--directory',
    'native',
    '--out',
    'native/build',
    '--parallel',
    String(availableParallelism()),
  ];
  options.push('--CDCMAKE_BUILD_TYPE=Release', '--CDTENON_ALL_GPUS=OFF');
  options.push(`--CDCMAKE_CUDA_ARCHITECTURES=${architectures}`);
  const cwd = fileURLToPath(new URL('..', import.meta.url));
  const env = { ...process.env, CUDACXX: path };
  for (const command of ['configure', 'build']) {
    const { status } = spawnSync('npx', ['cmake-js', command, ...options], { cwd, stdio: 'inherit', env });
    if (status !== 0) return status ?? 1;
  }
  return 0;
}

const skip = (reason, needs) =>
  console.log(`tenon: ${reason}; the native part of @tenon/backend-cuda is not built: ${needs}`);
const architectures = process.platform === 'linux' ? architecturesHere() : '';
const compiler = architectures === '' ? undefined : findCompiler();
if (architectures === '') {
  skip('no NVIDIA GPU here', 'npm run build:native --workspace @tenon/backend-cuda builds it anywhere');
} else if (compiler === undefined || Number.parseFloat(compiler.release) < oldestRelease) {
  const found = compiler === undefined ? 'no nvcc' : `nvcc ${compiler.release}`;
  skip(`${found} found`, `it needs nvcc ${oldestRelease}.0 or newer, and then npm run build --workspace @tenon/backend-cuda`); // prettier-ignore
} else {
  process.exitCode = compile(compiler, architectures);
}
