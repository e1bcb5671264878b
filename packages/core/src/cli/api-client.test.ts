import { describe, expect, it } from 'vitest';

import { eventData } from './api-client.js';

/** The text in pieces of `size` bytes. */
async function* pieces(text: string, size: number): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

describe('eventData', () => {
  const text =
    ': comment\n\ndata: {"a":"ä€"}\n\ndata: one\ndata: two\n\nevent: x\r\ndata:three\r\n\r\ndata: [DONE]\n\n';

  it.each([1, 2, 3, 7, 1000])('reads events that arrive in pieces of %i bytes', async (size) => {
    const events: string[] = [];
    for await (const data of eventData(pieces(text, size))) events.push(data);
    expect(events).toEqual(['{"a":"ä€"}', 'one\ntwo', 'three', '[DONE]']);
  });
});
