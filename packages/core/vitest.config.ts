import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = (path: string): string => fileURLToPath(new URL(`src/${path}`, import.meta.url));

export default defineConfig({
  // Examples import core by its name; here they meet its sources.
  resolve: {
    alias: {
      '@tenon/core/backend/host': source('backend/host.ts'),
      '@tenon/core/backend': source('backend/index.ts'),
    },
  },
  test: { include: ['src/**/*.test.ts', 'tests/**/*.test.ts'], testTimeout: 60_000 },
});
