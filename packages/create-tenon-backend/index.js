#!/usr/bin/env node
/** `npm create tenon-backend my-npu` is `tenon plugin create my-npu`. */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const manifest = createRequire(import.meta.url).resolve('@tenon/core/package.json');
process.argv.splice(2, 0, 'plugin', 'create');
await import(new URL('bin/tenon.js', pathToFileURL(manifest)).href);
