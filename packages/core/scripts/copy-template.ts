/** After tsup: dist/template, what `tenon plugin create` copies. npm leaves files named .gitignore out of tarballs, so it is renamed. */
import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { copyTemplate } from '../src/plugins/create-backend.js';

const dist = fileURLToPath(new URL('../dist/template', import.meta.url));
rmSync(dist, { recursive: true, force: true });
copyTemplate(fileURLToPath(new URL('../../../plugins-template', import.meta.url)), dist);
renameSync(join(dist, '.gitignore'), join(dist, 'gitignore'));
