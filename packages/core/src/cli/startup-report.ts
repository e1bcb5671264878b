/** What `tenon serve` says when it is ready. */
import type { LoadedEngine } from '../container.js';
import type { ServerOptions } from '../server/server-options.js';
import { tenonVersion } from '../version.js';

export interface Serving {
  readonly url: string;
  readonly options: ServerOptions;
}

export function startupReport({ engine, runtime }: LoadedEngine, { url, options }: Serving): string {
  const { info } = engine;
  const numTokens = info.numBlocks * info.blockSize;
  const kernels = Object.entries(info.backend.runtime).map(([name, value]) => `${name} ${value}`);
  const rows: readonly (readonly [string, string])[] = [
    ['tenon', `${tenonVersion}, ready ${(performance.now() / 1000).toFixed(2)} s after start`],
    ['device', `${info.device}, ${runtime.device.name}`],
    ['kernels', [`${info.backend.id} ${info.backend.version}`, ...kernels].join(', ')],
    [
      'model',
      `${options.servedModelNames[0]}, ${info.architecture}, ${info.dtype}, ${mib(info.weightsBytes)}`,
    ],
    ['context', `${info.maxModelLen} tokens`],
    ['KV cache', `${info.numBlocks} blocks of ${info.blockSize} = ${numTokens} tokens, ${mib(info.kvBytes)}`],
    ['URL', options.disableDocs ? url : `${url} (API: ${url}/docs)`],
  ];
  const lines = rows.map(([name, value]) => `${name.padEnd(9)}${value}`);
  return `${lines.join('\n')}\n\n${curlLine(engine.tokenizer?.chatTemplate, url, options, engine.tokenizer !== undefined)}\n`;
}

/** A line to paste. */
function curlLine(
  template: string | undefined,
  url: string,
  options: ServerOptions,
  hasTokenizer: boolean,
): string {
  const chats = hasTokenizer && (options.chatTemplate ?? template) !== undefined;
  const model = options.servedModelNames[0];
  const body = chats
    ? { model, messages: [{ role: 'user', content: 'Tell me a story about a fox.' }], stream: true }
    : {
        model,
        prompt: hasTokenizer ? 'Once upon a time' : [1, 2, 3],
        stream: true,
        ...(hasTokenizer ? {} : { return_token_ids: true }),
      };
  const key = options.apiKeys.length === 0 ? '' : ' -H "authorization: Bearer $TENON_API_KEY"';
  const route = chats ? 'chat/completions' : 'completions';
  const json = JSON.stringify(body).replaceAll("'", String.raw`'\''`);
  return `curl -N ${url}/v1/${route} -H 'content-type: application/json'${key} -d '${json}'`;
}

function mib(bytes: number): string {
  return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(2)} GiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
