/** Logprobs in the two shapes of OpenAI's API, and prompt logprobs in vLLM's. */
import type { Logprob } from '../../engine/types.js';
import type { Tokenizer } from '../../tokenizer/types.js';

/** JSON has no -Infinity. */
const minLogprob = -9999;

/** How tokens are spelled in answers. */
export class TokenSpelling {
  readonly #tokenizer: Tokenizer | undefined;
  readonly #asIds: boolean;

  constructor(tokenizer: Tokenizer | undefined, asTokenIds: boolean) {
    this.#tokenizer = tokenizer;
    this.#asIds = asTokenIds || tokenizer === undefined;
  }

  /** The token's text, or `token_id:<id>`; parts of UTF-8 characters become U+FFFD. */
  text(tokenId: number): string {
    if (this.#asIds) return `token_id:${tokenId}`;
    return Buffer.from(this.#bytesOf(tokenId)).toString('utf8');
  }

  bytes(tokenId: number): number[] {
    if (this.#asIds) return [...Buffer.from(`token_id:${tokenId}`)];
    return [...this.#bytesOf(tokenId)];
  }

  decoded(tokenId: number): string | null {
    return this.#tokenizer === undefined ? null : Buffer.from(this.#bytesOf(tokenId)).toString('utf8');
  }

  #bytesOf(tokenId: number): Uint8Array {
    return this.#tokenizer?.tokenBytes(tokenId) ?? new Uint8Array();
  }
}

export interface CompletionLogprobs {
  readonly text_offset: number[];
  readonly token_logprobs: (number | null)[];
  readonly tokens: string[];
  readonly top_logprobs: (Record<string, number> | null)[];
}

/**
 * One entry per token; undefined entries are a prompt's first token.
 * `textOffset`: characters of this choice's text before the first of them.
 */
export function completionLogprobs(
  tokenIds: readonly number[],
  logprobs: readonly (readonly Logprob[] | undefined)[],
  spelling: TokenSpelling,
  textOffset: number,
): CompletionLogprobs {
  const result: CompletionLogprobs = { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] };
  let offset = textOffset;
  tokenIds.forEach((tokenId, i) => {
    const entries = logprobs[i];
    const token = spelling.text(tokenId);
    result.text_offset.push(offset);
    result.tokens.push(token);
    result.token_logprobs.push(entries?.[0] === undefined ? null : floored(entries[0].logprob));
    result.top_logprobs.push(entries === undefined ? null : topByText(entries, spelling));
    offset += token.length;
  });
  return result;
}

/** The token itself and the top ones, as vLLM. */
function topByText(entries: readonly Logprob[], spelling: TokenSpelling): Record<string, number> {
  return Object.fromEntries(entries.map((entry) => [spelling.text(entry.tokenId), floored(entry.logprob)]));
}

interface ChatTokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: number[];
}

export interface ChatLogprobs {
  readonly content: (ChatTokenLogprob & { readonly top_logprobs: ChatTokenLogprob[] })[];
}

export function chatLogprobs(
  tokenIds: readonly number[],
  logprobs: readonly (readonly Logprob[])[],
  numTop: number,
  spelling: TokenSpelling,
): ChatLogprobs {
  const spell = (entry: Logprob): ChatTokenLogprob => ({
    token: spelling.text(entry.tokenId),
    logprob: floored(entry.logprob),
    bytes: spelling.bytes(entry.tokenId),
  });
  const content = tokenIds.map((tokenId, i) => {
    const entries = logprobs[i] ?? [];
    const own = entries[0] ?? { tokenId, logprob: Number.NEGATIVE_INFINITY, rank: 0 };
    return { ...spell(own), top_logprobs: topEntries(entries, numTop).map(spell) };
  });
  return { content };
}

/** The most likely tokens, best first; the sampled token is among them only by its rank. */
function topEntries(entries: readonly Logprob[], numTop: number): Logprob[] {
  const byId = new Map(entries.map((entry) => [entry.tokenId, entry]));
  const sorted = [...byId.values()].toSorted((a, b) => a.rank - b.rank);
  return numTop < 0 ? sorted : sorted.slice(0, numTop);
}

type PromptLogprobs = (Record<
  string,
  { logprob: number; rank: number; decoded_token: string | null }
> | null)[];

export function promptLogprobs(
  logprobs: readonly (readonly Logprob[] | undefined)[],
  spelling: TokenSpelling,
): PromptLogprobs {
  return logprobs.map((entries) => {
    if (entries === undefined) return null;
    return Object.fromEntries(
      entries.map(({ tokenId, logprob, rank }) => [
        tokenId,
        { logprob: floored(logprob), rank, decoded_token: spelling.decoded(tokenId) },
      ]),
    );
  });
}

function floored(logprob: number): number {
  return Math.max(logprob, minLogprob);
}
