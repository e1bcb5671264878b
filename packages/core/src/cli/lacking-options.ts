/** vLLM's options and variables that Tenon lacks: none is ignored; each names what to do, or says that it is not there yet. */

export interface LackingOption {
  readonly reason: string;
  /** Values that ask for nothing, and so are taken; the option has a value then. */
  readonly neutral?: readonly string[];
}

const notYet = 'not supported yet';
const oneDevice = 'not supported yet; Tenon uses one device';
const noTrust = 'a model is data in Tenon and brings no code; leave it out';

function lack(reason: string, names: string, neutral?: readonly string[]): [string, LackingOption][] {
  return names.split(' ').map((name) => [name, { reason, neutral }]);
}

const lackingOptions: ReadonlyMap<string, LackingOption> = new Map([
  ...lack(oneDevice, 'tensor-parallel-size pipeline-parallel-size data-parallel-size', ['1']),
  ...lack(oneDevice, 'decode-context-parallel-size prefill-context-parallel-size api-server-count', ['1']),
  ...lack(
    oneDevice,
    'enable-expert-parallel distributed-executor-backend nnodes node-rank master-addr master-port headless ' +
      'data-parallel-size-local data-parallel-rank data-parallel-start-rank data-parallel-address data-parallel-rpc-port ' +
      'data-parallel-backend data-parallel-hybrid-lb data-parallel-external-lb enable-eplb eplb-config expert-placement-strategy ' +
      'all2all-backend enable-dbo distributed-timeout-seconds disable-custom-all-reduce max-parallel-loading-workers ' +
      'worker-cls worker-extension-cls enable-fault-tolerance ray-workers-use-nsight',
  ),
  ...lack('the KV cache has the type of the model; other types are not supported yet', 'kv-cache-dtype', [
    'auto',
  ]),
  ...lack('Tenon reads safetensors and GGUF by what the files are; leave it out', 'load-format', [
    'auto',
    'safetensors',
  ]),
  ...lack(noTrust, 'trust-remote-code allow-deprecated-quantization code-revision'),
  ...lack('only text generation is supported yet', 'runner convert task', ['auto', 'generate', 'none']),
  ...lack(
    'only text is supported yet',
    'limit-mm-per-prompt mm-processor-kwargs mm-processor-cache-gb mm-processor-cache-type',
  ),
  ...lack(
    'only text is supported yet',
    'mm-encoder-tp-mode allowed-local-media-path allowed-media-domains media-io-kwargs',
  ),
  ...lack(
    'only text is supported yet',
    'interleave-mm-strings language-model-only enable-mm-embeds video-pruning-rate',
  ),
  ...lack(
    'LoRA is not supported yet; merge the adapter into the model',
    'enable-lora lora-modules max-loras max-lora-rank max-cpu-loras lora-dtype lora-target-modules fully-sharded-loras ' +
      'enable-tower-connector-lora default-mm-loras',
  ),
  ...lack(
    'speculative decoding is not supported yet',
    'speculative-config spec-method spec-model spec-tokens',
  ),
  ...lack('speculative decoding is not supported yet', 'per-request-spec-decode-metrics'),
  ...lack('use --plugin, and the name of its parser as --tool-call-parser', 'tool-parser-plugin'),
  ...lack('the server runs no tools; clients do', 'tool-server'),
  ...lack(
    'reasoning parsers are not supported yet',
    'reasoning-parser reasoning-parser-plugin reasoning-config',
  ),
  ...lack('structured output is not supported yet', 'structured-outputs-config guided-decoding-backend'),
  ...lack(
    'KV-cache transfer and offloading are not supported yet',
    'kv-transfer-config ec-transfer-config kv-events-config',
  ),
  ...lack(
    'KV-cache transfer and offloading are not supported yet',
    'kv-offloading-size kv-offloading-backend',
  ),
  ...lack('weights stay on the device', 'cpu-offload-gb offload-backend cpu-offload-params', ['0']),
  ...lack('nothing swaps; preempted requests are recomputed', 'swap-space', ['0']),
  ...lack(
    'Tenon plans every program ahead; leave it out',
    'enforce-eager compilation-config optimization-level performance-mode',
  ),
  ...lack(
    'capturing graphs is not supported yet',
    'cudagraph-capture-sizes capture-sizes max-cudagraph-capture-size',
  ),
  ...lack('set the model’s generation_config.json, or parameters per request', 'override-generation-config'),
  ...lack('use --generation-config and --hf-overrides', 'hf-config-path config-format'),
  ...lack('use HF_TOKEN', 'hf-token'),
  ...lack(
    "the hub's tokenizers are read by Tenon itself; leave it out",
    'tokenizer-mode tokenizer-revision',
    ['auto'],
  ),
  ...lack('give the file with --chat-template', 'default-chat-template-kwargs'),
  ...lack('use --scheduling-policy', 'scheduler-cls'),
  ...lack('Tenon always reserves the whole prompt', 'scheduler-reserve-full-isl'),
  ...lack('the hash is fixed', 'prefix-caching-hash-algo prefix-match-unit prefix-cache-retention-interval'),
  ...lack(
    'use a reverse proxy for TLS',
    'ssl-keyfile ssl-certfile ssl-ca-certs ssl-cert-reqs ssl-ciphers enable-ssl-refresh',
  ),
  ...lack('use a reverse proxy for paths', 'root-path'),
  ...lack(
    'middleware in Python is not supported; use a reverse proxy',
    'middleware h11-max-incomplete-event-size',
  ),
  ...lack('h11 is not used; use --max-body-size', 'h11-max-header-count'),
  ...lack('answers are never logged; --log-requests logs prompts', 'enable-log-outputs'),
  ...lack('requests are logged with --log-requests only; leave it out', 'disable-log-requests'),
  ...lack('use --disable-access-log', 'disable-access-log-for-endpoints log-config-file'),
  ...lack('use /metrics', 'enable-log-deltas aggregate-engine-logging show-hidden-metrics-for-version'),
  ...lack(
    'use /metrics',
    'kv-cache-metrics kv-cache-metrics-sample enable-mfu-metrics cudagraph-metrics enable-logging-iteration-details',
  ),
  ...lack('tracing is not supported yet', 'otlp-traces-endpoint collect-detailed-traces profiler-config'),
  ...lack('it is part of the model’s files; /tokenize answers questions', 'enable-tokenizer-info-endpoint'),
  ...lack('send token ids to /v1/completions with --skip-tokenizer-init', 'tokens-only enable-prompt-embeds'),
  ...lack('pooling models are not supported yet', 'pooler-config override-pooler-config io-processor-plugin'),
  ...lack('sleeping is not supported yet', 'enable-sleep-mode'),
  ...lack(
    notYet,
    'attention-backend attention-config kernel-config moe-backend mamba-cache-dtype mamba-ssm-cache-dtype mamba-block-size',
  ),
  ...lack(
    notYet,
    'model-loader-extra-config ignore-patterns model-impl logits-processor-pattern additional-config kv-sharing-fast-prefill',
  ),
  ...lack(
    notYet,
    'numa-bind numa-bind-nodes numa-bind-cpus disable-sliding-window disable-cascade-attn disable-hybrid-kv-cache-manager',
  ),
  ...lack(
    notYet,
    'calculate-kv-scales max-num-partial-prefills max-long-partial-prefills weight-transfer-config vllm-config',
  ),
]);

const shortForms: Readonly<Record<string, string>> = {
  '-tp': 'tensor-parallel-size',
  '-pp': 'pipeline-parallel-size',
  '-dp': 'data-parallel-size',
  '-ep': 'enable-expert-parallel',
  '-dcp': 'decode-context-parallel-size',
  '-pcp': 'prefill-context-parallel-size',
  '-q': 'quantization',
  '-O': 'optimization-level',
  '-cc': 'compilation-config',
  '-sc': 'speculative-config',
};

export function findLackingOption(name: string): LackingOption | undefined {
  return lackingOptions.get(name);
}

/** `-tp` as `--tensor-parallel-size`; anything else as it is. */
export function expandShortForm(argument: string): string {
  const [flag = '', value] = argument.split('=', 2);
  const optimization = /^-O(\d)$/.exec(flag);
  if (optimization !== null) return `--optimization-level=${optimization[1]}`;
  const name = Object.hasOwn(shortForms, flag) ? shortForms[flag] : undefined;
  if (name === undefined) return argument;
  return value === undefined ? `--${name}` : `--${name}=${value}`;
}

/** Variables that vLLM reads as VLLM_…: what to use in their place. */
export const lackingVariables: Readonly<Record<string, string>> = {
  TENON_MAX_N_SEQUENCES: 'the limit is fixed at 16384',
  TENON_MAX_STOP_STRINGS: 'the limit is fixed at 4',
  TENON_MAX_NUM_BAD_WORDS: 'the limit is fixed at 128',
  TENON_MAX_COMPLETION_PROMPTS: 'the limit is fixed at 1024',
  TENON_CPU_KVCACHE_SPACE: 'use --kv-cache-memory-bytes',
  TENON_CPU_OMP_THREADS_BIND: 'use --num-threads; threads are pinned by themselves',
  TENON_CPU_INT4_W4A8: 'quantized weights are computed with 16-bit activations',
  TENON_SERVER_DEV_MODE: 'there are no development routes',
  TENON_ALLOW_RUNTIME_LORA_UPDATING: 'LoRA is not supported yet',
  TENON_ALLOW_LONG_MAX_MODEL_LEN: 'use --hf-overrides to change max_position_embeddings or rope scaling',
  TENON_USE_MODELSCOPE: 'models come from the Hugging Face hub; see HF_ENDPOINT',
};
