import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { renderApiDocs } from './api-docs.js';

it('is what docs/api.md holds (else run `npm run generate`)', () => {
  const docs = new URL('../../../../docs/api.md', import.meta.url);
  expect(readFileSync(docs, 'utf8')).toBe(renderApiDocs());
});
