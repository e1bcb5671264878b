/** HTTP written by hand: what libraries would not do to a server. */
import { connect } from 'node:net';

/** Numbers in [0, 1) that are the same in every run. */
export function randomSource(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

export function completion(body, headers = 'connection: close\r\n') {
  const json = JSON.stringify(body);
  return `POST /v1/completions HTTP/1.1\r\nhost: x\r\n${headers}content-type: application/json\r\ncontent-length: ${json.length}\r\n\r\n${json}`;
}

export const statusesOf = (text) =>
  [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));

/** A connection that sends `bytes`, and keeps what comes back; `onData` may end it. */
export function open(port, bytes = '', onData = () => {}) {
  const socket = connect(port, '127.0.0.1', () => bytes !== '' && socket.write(bytes));
  const client = { socket, text: '', openedMs: performance.now(), closedMs: Infinity };
  socket.on('data', (data) => {
    client.text += data.toString('latin1');
    onData(client);
  });
  socket.on('error', () => {});
  client.closed = new Promise((resolve) =>
    socket.once('close', () => {
      client.closedMs = performance.now();
      resolve(client);
    }),
  );
  return client;
}

/** Whether a completion, streamed or not, came to its end. */
export function isWhole({ text }) {
  if (!text.startsWith('HTTP/1.1 200 ')) return false;
  return text.includes('text/event-stream')
    ? text.includes('data: [DONE]')
    : text.includes('"finish_reason":"length"');
}

/** `work(i)` for i below `count`, `concurrency` at a time. */
export async function inParallel(count, concurrency, work) {
  let next = 0;
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: Math.min(count, concurrency) }, worker));
}
