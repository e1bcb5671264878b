import { defineConfig } from 'vitest/config';

// End to end: the built packages as an application sees them. Files run one after another: they share two cores.
export default defineConfig({
  test: { include: ['**/*.test.ts'], testTimeout: 120_000, hookTimeout: 120_000, fileParallelism: false },
});
