/**
 * How a GGUF's byte-level BPE splits text before merging: `tokenizer.ggml.pre` names an entry here. The regexes are those of
 * the models' own tokenizers (llama.cpp knows the same names); each splits the pieces that the ones before it left.
 */
import { gpt2Words } from './adapt-tokenizer-json.js';

export interface GgufPreTokenizer {
  readonly regexes: readonly string[];
  /** A piece that is a token as a whole is taken without merging. */
  readonly ignoreMerges?: boolean;
  /** What `tokenizer.ggml.add_bos_token` is when absent. */
  readonly addBos?: boolean;
}

const contractions = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`;
const spaces = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const symbols = String.raw` ?[^\s\p{L}\p{N}]+[\r\n]*`;
const letters = String.raw`[^\r\n\p{L}\p{N}]?\p{L}+`;

/** Llama 3's words (the cl100k family); `digits` is how many stay together. */
function cl100kWords(digits: string): string {
  return `${contractions}|${letters}|${digits}|${symbols}|${spaces}`;
}

/** Words that also break where lower case turns to upper (the o200k family). */
function casedWords(suffix: string, digits: string): string {
  const upper = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
  const lower = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
  const lead = String.raw`[^\r\n\p{L}\p{N}]?`;
  const marks = String.raw` ?[^\s\p{L}\p{N}]+[\r\n/]*`;
  return `${lead}${upper}*${lower}+${suffix}|${lead}${upper}+${lower}*${suffix}|${digits}|${marks}|${spaces}`;
}

const oneDigit = String.raw`\p{N}`;
const threeDigits = String.raw`\p{N}{1,3}`;

const gpt2 = [gpt2Words];
const digitsThenGpt2 = [oneDigit, gpt2Words];
const llama3 = [cl100kWords(threeDigits)];
const qwen2 = [cl100kWords(oneDigit)];
const gpt4o = [casedWords(`${contractions}?`, threeDigits)];
const falconPunctuation = String.raw`[\p{P}\$\+<=>\^~\|${'`'}]+`;
const notPunctuation = ' ?[^(\\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+';

/** The cased letters of DeepSeek LLM's tokenizer, as of its Unicode version. */
const deepseekLetters = codePointClass(
  '41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A ' +
    '38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF ' +
    '1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D ' +
    '1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 ' +
    '1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F ' +
    '2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F ' +
    'A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 ' +
    '104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943',
);
const deepseekHan = '[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]';
const deepseekPunctuation = '[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]';
const deepseekV3 = [
  threeDigits,
  '[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+',
  String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_${'`'}{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|` +
    spaces,
];

/** A regex class of hexadecimal code points and ranges. */
function codePointClass(ranges: string): string {
  const escaped = ranges.replace(/[0-9A-F]+/g, String.raw`\u{$&}`);
  return `[${escaped.replaceAll(' ', '')}]`;
}

const families: readonly (readonly [GgufPreTokenizer, readonly string[]])[] = [
  [
    {
      regexes: [String.raw`[\p{P}\$\+<=>\^~\|]+`, gpt2Words, String.raw`\p{N}+`, '[0-9][0-9][0-9]'],
    },
    ['default'],
  ],
  [
    { regexes: gpt2 },
    [
      'gpt-2',
      'phi-2',
      'gigachat',
      'a.x-4.0',
      'mellum',
      'mpt',
      'olmo',
      'jais',
      'trillion',
      'granite-docling',
      'exaone4',
    ],
  ],
  [
    { regexes: digitsThenGpt2 },
    ['smollm', 'starcoder', 'refact', 'command-r', 'codeshell', 'exaone', 'minerva-7b', 'mellum2'],
  ],
  [
    { regexes: llama3, ignoreMerges: true, addBos: true },
    ['llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2'],
  ],
  [{ regexes: llama3 }, ['dbrx', 'smaug-bpe', 'glm4', 'chatglm-bpe']],
  [
    { regexes: qwen2 },
    ['qwen2', 'deepseek-r1-qwen', 'kormo', 'megrez', 'stablelm2', 'hunyuan', 'solar-open', 'grok-2'],
  ],
  [
    {
      regexes: [
        String.raw`${contractions}|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|${spaces}`,
      ],
    },
    ['qwen35'],
  ],
  [{ regexes: gpt4o }, ['gpt-4o', 'llama4', 'kanana2', 'minimax-m2']],
  [{ regexes: [casedWords('', oneDigit)], ignoreMerges: true, addBos: true }, ['tekken']],
  [
    {
      regexes: [
        String.raw`[\r\n]`,
        String.raw`\s?${deepseekLetters}+`,
        String.raw`\s?${deepseekPunctuation}+`,
        String.raw`\s+$`,
        `${deepseekHan}+`,
        String.raw`\p{N}+`,
      ],
    },
    ['deepseek-llm'],
  ],
  [
    {
      regexes: [
        String.raw`[\r\n]`,
        String.raw`\s?\p{L}+`,
        String.raw`\s?\p{P}+`,
        `${deepseekHan}+`,
        String.raw`\p{N}`,
      ],
    },
    ['deepseek-coder'],
  ],
  [{ regexes: deepseekV3 }, ['deepseek-v3', 'hunyuan-dense', 'joyai-llm']],
  [{ regexes: [falconPunctuation, gpt2Words, '[0-9][0-9][0-9]'] }, ['falcon']],
  [{ regexes: [notPunctuation] }, ['bloom', 'poro-chat', 'gpt3-finnish']],
  [{ regexes: [notPunctuation, String.raw`\p{N}`] }, ['viking']],
  [
    {
      regexes: [String.raw`'(?i:[sdmt]|ll|ve|re)|${letters}|\p{N}|${symbols}|\s*[\r\n]|\s+(?!\S)|\s+`],
    },
    ['bailingmoe', 'bailingmoe2', 'llada-moe'],
  ],
  [
    { regexes: [String.raw`${contractions}|${letters}|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|${spaces}`] },
    ['seed-coder'],
  ],
];

const byName: ReadonlyMap<string, GgufPreTokenizer> = new Map(
  families.flatMap(([preTokenizer, names]) => names.map((name) => [name, preTokenizer] as const)),
);

export function findGgufPreTokenizer(name: string): GgufPreTokenizer | undefined {
  return byName.get(name);
}

export function ggufPreTokenizerNames(): string[] {
  return [...byName.keys()].toSorted();
}
