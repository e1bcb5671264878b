import { defineConfig } from 'vitest/config';

// End to end: the built packages as an application sees them. Two files at a time: they mostly wait for processes of their own.
export default defineConfig({
  test: { include: ['**/*.test.ts'], testTimeout: 120_000, hookTimeout: 120_000, maxWorkers: 2 },
});
