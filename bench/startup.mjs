// Process start to /health 200 and to the first token, resident memory against weights and KV cache, and CPU while idle, of `tenon serve`.
// usage: node bench/startup.mjs [--rounds 3] [--idle 10] [MODEL…]        (the embedded model without MODEL; Linux)
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options, positionals } = parseArgs({
  options: { rounds: { type: 'string', default: '3' }, idle: { type: 'string', default: '10' } },
  allowPositionals: true,
});
const tenon = fileURLToPath(new URL('../node_modules/.bin/tenon', import.meta.url));

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
const residentMiB = (pid) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;
/** CPU time of all threads in milliseconds. */
function cpuMs(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
const mebibytes = (text, pattern) => {
  const [, value, unit] = pattern.exec(text) ?? [undefined, 0, 'MiB'];
  return Number(value) * (unit === 'GiB' ? 1024 : 1);
};

async function measure(model, idleSeconds) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const start = performance.now();
  const child = spawn(tenon, ['serve', ...(model === undefined ? [] : [model]), '--port', String(port)]);
  let printed = '';
  child.stdout.on('data', (data) => (printed += data));
  child.stderr.on('data', (data) => (printed += data));
  while (
    !(await fetch(`${url}/health`).then(
      (response) => response.ok,
      () => false,
    ))
  ) {
    // prettier-ignore
    if (child.exitCode !== null) throw new Error(`no server; it printed: ${printed}`);
    await sleep(5);
  }
  const readyMs = performance.now() - start;
  const body = JSON.stringify({ prompt: [5, 6, 7], max_tokens: 1 });
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body });
  if (!response.ok) throw new Error(await response.text());
  await response.text();
  const firstTokenMs = performance.now() - start;
  await sleep(500);
  const before = cpuMs(child.pid);
  await sleep(idleSeconds * 1000);
  const idlePercent = (cpuMs(child.pid) - before) / (idleSeconds * 10);
  const rss = residentMiB(child.pid);
  const weights = mebibytes(printed, /^model .* ([\d.]+) (MiB|GiB)$/m);
  const kv = mebibytes(printed, /tokens, ([\d.]+) (MiB|GiB)/);
  child.kill('SIGTERM');
  await new Promise((resolve) => child.once('exit', resolve));
  return { readyMs, firstTokenMs, rss, weights, kv, idlePercent };
}

for (const model of positionals.length > 0 ? positionals : [undefined]) {
  for (let round = 0; round < Number(options.rounds); round++) {
    const m = await measure(model, Number(options.idle));
    console.log(
      `${model ?? 'embedded model'}: ready ${m.readyMs.toFixed(0)} ms, first token ${m.firstTokenMs.toFixed(0)} ms, ` +
        `RSS ${m.rss.toFixed(0)} MiB = weights ${m.weights.toFixed(0)} + KV ${m.kv.toFixed(0)} + ${(m.rss - m.weights - m.kv).toFixed(0)}, ` +
        `idle ${m.idlePercent.toFixed(2)} % CPU`,
    );
  }
}
