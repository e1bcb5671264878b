import { defineConfig } from 'tsup';

export default defineConfig({
  entry: {
    index: 'src/index.ts',
    'backend/index': 'src/backend/index.ts',
    'conformance/index': 'src/conformance/index.ts',
    'cli/main': 'src/cli/main.ts',
    // What `bench/` measures with; not exported.
    'benchmark/index': 'src/benchmark/index.ts',
    'engine/engine-thread': 'src/engine/engine-thread.ts',
    'tokenizer/tokenizer-thread': 'src/tokenizer/tokenizer-thread.ts',
  },
  format: 'esm',
  target: 'node20',
  dts: {
    entry: {
      index: 'src/index.ts',
      'backend/index': 'src/backend/index.ts',
      'conformance/index': 'src/conformance/index.ts',
    },
  },
  clean: true,
  splitting: true,
  // One file instead of hundreds: the server starts sooner.
  noExternal: ['typebox'],
});
