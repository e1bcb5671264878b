import { describe, expect, it } from 'vitest';

import { createApp } from '../../src/server/app.js';
import { FastHistogram } from '../../src/server/metrics/fast-histogram.js';
import { ScriptedEngine } from './scripted-engine.js';

const counters =
  'prompt_tokens prompt_tokens_cached generation_tokens num_preemptions prompt_tokens_by_source request_success ' +
  'prefix_cache_queries prefix_cache_hits';
const gauges =
  'num_requests_running num_requests_waiting num_requests_waiting_by_reason kv_cache_usage_perc engine_sleep_state cache_config_info';
const histograms =
  'time_to_first_token_seconds inter_token_latency_seconds request_time_per_output_token_seconds e2e_request_latency_seconds ' +
  'request_queue_time_seconds request_inference_time_seconds request_prefill_time_seconds request_decode_time_seconds ' +
  'request_prompt_tokens request_generation_tokens request_max_num_generation_tokens request_prefill_kv_computed_tokens ' +
  'request_params_max_tokens request_params_n iteration_tokens_total';

async function metricsText(prefix: string | undefined): Promise<string> {
  const engine = new ScriptedEngine({ numCachedTokens: 2 });
  const app = await createApp({
    engine,
    options: { disableDocs: true, ...(prefix && { metricsPrefix: prefix }) },
  });
  await app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { prompt: 'hello', max_tokens: 5, n: 2 },
  });
  const response = await app.inject('/metrics');
  expect(response.headers['content-type']).toContain('text/plain');
  return response.body;
}

describe.each([undefined, 'vllm'])('/metrics with prefix %s', (prefix) => {
  const name = prefix ?? 'tenon';

  it('has every promised name, type and label', async () => {
    const text = await metricsText(prefix);
    const labels = 'model_name="scripted",engine="0"';
    for (const counter of counters.split(' ')) {
      expect(text).toContain(`# TYPE ${name}:${counter}_total counter`);
      expect(text).toContain(`${name}:${counter}_total{${labels}`);
    }
    for (const gauge of gauges.split(' ')) expect(text).toContain(`# TYPE ${name}:${gauge} gauge`);
    for (const histogram of histograms.split(' ')) {
      expect(text).toContain(`# TYPE ${name}:${histogram} histogram`);
      expect(text).toMatch(new RegExp(`${name}:${histogram}_bucket\\{${labels},le="\\+Inf"\\} [1-9]`));
    }
  });

  it('has the settings of the KV cache as labels, without a model name', async () => {
    const [, labels = ''] = /cache_config_info\{([^}]*)\} 1/.exec(await metricsText(prefix)) ?? [];
    expect(labels.split(',').map((label) => label.split('=', 1)[0])).toEqual([
      'engine', 'block_size', 'num_gpu_blocks', 'enable_prefix_caching', 'cache_dtype', 'gpu_memory_utilization',
      'kv_cache_memory_bytes', 'num_gpu_blocks_override', 'kv_cache_size_tokens', 'kv_cache_max_concurrency',
    ]); // prettier-ignore
    expect(labels).toContain('gpu_memory_utilization="0.92",kv_cache_memory_bytes="None"');
  });

  it('says which backend and device serve', async () => {
    const labels = 'model_name="scripted",engine="0",backend="scripted",version="0.0.0",device="none"';
    expect(await metricsText(prefix)).toContain(`${name}:backend_info{${labels}} 1\n`);
  });

  it('counts', async () => {
    const lines = new Set((await metricsText(prefix)).split('\n'));
    const labels = 'model_name="scripted",engine="0"';
    for (const line of [
      `${name}:request_success_total{${labels},finished_reason="length"} 1`,
      `${name}:request_success_total{${labels},finished_reason="abort"} 0`,
      `${name}:prompt_tokens_by_source_total{${labels},source="local_compute"} 4`,
      `${name}:prompt_tokens_by_source_total{${labels},source="local_cache_hit"} 2`,
      `${name}:generation_tokens_total{${labels}} 17`,
      `${name}:prefix_cache_hits_total{${labels}} 3`,
      `${name}:request_params_n_sum{${labels}} 2`,
      `${name}:request_prompt_tokens_bucket{${labels},le="5"} 0`,
      `${name}:request_prompt_tokens_bucket{${labels},le="10"} 1`,
      `${name}:inter_token_latency_seconds_count{${labels}} 4`,
      `${name}:iteration_tokens_total_sum{${labels}} 10`,
    ]) {
      expect(lines).toContain(line);
    }
  });
});

describe('FastHistogram', () => {
  it('counts a value on a bound into that bucket, cumulatively', async () => {
    const histogram = new FastHistogram({ name: 'h', help: '', labels: {}, bounds: [1, 2] });
    for (const value of [0.5, 1, 1.5, 2, 3]) histogram.observe(value);
    const { values } = (await histogram.asMetric().get()) as unknown as { values: { value: number }[] };
    expect(values.map(({ value }) => value)).toEqual([2, 4, 5, 8, 5]);
  });
});
