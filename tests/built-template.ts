/** `plugins-template`, built as a vendor builds it, where that has not been done. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const templateFolder = fileURLToPath(new URL('../plugins-template', import.meta.url));
const addon = join(templateFolder, 'native/build/Release/tenon_backend_template.node');

/** Takes a minute, once. */
export function buildTemplate(): void {
  if (!existsSync(addon)) execFileSync('npm', ['run', 'build'], { cwd: templateFolder, stdio: 'pipe' });
}
