import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { exportedSymbols } from './elf-symbols.js';

it.runIf(process.platform === 'linux')(
  'reads what an ELF file exports: of Node, the functions of Node-API',
  () => {
    const symbols = exportedSymbols(readFileSync(process.execPath));
    expect(symbols).toContain('napi_create_function');
    // used by Node, and defined elsewhere
    expect(symbols).not.toContain('malloc');
  },
);

it('says of other files that it does not know', () => {
  expect(exportedSymbols(Buffer.alloc(100))).toBeUndefined();
  expect(exportedSymbols(Buffer.from('#!/bin/sh'))).toBeUndefined();
});
