/** A machine without compiler or cmake, made of scripts: what the build does there. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const script = fileURLToPath(new URL('../scripts/ensure-toolchain.mjs', import.meta.url));
const aptLine = 'run: sudo apt-get install -y g++ make cmake';

let bin: string;
beforeEach(() => {
  bin = mkdtempSync(join(tmpdir(), 'tenon-bin-'));
  for (const tool of ['sh', 'env']) symlinkSync(`/usr/bin/${tool}`, join(bin, tool));
});
afterEach(() => rmSync(bin, { recursive: true }));

const addTool = (name: string, body: string) =>
  writeFileSync(join(bin, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });

/** An apt-get whose install puts three working tools into `bin`. */
const addAptGet = (exitStatus = 0) => {
  const add = `for tool in g++ make cmake; do printf '#!/bin/sh\\n' > ${bin}/$tool; /usr/bin/chmod +x ${bin}/$tool; done`;
  addTool('apt-get', `echo "apt-get $*"\n[ "$1" = --version ] && exit 0\n[ "$1:${exitStatus}" = install:0 ] && { ${add}; }\nexit ${exitStatus}`); // prettier-ignore
};
/** Lets everyone through, as where no password is asked for; root does not need it. */
const addSudo = () => addTool('sudo', 'shift\nexec "$@"');

const run = () => spawnSync(process.execPath, [script], { env: { PATH: bin }, encoding: 'utf8' });

it('says nothing where everything is there', () => {
  for (const tool of ['g++', 'make', 'cmake']) addTool(tool, 'exit 0');
  expect(run()).toMatchObject({ status: 0, stdout: '', stderr: '' });
});

it("installs Debian's packages where that is allowed", () => {
  addAptGet();
  addSudo();
  addTool('true', 'exit 0');
  const { status, stdout } = run();
  expect(stdout).toContain('apt-get update');
  expect(stdout).toContain('apt-get install -y -q --no-install-recommends g++ make cmake');
  expect(status).toBe(0);
});

it('names the apt-get line, once, where there is no apt-get, it fails, or nobody may run it', () => {
  expect(run()).toMatchObject({ status: 1, stderr: expect.stringContaining(aptLine) });
  addSudo();
  addTool('true', 'exit 0');
  addAptGet(100);
  const failing = run();
  expect(failing).toMatchObject({ status: 1, stderr: expect.stringContaining(aptLine) });
  expect(failing.stderr.match(/error:/g)).toHaveLength(1);
});

// Root needs no sudo.
it.skipIf(process.getuid?.() === 0)('asks for no password', () => {
  addAptGet();
  addTool('sudo', 'exit 1');
  const { status, stdout, stderr } = run();
  expect([status, stdout]).toEqual([1, '']);
  expect(stderr).toContain(aptLine);
});
