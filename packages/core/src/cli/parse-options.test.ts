import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Command } from 'commander';
import { describe, expect, it } from 'vitest';

import { type EngineOptions, parseEngineOptions } from '../config/engine-options.js';
import { TenonError } from '../errors.js';
import { completeServerOptions } from '../server/server-options.js';
import { findLackingOption } from './lacking-options.js';
import { optionKey, optionTable } from './option-table.js';
import {
  addOptions,
  normalizeArguments,
  type OptionValues,
  readOptions,
  respellOption,
} from './parse-options.js';

interface Parsed extends OptionValues {
  readonly model: string | undefined;
}

/** As `tenon serve <line>` parses it. */
function parse(line: string | readonly string[], env: Record<string, string> = {}): Parsed {
  const command = addOptions(new Command('serve').argument('[model]').option('--config <file>'));
  command.exitOverride().configureOutput({ writeErr: () => {} });
  command.parse(normalizeArguments(typeof line === 'string' ? line.split(' ').filter(Boolean) : line), {
    from: 'user',
  });
  return { ...readOptions(command, env), model: command.args[0] };
}

function failure(line: string | readonly string[], env: Record<string, string> = {}): TenonError {
  try {
    parse(line, env);
  } catch (error) {
    return error as TenonError;
  }
  throw new Error(`parsed: ${String(line)}`);
}

function yaml(text: string): string {
  const file = join(mkdtempSync(join(tmpdir(), 'tenon-config-')), 'serve.yaml');
  writeFileSync(file, text);
  return file;
}

describe('option values', () => {
  it.each([
    ['512', 512],
    ['1k', 1000],
    ['1K', 1024],
    ['25.6k', 25_600],
    ['2m', 2_000_000],
    ['1M', 1_048_576],
    ['3g', 3_000_000_000],
    ['1G', 1_073_741_824],
  ])('takes the integer %s', (text, value) => {
    expect(parse(`--kv-cache-memory-bytes ${text}`).engine).toEqual({ kvCacheMemoryBytes: value });
  });

  it.each(['1.5', '1.5K', 'many', '1kk', '', '0x10', '--port'])('refuses the integer %j', (text) => {
    expect(failure(['--max-num-seqs', text]).message).toMatch(/max-num-seqs|argument missing/);
  });

  it.each([
    ['--port 70000', /--port is '70000'; expected at most 65535/],
    ['--dtype int4', /--dtype is 'int4'; expected one of auto, bfloat16/],
    ['--gpu-memory-utilization lots', /--gpu-memory-utilization is 'lots'; expected a number/],
    ['--hf-overrides [1]', /--hf-overrides is '\[1\]'; expected a JSON object/],
    ['--hf-overrides {a', /--hf-overrides is '{a'; expected JSON/],
    ['--api-key [1]', /expected a JSON list of strings/],
    ['--prot 1', /unknown option '--prot'/],
  ])('refuses %s, saying what was expected', (line, message) => {
    expect(failure(line).message).toMatch(message);
  });

  it('takes underscores, equals signs and vLLM’s aliases', () => {
    expect(parse('some/model_name --max_model_len=2K --max-num-scheduled-tokens 64').engine).toEqual({
      maxModelLen: 2048,
      maxNumBatchedTokens: 64,
    });
    expect(parse('--max_model_len auto').engine).toEqual({ maxModelLen: 'auto' });
    expect(parse('org/my_model --served-model-name a_b').model).toBe('org/my_model');
  });

  it('takes flags both ways, and tells those not given', () => {
    expect(parse('--enable-prefix-caching --no-async-scheduling --no-enable_chunked_prefill').engine).toEqual(
      {
        enablePrefixCaching: true,
        asyncScheduling: false,
        enableChunkedPrefill: false,
      },
    );
    expect(parse('--disable-docs --disable-uvicorn-access-log')).toMatchObject({
      server: { disableDocs: true },
      command: { disableAccessLog: true },
    });
    expect(parse('')).toMatchObject({ engine: {}, server: {}, command: {} });
  });

  it('takes lists as words, repeated, or as JSON', () => {
    expect(parse('model --api-key a b --host x').server).toEqual({ apiKeys: ['a', 'b'] });
    expect(parse('--allowed-origins a --allowed-origins b').server).toEqual({ allowedOrigins: ['a', 'b'] });
    expect(parse(['--allowed-origins', '["a","b"]']).server).toEqual({ allowedOrigins: ['a', 'b'] });
  });

  it('joins dotted keys of JSON options', () => {
    const line = [
      '--hf-overrides',
      '{"a":1,"rope":{"x":1}}',
      '--hf_overrides.rope.factor',
      '4',
      '--hf-overrides.name=yarn',
    ];
    expect(parse(line).engine).toEqual({ hfOverrides: { a: 1, rope: { x: 1, factor: 4 }, name: 'yarn' } });
  });
});

describe('the table', () => {
  it('names each option once, and none that is lacking', () => {
    const names = optionTable.flatMap((row) => [row.name, ...(row.aliases ?? [])]);
    expect(new Set(names).size).toBe(names.length);
    expect(names.filter((name) => findLackingOption(name) !== undefined)).toEqual([]);
  });

  it('gives engine and server options under the names that they know', () => {
    const of = (owner: string): string[] => optionTable.filter((row) => row.owner === owner).map(optionKey);
    const serverKeys = Object.keys(completeServerOptions({}, 'm'));
    for (const key of of('server')) expect(serverKeys).toContain(key);
    for (const key of of('engine')) {
      const wrong = { [key]: Symbol('wrong') } as EngineOptions;
      const error = (() => {
        try {
          return void parseEngineOptions(wrong);
        } catch (thrown) {
          return thrown as Error;
        }
      })();
      expect(error?.message ?? '').not.toMatch(new RegExp(`option ${key} is given`));
    }
  });
});

describe('options of vLLM that Tenon lacks', () => {
  it.each([
    ['--tensor-parallel-size 2', /--tensor-parallel-size is not supported: .*one device/],
    ['-tp 2', /--tensor-parallel-size is not supported/],
    ['-tp=4', /--tensor-parallel-size is not supported/],
    ['--trust-remote-code', /a model is data/],
    ['--trust_remote_code', /a model is data/],
    ['--enable-lora', /LoRA is not supported yet/],
    ['--speculative-config.method ngram', /speculative decoding/],
    ['-q awq', /--quantization is 'awq'; expected one of auto, none/],
    ['-O3', /--optimization-level is not supported/],
    ['--kv-cache-dtype fp8', /--kv-cache-dtype is not supported/],
    ['--ssl-keyfile x', /reverse proxy/],
    ['--no-enable-log-outputs', /--no-enable-log-outputs is not supported/],
  ])('%s stops the start', (line, message) => {
    const error = failure(`model ${line}`);
    expect(error.code).toBe('config.invalid-option');
    expect(error.message).toMatch(message);
  });

  it('takes aliases of flags with --no-', () => {
    expect(parse('--enable-log-requests').server).toEqual({ logRequests: true });
    expect(parse('--no-enable-log-requests').server).toEqual({ logRequests: false });
  });

  it('takes values that ask for nothing', () => {
    expect(parse('model -tp 1 --kv-cache-dtype=auto --port 1')).toMatchObject({
      model: 'model',
      command: { port: 1 },
    });
  });

  it('knows every option of the reference’s table', () => {
    const names =
      'host port uds api-server-count served-model-name tokenizer revision trust-remote-code hf-overrides runner convert dtype ' +
      'max-model-len block-size gpu-memory-utilization kv-cache-memory-bytes num-gpu-blocks-override max-num-seqs ' +
      'max-num-batched-tokens max-num-scheduled-tokens enable-chunked-prefill long-prefill-token-threshold enable-prefix-caching ' +
      'prefix-caching-hash-algo prefix-match-unit prefix-cache-retention-interval scheduling-policy scheduler-cls async-scheduling ' +
      'scheduler-reserve-full-isl watermark kv-cache-dtype tensor-parallel-size pipeline-parallel-size data-parallel-size ' +
      'enable-expert-parallel distributed-executor-backend enforce-eager performance-mode cudagraph-capture-sizes load-format ' +
      'enable-lora max-loras max-lora-rank max-cpu-loras quantization speculative-config spec-method spec-model spec-tokens ' +
      'tool-call-parser reasoning-parser tool-parser-plugin reasoning-parser-plugin limit-mm-per-prompt mm-processor-cache-gb ' +
      'mm-processor-cache-type mm-encoder-tp-mode allowed-local-media-path kv-transfer-config ec-transfer-config kv-events-config ' +
      'kv-offloading-size kv-offloading-backend generation-config chat-template chat-template-content-format max-logprobs seed ' +
      'stream-interval enable-sleep-mode shutdown-timeout headless api-key enable-auto-tool-choice ' +
      'exclude-tools-when-tool-choice-none enable-request-id-headers enable-server-load-tracking disable-fastapi-docs ' +
      'enable-tokenizer-info-endpoint enable-prompt-tokens-details enable-per-request-metrics enable-force-include-usage ' +
      'trust-request-chat-template enable-prompt-embeds logits-processors logprobs-mode structured-outputs-config ' +
      'show-hidden-metrics-for-version kv-cache-metrics enable-mfu-metrics lora-modules lora-dtype nnodes node-rank master-addr ' +
      'master-port numa-bind data-parallel-rank enable-eplb all2all-backend enable-dbo enable-fault-tolerance tokens-only';
    const own = new Set(optionTable.flatMap((row) => [row.name, ...(row.aliases ?? [])]));
    expect(
      names.split(' ').filter((name) => !own.has(name) && findLackingOption(name) === undefined),
    ).toEqual([]);
  });
});

describe('--config', () => {
  it('stands under the command line', () => {
    const file = yaml(
      'model: a/b\nport: 9000\nmax_model_len: 4k\napi-key: [x, y]\nenable-prefix-caching: false\nhf-overrides: {a: 1}\n',
    );
    expect(parse(['--config', file, '--port', '9001'])).toEqual({
      model: 'a/b',
      engine: { maxModelLen: 4000, enablePrefixCaching: false, hfOverrides: { a: 1 } },
      server: { apiKeys: ['x', 'y'] },
      command: { port: 9001 },
    });
    expect(parse(['other', `--config=${file}`, '--enable-prefix-caching', '--api-key', 'z'])).toMatchObject({
      model: 'other',
      engine: { enablePrefixCaching: true },
      server: { apiKeys: ['z'] },
    });
  });

  it.each([
    ['tensor-parallel-size: 2', /not supported/],
    ['colour: blue', /--config \S+\.yaml: unknown option 'colour'/],
    ['no_colour: blue', /--config \S+\.yaml: unknown option 'no-colour'/],
    ['port: [', /--config/],
    ['- a', /expected option names/],
  ])('refuses %j', (text, message) => {
    expect(failure(['--config', yaml(text)]).message).toMatch(message);
  });

  it('names a file that cannot be read', () => {
    expect(failure('--config /nowhere.yaml').message).toMatch(/--config \/nowhere.yaml: ENOENT/);
  });
});

describe('the environment', () => {
  it('stands under the command line', () => {
    expect(parse('', { TENON_API_KEY: 'k' }).server).toEqual({ apiKeys: ['k'] });
    expect(parse('--api-key own', { TENON_API_KEY: 'k' }).server).toEqual({ apiKeys: ['own'] });
    expect(parse('', { TENON_LOGGING_LEVEL: 'DEBUG' }).command).toEqual({ logLevel: 'debug' });
  });

  it.each([
    [{ TENON_LOGGING_LEVEL: 'loud' }, /TENON_LOGGING_LEVEL is 'loud'; expected one of debug/],
    [{ TENON_API_KEY: '' }, /TENON_API_KEY is empty/],
    [
      { TENON_CPU_KVCACHE_SPACE: '4' },
      /TENON_CPU_KVCACHE_SPACE is not supported: use --kv-cache-memory-bytes/,
    ],
  ])('refuses %j', (env, message) => {
    const error = failure('', env);
    expect(error.code).toBe('config.invalid-environment');
    expect(error.message).toMatch(message);
  });
});

describe('respellOption', () => {
  it('names options as the command line does', () => {
    const error = new TenonError('config.max-model-len', 'maxModelLen is 5; set maxModelLen lower', {
      param: 'maxModelLen',
    });
    expect(respellOption(error).message).toBe('--max-model-len is 5; set --max-model-len lower');
    const device = new TenonError('config.device-unusable', "device 'x' fails; check the device's driver", {
      param: 'device',
    });
    expect(respellOption(device).message).toBe("--device 'x' fails; check the device's driver");
  });
});
