#!/usr/bin/env node
// Puts results of compare.mjs into docs/cuda.md, each between the marks of its model. usage: node bench/gpu/write-docs.mjs RESULT.json…
import { readFileSync, writeFileSync } from 'node:fs';

import { markdownOf } from './report.mjs';

const docs = new URL('../../docs/cuda.md', import.meta.url);
let text = readFileSync(docs, 'utf8');
for (const file of process.argv.slice(2)) {
  const report = JSON.parse(readFileSync(file, 'utf8'));
  if (report.scale !== 1) throw new Error(`${file} was made with --scale ${report.scale}; expected 1`);
  const section = new RegExp(`(?<=<!-- ${report.model} -->\n)[^]*?(?=<!-- end -->)`);
  if (!section.test(text)) throw new Error(`${docs.pathname} has no section for ${report.model}`);
  text = text.replace(section, () => `${markdownOf(report)}\n`);
}
writeFileSync(docs, text);
