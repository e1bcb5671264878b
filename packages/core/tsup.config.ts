import { defineConfig } from 'tsup';

export default defineConfig({
  entry: {
    index: 'src/index.ts',
    'backend/index': 'src/backend/index.ts',
    'backend/host': 'src/backend/host.ts',
    'conformance/index': 'src/conformance/index.ts',
    'extensions/index': 'src/extensions/index.ts',
    'cli/main': 'src/cli/main.ts',
    // What `bench/` measures with; not exported.
    'benchmark/index': 'src/benchmark/index.ts',
    'engine/engine-thread': 'src/engine/engine-thread.ts',
    'plugins/stat-logger-thread': 'src/plugins/stat-logger-thread.ts',
    'plugins/probe-child': 'src/plugins/probe-child.ts',
    'tokenizer/tokenizer-thread': 'src/tokenizer/tokenizer-thread.ts',
  },
  format: 'esm',
  target: 'node20',
  dts: {
    entry: {
      index: 'src/index.ts',
      'backend/index': 'src/backend/index.ts',
      'backend/host': 'src/backend/host.ts',
      'conformance/index': 'src/conformance/index.ts',
      'extensions/index': 'src/extensions/index.ts',
    },
  },
  clean: true,
  splitting: true,
  // A few files instead of hundreds: the server starts sooner, and an installation has few packages (docs/decisions/0014).
  // What is left out: files that are read as they are, and what comes along with those anyway.
  noExternal: [/^(?!@fastify\/swagger-ui$|yaml$|@tenon\/)/],
  // CommonJS among them asks for Node's own modules by `require`.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  metafile: true,
});
