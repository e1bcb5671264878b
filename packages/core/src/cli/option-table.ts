/**
 * Every option of commands that run a model, once: parsing, help, config files and the environment are derived from this
 * table. Names, defaults and meanings are vLLM's where it has the option.
 */

export type OptionType =
  | 'text'
  /** An integer, with the suffixes k, m, g, t (1000) and K, M, G, T (1024). */
  | 'integer'
  | 'number'
  | 'flag'
  /** Several words, or a JSON list. */
  | 'list'
  /** A JSON object, or dotted keys: `--name.key value`. */
  | 'json';

export type OptionGroup =
  'Model' | 'Server' | 'Chat' | 'Memory' | 'Scheduling' | 'Sampling' | 'Device' | 'Logging';

/** Who reads the value: the engine, the HTTP server, or the command itself. */
export type OptionOwner = 'engine' | 'server' | 'command';

export interface OptionRow {
  /** Kebab-case; the owner sees it in camelCase, or under `key`. */
  readonly name: string;
  readonly type: OptionType;
  readonly group: OptionGroup;
  readonly owner: OptionOwner;
  readonly help: string;
  readonly key?: string;
  readonly choices?: readonly string[];
  /** As help shows it; the owner holds the default itself. */
  readonly default?: string;
  /** Further words that an integer option takes. */
  readonly words?: readonly string[];
  readonly short?: string;
  readonly aliases?: readonly string[];
  /** Environment variable that stands in for the option. */
  readonly env?: string;
  readonly min?: number;
  readonly max?: number;
}

type Fields = Partial<Omit<OptionRow, 'name' | 'type' | 'help'>>;

function group(groupName: OptionGroup, owner: OptionOwner) {
  return (name: string, type: OptionType, help: string, fields: Fields = {}): OptionRow => ({
    name,
    type,
    help,
    group: groupName,
    owner,
    ...fields,
  });
}

const model = group('Model', 'engine');
const server = group('Server', 'server');
const command = group('Server', 'command');
const chat = group('Chat', 'server');
const memory = group('Memory', 'engine');
const scheduling = group('Scheduling', 'engine');
const sampling = group('Sampling', 'engine');
const device = group('Device', 'engine');
const logging = group('Logging', 'command');
const requestLog = group('Logging', 'server');

const dtypes = ['auto', 'bfloat16', 'float16', 'half', 'float32', 'float'];

export const optionTable: readonly OptionRow[] = [
  model('served-model-name', 'list', 'name(s) of the model in the API; the first is in answers', {
    default: 'the model',
  }),
  model('dtype', 'text', 'type of weights and activations', { choices: dtypes, default: 'auto' }),
  model('quantization', 'text', 'auto: compute with weights as quantized as the file; none: unpack them', {
    choices: ['auto', 'none'],
    default: 'auto',
  }),
  model('max-model-len', 'integer', 'tokens of prompt and answer together; auto: what fits', {
    default: "the model's",
    words: ['auto'],
    min: -1,
  }),
  model('tokenizer', 'text', "folder, file or hub id of the tokenizer, if not the model's"),
  model('skip-tokenizer-init', 'flag', 'serve token ids only'),
  model('revision', 'text', 'branch, tag or commit on the hub'),
  model('download-dir', 'text', 'where hub models are kept', { default: "the hub's cache" }),
  model('hf-overrides', 'json', "laid over the model's config.json"),
  model('generation-config', 'text', "auto: the model's own sampling defaults; tenon: none", {
    choices: ['auto', 'vllm', 'tenon'],
    default: 'auto',
  }),

  command('host', 'text', 'address to listen on; 0.0.0.0: all', { default: '127.0.0.1' }),
  command('port', 'integer', 'port to listen on; 0: any free one', { default: '8000', min: 0, max: 65_535 }),
  command('uds', 'text', 'Unix socket to listen on, instead of host and port'),
  server('api-key', 'list', 'key(s) that requests must bear', { key: 'apiKeys', env: 'TENON_API_KEY' }),
  server('allowed-origins', 'list', 'CORS origins', { default: '*' }),
  server('allowed-methods', 'list', 'CORS methods', { default: '*' }),
  server('allowed-headers', 'list', 'CORS headers', { default: '*' }),
  server('allow-credentials', 'flag', 'CORS credentials'),
  server('max-body-size', 'integer', 'bytes of a request at most', {
    key: 'bodyLimitBytes',
    default: '32M',
    min: 1,
  }),
  server('client-timeout', 'number', 'seconds to send a request in, or without reading its answer; 0: any', {
    key: 'clientTimeoutSeconds',
    default: '60',
    min: 0,
  }),
  server('metrics-prefix', 'text', 'prefix of metrics; vllm for existing dashboards', { default: 'tenon' }),
  server('enable-request-id-headers', 'flag', 'answer with X-Request-Id'),
  server('enable-server-load-tracking', 'flag', 'add /load'),
  server('enable-prompt-tokens-details', 'flag', 'cached tokens in usage', { default: 'on' }),
  server('enable-force-include-usage', 'flag', 'usage on every stream'),
  server('enable-per-request-metrics', 'flag', 'timings in answers'),
  server('return-tokens-as-token-ids', 'flag', 'spell tokens of logprobs as token_id:<id>'),
  server('stream-interval', 'integer', 'tokens per stream chunk', { default: '1', min: 1 }),
  server('disable-fastapi-docs', 'flag', 'no /docs and /openapi.json', {
    key: 'disableDocs',
    aliases: ['disable-docs'],
  }),
  command('shutdown-timeout', 'number', 'seconds that running requests get when the server stops', {
    default: '0',
    min: 0,
  }),
  command('keep-alive-on-engine-death', 'flag', 'go on answering with errors when the engine has died', {
    env: 'TENON_KEEP_ALIVE_ON_ENGINE_DEATH',
  }),

  chat('chat-template', 'text', 'Jinja file, or the template itself', { default: "the model's" }),
  chat('chat-template-content-format', 'text', 'how templates get content', {
    choices: ['auto', 'string', 'openai'],
    default: 'auto',
  }),
  chat('trust-request-chat-template', 'flag', 'let requests bring their own template'),
  chat('enable-auto-tool-choice', 'flag', 'let answers call the tools of their requests'),
  command('tool-call-parser', 'text', 'how calls are found: hermes, llama3_json, or that of a plugin', {
    group: 'Chat',
  }),
  chat('exclude-tools-when-tool-choice-none', 'flag', 'no tools in prompts whose answers may call none'),
  chat('response-role', 'text', 'role of answers', { default: 'assistant' }),

  memory('gpu-memory-utilization', 'number', "share of the device's free memory to use", { default: '0.92' }),
  memory('kv-cache-memory-bytes', 'integer', 'size of the KV cache, instead of the share', { min: 1 }),
  memory('num-gpu-blocks-override', 'integer', 'blocks of the KV cache, instead of either', { min: 1 }),
  memory('block-size', 'integer', 'tokens per KV block', { default: "the device's", min: 1 }),
  memory('enable-prefix-caching', 'flag', 'reuse KV blocks of equal prompt starts', { default: 'on' }),

  scheduling('max-num-seqs', 'integer', 'sequences computed together at most', { min: 1 }),
  scheduling('max-num-batched-tokens', 'integer', 'tokens per step at most', {
    min: 1,
    aliases: ['max-num-scheduled-tokens'],
  }),
  scheduling('enable-chunked-prefill', 'flag', 'split long prompts over steps', { default: 'on' }),
  scheduling('long-prefill-token-threshold', 'integer', 'tokens of one prompt per step at most; 0: all', {
    default: '0',
    min: 0,
  }),
  scheduling('scheduling-policy', 'text', 'order of requests', {
    choices: ['fcfs', 'priority'],
    default: 'fcfs',
  }),
  scheduling('async-scheduling', 'flag', 'schedule the next step while one runs', { default: 'on' }),
  scheduling('max-num-waiting-requests', 'integer', 'requests that may wait besides those; more get 429', {
    default: '4096',
    min: 1,
  }),
  scheduling('step-timeout', 'number', 'seconds until a step that does not end counts as hung; 0: never', {
    default: '60, more on a CPU',
    min: 0,
  }),
  scheduling('load-timeout', 'number', 'seconds without progress until a load counts as hung; 0: never', {
    default: '600',
    min: 0,
  }),
  scheduling('watermark', 'number', 'share of blocks that admitting a request leaves free', {
    default: '0.01',
  }),

  sampling('seed', 'integer', 'seeds requests that bring none'),
  sampling('max-logprobs', 'integer', 'top logprobs that a request may ask for; -1: all', {
    default: '20',
    min: -1,
  }),
  sampling('logprobs-mode', 'text', 'logprobs before or after processing', {
    choices: ['raw_logprobs', 'processed_logprobs'],
    default: 'raw_logprobs',
  }),
  sampling('logits-processors', 'list', 'logits processors of plugins, by name; requests use vllm_xargs'),

  device('device', 'text', 'auto, a backend’s id, or one of its devices: <id>:<n>', { default: 'auto' }),
  device('num-threads', 'integer', 'compute threads', { default: "the device's", min: 1 }),
  device(
    'restart-on-device-loss',
    'flag',
    'start again when the device is lost; queued requests wait for it',
  ),
  device('plugin', 'list', 'packages or folders with further backends, models, …', { key: 'plugins' }),

  logging('log-level', 'text', 'debug also shows stack traces', {
    choices: ['debug', 'info', 'warning', 'error'],
    default: 'info',
    env: 'TENON_LOGGING_LEVEL',
    aliases: ['uvicorn-log-level'],
  }),
  logging('disable-access-log', 'flag', 'no line per HTTP request', {
    aliases: ['disable-uvicorn-access-log'],
  }),
  logging('disable-log-stats', 'flag', 'no line of requests, tokens/s and KV cache while there is work'),
  logging('log-stats-interval', 'number', 'seconds between these lines', {
    default: '5',
    min: 0.05,
    env: 'TENON_LOG_STATS_INTERVAL',
  }),
  logging('stat-logger', 'list', 'stat logger(s) of plugins, as name or name=argument', {
    key: 'statLoggers',
  }),
  requestLog('log-requests', 'flag', 'log ids, prompts, sizes, parameters and times of requests', {
    aliases: ['enable-log-requests'],
  }),
  requestLog('max-log-len', 'integer', 'characters, or token ids, of a logged prompt', {
    default: '256',
    min: 0,
  }),
];

const byName = new Map(
  optionTable.flatMap((row) => [row.name, ...(row.aliases ?? [])].map((name) => [name, row])),
);

export function findOption(name: string): OptionRow | undefined {
  return byName.get(name);
}

/** The name that the option's owner gives it. */
export function optionKey({ key, name }: Pick<OptionRow, 'key' | 'name'>): string {
  return key ?? name.replaceAll(/-(\w)/g, (_match, letter: string) => letter.toUpperCase());
}
