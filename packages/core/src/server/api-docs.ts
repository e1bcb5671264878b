/** docs/api.md: every request field, from the schemas and the table of other fields. Checked in; a test fails when it is stale. */
import { type Api, apis, implementedFields, type OtherField, otherFields } from './request-fields.js';
import { expectedValue, type ValueSchema } from './schemas/expected-value.js';

export function renderApiDocs(): string {
  const sections = [
    introduction,
    `## Fields of both\n\n${fieldTable(sharedFields())}`,
    ...apis.map((api) => `## Fields of \`${paths[api]}\`\n\n${fieldTable(ownFields(api))}`),
    `## Ignored\n\nTaken, whatever the value, and without effect.\n\n${otherTable('ignored')}`,
    `## Refused\n\n${refusedNote}\n\n${otherTable('refused')}`,
    answers,
  ];
  return `${sections.join('\n\n')}\n`;
}

const paths: Readonly<Record<Api, string>> = {
  completions: '/v1/completions',
  chat: '/v1/chat/completions',
};

const introduction = `# API

<!-- Made by \`npm run generate\` from packages/core/src/server: schemas/ and request-fields.ts. -->

What becomes of every request field of OpenAI's and vLLM's completions and chat completions. A field is implemented, ignored on purpose, or
refused with a 400 whose \`param\` names it; nothing that changes an answer is passed over in silence. A field that is null counts as absent, and
fields that neither API has are ignored. Sampling fields that a request leaves out take the model's \`generation_config.json\` first
(\`--generation-config\`), then the default here. Each row has a test: \`packages/core/tests/server/request-fields.test.ts\`.

Paths and bodies as OpenAPI: \`/openapi.json\` of a running server, and \`/docs\`. Errors: [errors.md](errors.md).`;

const refusedNote = `A 400 of type \`BadRequestError\` with \`tenon_code\` \`request.unsupported-parameter\`, unless the value asks for nothing.`;

const answers = `## Answers

| field | |
|---|---|
| \`id\` | \`cmpl-\` or \`chatcmpl-\`, and the request's id |
| \`created\`, \`model\` | Unix time in seconds; the name that the request used |
| \`system_fingerprint\` | \`tenon-<version>-<parallelism>-<hash>\`: equal ones give equal answers to seeded requests; of a stream, on the last chunk |
| \`choices[].index\` | number of the prompt · n + number of the choice |
| \`choices[].text\`, \`choices[].message\` | the answer; of chat streams \`delta\`, and first one with the role |
| \`choices[].message.tool_calls[]\` | of chat with \`tools\`: \`id\`, \`type\`, \`function\` with \`name\`, \`arguments\` (JSON text, as the model wrote it); \`content\` is null where there is nothing else. Of streams, first \`index\`, \`id\` and name, then parts of the arguments |
| \`choices[].finish_reason\` | \`stop\`: an end token, stop token or stop string; \`length\`: \`max_tokens\` or the model length; \`repetition\`: \`repetition_detection\`; \`tool_calls\`: it stopped, and made calls; \`abort\` |
| \`choices[].stop_reason\` | the stop string or the stop token's id, or \`repetition_detected\`; null for the end token |
| \`choices[].logprobs\` | completions: \`tokens\`, \`token_logprobs\`, \`top_logprobs\`, \`text_offset\`; chat: \`content[]\` of \`token\`, \`logprob\`, \`bytes\`, \`top_logprobs[]\`; at least -9999 |
| \`choices[].token_ids\`, \`prompt_token_ids\` | with \`return_token_ids\` |
| \`prompt_logprobs\` | with that field: null for the first token, then token id to \`logprob\`, \`rank\`, \`decoded_token\`; of completions, in the choice |
| \`prompt_text\` | of chat, with \`return_prompt_text\` |
| \`usage\` | \`prompt_tokens\` (once for all n), \`completion_tokens\`, \`total_tokens\`, \`prompt_tokens_details.cached_tokens\` |
| \`metrics\` | with --enable-per-request-metrics and one choice: \`time_to_first_token_ms\`, \`generation_time_ms\`, \`queue_time_ms\`, \`mean_itl_ms\`, \`tokens_per_second\` |

A stream is \`data: <json>\` events and at last \`data: [DONE]\`; an error after the first event is an event \`{"error": …}\`.`;

type Fields = Readonly<Record<string, ValueSchema>>;

/** One object stands for both where the APIs mean the same. */
function sharedFields(): Fields {
  return pick(implementedFields.completions, (name, schema) => implementedFields.chat[name] === schema);
}

function ownFields(api: Api): Fields {
  const shared = sharedFields();
  return pick(implementedFields[api], (name) => !(name in shared));
}

function pick(fields: Fields, keeps: (name: string, schema: ValueSchema) => boolean): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([name, schema]) => keeps(name, schema)));
}

function fieldTable(fields: Fields): string {
  const rows = Object.entries(fields).map(([name, schema]) => {
    const standard = schema.default === undefined ? '' : code(schema.default);
    return [`\`${name}\``, expectedValue(schema), standard, schema.description ?? ''];
  });
  return table(['field', 'value', 'default', 'meaning'], rows);
}

function otherTable(status: OtherField['status']): string {
  const rows = Object.entries(otherFields)
    .filter(([, field]) => field.status === status)
    .map(([name, { apis: of, reason, neutral }]) => {
      const taken = status === 'ignored' ? [] : [neutral.map(code).join(', ')];
      return [`\`${name}\``, of.length === apis.length ? 'both' : of.join(', '), ...taken, reason];
    });
  return table(['field', 'of', ...(status === 'ignored' ? [] : ['taken']), 'why, and what to do'], rows);
}

const code = (value: unknown): string => `\`${JSON.stringify(value)}\``;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', String.raw`\|`)).join(' | ')} |`;
  return [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line)].join('\n');
}
