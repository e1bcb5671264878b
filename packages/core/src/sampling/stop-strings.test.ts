import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StopStringScanner } from './stop-strings.js';

/** Feeds the pieces; returns all the text that came out and the stop string. */
function scan(
  pieces: readonly string[],
  stops: readonly string[],
  include = false,
): [string, string | undefined] {
  const scanner = new StopStringScanner(stops, include);
  let out = '';
  for (const piece of pieces) {
    const { text, stop } = scanner.push(piece);
    out += text;
    if (stop !== undefined) return [out, stop];
  }
  return [out + scanner.flush(), undefined];
}

/** Character by character over the whole text: the first stop string to be complete, the first listed of two at once. */
function expectedScan(
  text: string,
  stops: readonly string[],
  include: boolean,
): [string, string | undefined] {
  for (let end = 1; end <= text.length; end++) {
    const stop = stops.find((entry) => text.slice(0, end).endsWith(entry));
    if (stop !== undefined) return [text.slice(0, include ? end : end - stop.length), stop];
  }
  return [text, undefined];
}

describe('StopStringScanner', () => {
  it('cuts at the same place however the text is split', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '😀'), maxLength: 24 });
    const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '😀'), minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(
        letters,
        fc.array(stop, { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat()),
        fc.boolean(),
        (text, stops, cuts, include) => {
          const places = [
            ...new Set([0, ...cuts.map((cut) => cut % (text.length + 1)), text.length]),
          ].toSorted((a, b) => a - b);
          const pieces = places.slice(1).map((place, i) => text.slice(places[i], place));
          expect(scan(pieces, stops, include)).toEqual(expectedScan(text, stops, include));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('holds back what may begin a stop string, and no half of a surrogate pair', () => {
    const scanner = new StopStringScanner(['abc'], false);
    expect(scanner.push('xyza')).toEqual({ text: 'xy', stop: undefined });
    expect(scanner.push('b')).toEqual({ text: 'z', stop: undefined });
    expect(scanner.flush()).toBe('ab');
    expect(new StopStringScanner(['abcd'], false).push('x😀yz').text).toBe('x');
  });

  it('emits everything at once when the stop string belongs to the output', () => {
    const scanner = new StopStringScanner(['abc'], true);
    expect(scanner.push('xab').text).toBe('xab');
    expect(scanner.push('cd')).toEqual({ text: 'c', stop: 'abc' });
  });
});
