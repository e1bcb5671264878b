// Makes sure that a C++20 compiler, make and cmake are there. Installs Debian's packages where that is allowed (root, or
// sudo without a password); otherwise says what to install, in one error.
import { spawnSync } from 'node:child_process';

const packages = { 'g++': 'g++', make: 'make', cmake: 'cmake' };

const works = (command, args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0;
const missing = () => Object.keys(packages).filter((tool) => !works(tool, ['--version']));

/** The prefix that lets apt-get run as root, or undefined where nothing does. */
function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  return works('sudo', ['-n', 'true']) ? ['sudo', '-n'] : undefined;
}

function aptGet(prefix, args) {
  const [command, ...rest] = [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', ...args];
  return spawnSync(command, rest, { stdio: 'inherit' }).status === 0;
}

const absent = missing();
if (absent.length > 0) {
  const names = absent.map((tool) => packages[tool]).join(' ');
  const prefix = works('apt-get', ['--version']) ? rootPrefix() : undefined;
  if (prefix) {
    console.log(`tenon: ${absent.join(', ')} not found; installing ${names} from Debian's packages`);
    aptGet(prefix, ['update', '-q']);
    aptGet(prefix, ['install', '-y', '-q', '--no-install-recommends', ...names.split(' ')]);
  }
  const still = missing();
  if (still.length > 0) {
    console.error(
      `error: ${still.join(', ')} not found, needed to build the native code; run: ` +
        `sudo apt-get install -y ${still.map((tool) => packages[tool]).join(' ')}`,
    );
    process.exit(1);
  }
}
