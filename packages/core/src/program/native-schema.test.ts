import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { renderSchemaHeader } from './native-schema.js';

it('is what schema.gen.h holds (else run `npm run generate`)', () => {
  const header = new URL('../../native/include/tenon/schema.gen.h', import.meta.url);
  expect(readFileSync(header, 'utf8')).toBe(renderSchemaHeader());
});
