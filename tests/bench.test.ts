/** `tenon bench`: runs with the embedded model, and the figures it leaves. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, describe, expect, it } from 'vitest';

import { run, serve } from './serve-process.js';

const folder = mkdtempSync(join(tmpdir(), 'tenon-bench-'));
const file = join(folder, 'figures.json');
afterAll(() => rmSync(folder, { recursive: true }));

function figures(): Record<string, unknown> {
  return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
}

describe('tenon bench', () => {
  it('times batches of requests', async () => {
    const sizes = ['--input-len', '8', '--output-len', '4', '--batch-size', '3'];
    const { code, stdout } = await run(['bench', 'latency', ...sizes, '--num-iters-warmup', '1', '--num-iters', '2', '--output-json', file]); // prettier-ignore
    expect(code).toBe(0);
    expect(stdout).toContain('3 requests at once, 8 tokens in, 4 out');
    const { avg_latency: average, latencies, percentiles } = figures();
    expect(latencies).toHaveLength(2);
    expect(average).toBeGreaterThan(0);
    expect(Object.keys(percentiles as object)).toEqual(['10', '25', '50', '75', '90', '99']);
  });

  it('counts the tokens of many requests', async () => {
    const { code } = await run(['bench', 'throughput', '--num-prompts', '6', '--random_input_len=8:16', '--output-len', '4', '--output-json', file]); // prettier-ignore
    expect(code).toBe(0);
    const {
      duration,
      completed,
      failed,
      total_output_tokens: numTokens,
      output_throughput: rate,
    } = figures();
    expect([completed, failed, numTokens]).toEqual([6, 0, 24]);
    expect(rate).toBeCloseTo(24 / Number(duration));
  });

  it('names the benchmarks there are', async () => {
    const help = await run(['bench']);
    expect(help.code).toBe(0);
    for (const name of ['latency', 'throughput', 'serve', 'startup']) expect(help.stdout).toContain(name);
    const { code, stderr } = await run(['bench', 'speed']);
    expect(code).toBe(2);
    expect(stderr).toContain("no benchmark 'speed'; expected latency, throughput, serve, startup");
  });

  it('refuses figures of answers that are shorter than asked for', async () => {
    const { code, stderr } = await run(['bench', 'throughput', '--num-prompts', '2', '--input-len', '30', '--output-len', '50', '--max-model-len', '64']); // prettier-ignore
    expect(code).toBe(1);
    expect(stderr).toMatch(/request\.benchmark-failed.* 34 tokens of 50/);
  });

  it('starts a server and looks at its memory and idle CPU', async () => {
    const { code } = await run(['bench', 'startup', '--num-iters', '1', '--idle-time', '0.5', '--output-json', file, '--', '--num-gpu-blocks-override', '64']); // prettier-ignore
    expect(code).toBe(0);
    const { startup_times: starts, first_token_times: firstTokens, resident_mib: resident } = figures();
    expect(Number(starts)).toBeLessThan(Number(firstTokens));
    expect(figures()['weights_mib']).toBeCloseTo(11, 0);
    expect(figures()['kv_cache_mib']).toBeGreaterThan(0);
    expect(Number(resident)).toBeGreaterThan(60);
    expect(figures()['idle_cpu_percent']).toHaveLength(1);
  });
});

describe('tenon bench serve', () => {
  it('loads a server over HTTP, with all figures that vLLM has', async () => {
    await using server = await serve(['--disable-access-log']);
    const bench = [
      'bench',
      'serve',
      '--base-url',
      server.url,
      '--num-prompts',
      '8',
      '--input-len',
      '8:32',
      '--output-len',
      '4:16',
    ];
    const saved = ['--save-detailed', '--result-dir', folder, '--result-filename', 'figures.json'];
    const { code, stdout } = await run([...bench, ...saved, '--request-rate', '100', '--max-concurrency', '4', '--goodput', 'e2el:60000']); // prettier-ignore
    expect(code).toBe(0);
    expect(stdout).toMatch(/time to first token .*\d/);
    const latencies = ['ttft', 'tpot', 'itl', 'e2el'].flatMap((name) =>
      ['mean', 'median', 'std', 'p99'].map((statistic) => `${statistic}_${name}_ms`),
    );
    expect(Object.keys(figures())).toEqual(
      expect.arrayContaining([
        'duration', 'completed', 'failed', 'total_input_tokens', 'total_output_tokens', 'request_throughput',
        'request_goodput', 'output_throughput', 'total_token_throughput', ...latencies, 'max_output_tokens_per_s',
        'max_concurrent_requests', 'input_lens', 'output_lens', 'ttfts', 'itls', 'start_times', 'generated_texts', 'errors',
      ]),
    ); // prettier-ignore
    const { completed, failed, request_goodput: goodput, request_throughput: throughput } = figures();
    expect([completed, failed, goodput]).toEqual([8, 0, throughput]);
    expect(figures()['max_concurrent_requests']).toBeLessThanOrEqual(4);
    const chat = await run(['bench', 'serve', '--base-url', server.url, '--backend', 'openai-chat', '--num-prompts', '3', '--input-len', '8', '--output-len', '6']); // prettier-ignore
    expect(chat.code).toBe(0);
    expect(chat.stdout).toMatch(/output tokens +18\n/);
  });

  it('fails where answers are not what was asked for', async () => {
    await using server = await serve(['--disable-access-log', '--max-model-len', '64']);
    const { code, stderr } = await run(['bench', 'serve', '--base-url', server.url, '--num-prompts', '2', '--input-len', '60', '--output-len', '30']); // prettier-ignore
    expect(code).toBe(1);
    expect(stderr).toMatch(/request\.benchmark-failed.* 4 tokens, not the 30 asked for/);
  });

  it('says where no server is', async () => {
    const { code, stderr } = await run(['bench', 'serve', '--port', '9']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/config\.server-unreachable/);
  });
});
