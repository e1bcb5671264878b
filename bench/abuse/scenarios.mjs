/**
 * What users and networks do to a server. Each scenario returns figures, and the requirements that did not hold as `wrong`.
 * `scale` 1 is the full length; the server cuts clients after `clientTimeoutMs`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { completion, inParallel, isWhole, open, randomSource, statusesOf } from './client.mjs';

const long = { ignore_eos: true, temperature: 1 };
const promptOf = (length) => Array.from({ length }, (_, i) => 3 + (i % 7));

/** Requests that end well beside the abuse; the longest silence within one of their streams is a figure. */
async function bystanders(port, count, isOver) {
  let longestGapMs = 0;
  let numWhole = 0;
  let numFailed = 0;
  await inParallel(count, count, async () => {
    while (!isOver()) {
      let lastMs = Infinity;
      const body = { prompt: promptOf(5), max_tokens: 40, stream: true, ...long };
      const client = await open(port, completion(body), () => {
        longestGapMs = Math.max(longestGapMs, performance.now() - lastMs);
        lastMs = performance.now();
      }).closed;
      if (isWhole(client)) numWhole++;
      else numFailed++;
    }
  });
  return { numWhole, numFailed, longestGapMs };
}

async function beside(port, count, abuse) {
  let isOver = false;
  const others = bystanders(port, count, () => isOver);
  const result = await abuse();
  isOver = true;
  return { ...result, others: await others };
}

/** Dropped connections: before the first token, in mid-stream, at the last token, and in a stall after preemption. */
export async function cancels({ server, scale }) {
  const { port } = server;
  const random = randomSource(1);
  const phases = ['before', 'mid', 'end', 'stalled', 'none'];
  const happened = { before: 0, mid: 0, end: 0, stalled: 0, whole: 0, failed: 0 };
  const before = await server.metrics();
  await inParallel(Math.round(10_000 * scale), 64, async () => {
    const phase = phases[Math.floor(random() * phases.length)];
    const maxTokens = 2 + Math.floor(random() * 60);
    const body = {
      prompt: promptOf(1 + Math.floor(random() * 100)),
      max_tokens: maxTokens,
      n: random() < 0.2 ? 2 : 1,
      stream: phase === 'before' || phase === 'none' ? random() < 0.6 : true,
      ...long,
    };
    happened[await dropAt(phase, port, body, 1 + Math.floor(random() * (maxTokens - 1)), random() * 8)]++;
  });
  const after = await server.metrics();
  const preempted = after('num_preempted_ends_total') - before('num_preempted_ends_total');
  const figures = {
    ...happened,
    'while preempted': preempted,
    preemptions: after('num_preemptions_total') - before('num_preemptions_total'),
  };
  const least = Math.max(1, Math.round(50 * scale));
  const wrong = ['before', 'mid', 'end', 'whole', 'while preempted']
    .filter((name) => figures[name] < least)
    .map((name) => `only ${figures[name]} ${name}`);
  if (happened.failed > 0) wrong.push(`${happened.failed} requests were not answered`);
  return { figures, wrong };
}

/** Runs a request and drops it as `phase` says; returns what really happened. */
async function dropAt(phase, port, body, dropEvent, delayMs) {
  let dropped;
  let lastDataMs = Infinity;
  const drop = (client, where) => {
    dropped ??= where;
    client.socket.destroy();
  };
  const client = open(port, completion(body), () => {
    lastDataMs = performance.now();
    const { text } = client;
    if (dropped !== undefined) return;
    if (text.includes('"finish_reason":"length"')) {
      if (phase === 'end') drop(client, 'end');
      return;
    }
    if (phase === 'mid' && text.split('data: ').length > dropEvent) drop(client, 'mid');
  });
  const watch = setInterval(() => {
    if (phase === 'before' && client.text === '' && performance.now() - client.openedMs > delayMs)
      drop(client, 'before');
    // Steps take a millisecond or two: whoever is silent for longer has lost its blocks.
    if (phase === 'stalled' && performance.now() - lastDataMs > 12) drop(client, 'stalled');
  }, 1);
  await client.closed;
  clearInterval(watch);
  return dropped ?? (isWhole(client) ? 'whole' : 'failed');
}

/**
 * Connections that say nothing, or stop in the middle of headers or a body: closed in time; the last get 408, the others may.
 */
export async function halfOpen({ server, scale, clientTimeoutMs }) {
  const whole = completion({ prompt: promptOf(5), max_tokens: 5 });
  const kinds = { nothing: '', headers: whole.slice(0, 40), body: whole.slice(0, -10) };
  return beside(server.port, 4, async () => {
    const perKind = Math.max(5, Math.round(200 * scale));
    const clients = Object.entries(kinds).flatMap(([kind, bytes]) =>
      Array.from({ length: perKind }, () => ({ kind, ...pick(open(server.port, bytes)) })),
    );
    await Promise.race([Promise.all(clients.map(({ client }) => client.closed)), sleep(5 * clientTimeoutMs)]);
    return cutFigures(clients, clientTimeoutMs, ({ kind }) => (kind === 'body' ? ['408'] : ['', '408']));
  });
}

const pick = (client) => ({ client });

/** One byte at a time, so that no connection is ever silent: closed in time, with 408. */
export async function slowBodies({ server, scale, clientTimeoutMs }) {
  const whole = completion({ prompt: promptOf(900), max_tokens: 5 });
  const starts = { headers: 30, body: whole.indexOf('\r\n\r\n') + 4 };
  return beside(server.port, 4, async () => {
    const perKind = Math.max(5, Math.round(100 * scale));
    const clients = Object.entries(starts).flatMap(([kind, start]) =>
      Array.from({ length: perKind }, () => ({ kind, at: start, client: open(server.port, whole.slice(0, start)) })),
    ); // prettier-ignore
    const drip = setInterval(() => {
      for (const entry of clients) if (entry.client.socket.writable) entry.client.socket.write(whole[entry.at++]);
    }, 50); // prettier-ignore
    await Promise.race([Promise.all(clients.map(({ client }) => client.closed)), sleep(5 * clientTimeoutMs)]);
    clearInterval(drip);
    return cutFigures(clients, clientTimeoutMs, () => ['408']);
  });
}

function cutFigures(clients, clientTimeoutMs, expected) {
  const lives = clients.map(({ client }) => client.closedMs - client.openedMs);
  const numOpen = lives.filter((life) => life === Infinity).length;
  const numOdd = clients.filter(
    (entry) => !expected(entry).includes(statusesOf(entry.client.text).join()),
  ).length;
  for (const { client } of clients) client.socket.destroy();
  const wrong = [];
  if (numOpen > 0) wrong.push(`${numOpen} connections were left open for ${5 * clientTimeoutMs} ms`);
  if (numOdd > 0) wrong.push(`${numOdd} had not the answer they should have`);
  return {
    figures: {
      connections: clients.length,
      'closed after (s)': `${(Math.min(...lives) / 1000).toFixed(1)}–${(Math.max(...lives) / 1000).toFixed(1)}`,
    },
    wrong,
  };
}

/**
 * Streams that nobody reads, longer than what the system's buffers take (some 4 MB): cut in time with a line in the log, each
 * with little of its answer held for it.
 */
export async function slowReaders({ server, scale, clientTimeoutMs }) {
  const count = Math.max(4, Math.round(20 * scale));
  const before = server.memoryMib;
  const linesBefore = cutLines(server).length;
  return beside(server.port, 4, async () => {
    const body = { prompt: promptOf(5), max_tokens: 950, n: 32, stream: true, ...long };
    const clients = Array.from({ length: count }, () => {
      const client = open(server.port, completion(body));
      client.socket.pause();
      return client;
    });
    let peak = before;
    const deadline = performance.now() + 60_000;
    while (cutLines(server).length - linesBefore < count && performance.now() < deadline) {
      peak = Math.max(peak, server.memoryMib);
      await sleep(100);
    }
    const lines = cutLines(server).slice(linesBefore);
    const held = lines.map((line) => Number(/with (\d+) bytes/.exec(line)[1]));
    for (const { socket } of clients) socket.destroy();
    const wrong = [];
    if (lines.length < count) wrong.push(`${count - lines.length} of ${count} were not cut`);
    return {
      figures: {
        connections: count,
        cut: lines.length,
        'held for each (KiB)': held.length === 0 ? '-' : `≤ ${(Math.max(...held) / 1024).toFixed(0)}`,
        'memory at most (MiB)': `+${(peak - before).toFixed(0)}`,
        'after (s)': clientTimeoutMs / 1000,
      },
      wrong,
    };
  });
}

const cutLines = ({ log }) => log.split('\n').filter((line) => line.includes('has read nothing for'));

/** As many connections at once, each with a request: all are answered. */
export async function manyConnections({ server, scale }) {
  const count = Math.max(100, Math.round(1000 * scale));
  const startMs = performance.now();
  const clients = await Promise.all(
    Array.from({ length: count }, (_, i) => {
      const body = { prompt: promptOf(5), max_tokens: 20, stream: i % 2 === 0, ...long };
      return open(server.port, completion(body)).closed;
    }),
  );
  const numWhole = clients.filter(isWhole).length;
  return {
    figures: { connections: count, answered: numWhole, seconds: ((performance.now() - startMs) / 1000).toFixed(1) },
    wrong: numWhole === count ? [] : [`${count - numWhole} were not answered`],
  }; // prettier-ignore
}

/** What is no request, or too large a one: refused with the right status, and only that connection ends. */
export async function malformed({ server, scale }) {
  const post = (headers, body) =>
    `POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${headers}\r\n${body}`;
  const json = 'content-type: application/json\r\n';
  const cases = [
    ['oversize headers', `GET /health HTTP/1.1\r\nhost: x\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`, 431],
    ['an oversize line', `GET /${'a'.repeat(20_000)} HTTP/1.1\r\n\r\n`, 431],
    ['a thousand headers', `GET /health HTTP/1.1\r\nhost: x\r\n${'a: 0123456789\r\n'.repeat(2000)}\r\n`, 431],
    ['an oversize body', post(`${json}content-length: 99999999\r\n`, '{'), 413],
    ['chunks without end', post(`${json}transfer-encoding: chunked\r\n`, `${'fffff\r\n' + 'a'.repeat(0xfffff) + '\r\n'}`.repeat(34)), 413],
    ['no HTTP', 'hello\r\n\r\n', 400],
    ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc', 400],
    ['a negative length', post('content-length: -5\r\n', ''), 400],
    ['two lengths', post('content-length: 1\r\ncontent-length: 2\r\n', 'ab'), 400],
    ['a length and chunks', post('content-length: 3\r\ntransfer-encoding: chunked\r\n', '0\r\n\r\n'), 400],
    ['a bad chunk', post(`${json}transfer-encoding: chunked\r\n`, 'zz\r\n'), 400],
    ['a bad path', 'GET /%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n', 400],
    ['deep nesting', post(`${json}content-length: 1000000\r\n`, '['.repeat(1_000_000)), 400],
    ['many prompts', completion({ prompt: Array.from({ length: 2000 }, () => [3]) }), 400],
    ['many choices', completion({ prompt: [3], n: 1_000_000 }), 400],
  ]; // prettier-ignore
  const rounds = Math.max(1, Math.round(20 * scale));
  const odd = new Set();
  await inParallel(rounds * cases.length, 16, async (i) => {
    const [name, bytes, status] = cases[i % cases.length];
    const client = open(server.port, bytes);
    await Promise.race([client.closed, sleep(10_000)]);
    if (statusesOf(client.text).join() !== String(status)) odd.add(`${name}: ${statusesOf(client.text)} for ${status}`);
    client.socket.destroy();
  }); // prettier-ignore
  return { figures: { kinds: cases.length, requests: rounds * cases.length }, wrong: [...odd] };
}

/** Many requests on a connection before the first answer: answered in order, or all aborted with their connection. */
export async function pipelining({ server, scale }) {
  const depth = 50;
  const numConnections = Math.max(4, Math.round(40 * scale));
  const requests = Array.from({ length: depth }, (_, i) =>
    completion({ prompt: promptOf(5), max_tokens: 1 + (i % 9), ...long }, i === depth - 1 ? undefined : ''),
  );
  const clients = await Promise.all(
    Array.from({ length: numConnections }, (_, i) => {
      const client = open(server.port, requests.join(''));
      if (i % 2 === 1) setTimeout(() => client.socket.destroy(), 5 + 3 * i);
      return client.closed;
    }),
  );
  const expected = Array.from({ length: depth }, (_, i) => 1 + (i % 9)).join();
  const read = clients.filter((_, i) => i % 2 === 0);
  const numRight = read.filter(
    ({ text }) => [...text.matchAll(/"completion_tokens":(\d+)/g)].map(([, n]) => n).join() === expected,
  ).length;
  return {
    figures: { connections: numConnections, 'requests on each': depth, 'answered in order': numRight },
    wrong: numRight === read.length ? [] : [`${read.length - numRight} connections had wrong answers`],
  };
}
