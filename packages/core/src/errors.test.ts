import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { asTenonError, errorCodes, TenonError } from './errors.js';

const page = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8');

describe('the table of errors', () => {
  it('holds the same codes as docs/errors.md', () => {
    const documented = [...page.matchAll(/^\| `([a-z]+\.[a-z-]+)` \|/gm)].map((match) => match[1]);
    expect(documented.toSorted()).toEqual(Object.keys(errorCodes).toSorted());
  });

  it('names the kind first in every code', () => {
    for (const [code, kind] of Object.entries(errorCodes)) expect(code.startsWith(`${kind}.`)).toBe(true);
  });
});

describe('TenonError', () => {
  it('survives crossing a thread', () => {
    const error = new TenonError('capacity.queue-full', 'full', { retryAfterSeconds: 2, param: 'n' });
    const copy = TenonError.fromJSON(structuredClone(error.toJSON()));
    expect(copy).toMatchObject({
      code: 'capacity.queue-full',
      message: 'full',
      retryAfterSeconds: 2,
      param: 'n',
    });
    expect(copy.kind).toBe('capacity');
  });

  it('wraps unknown failures and keeps their cause', () => {
    const cause = new Error('boom');
    expect(asTenonError(cause)).toMatchObject({ code: 'internal.invariant', message: 'boom', cause });
  });
});
