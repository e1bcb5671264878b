import type { FastifyInstance } from 'fastify';

import { TenonError } from '../../errors.js';
import type { Tokenizer } from '../../tokenizer/types.js';
import { servedModel } from '../generation/answer.js';
import { renderMessages } from '../generation/chat-prompt.js';
import { errorResponses } from '../schemas/responses.js';
import { TokenizeRequest, TokenizeResponse } from '../schemas/tokenize.js';
import type { ServerContext } from '../server-context.js';

export function tokenizeRoute(app: FastifyInstance, context: ServerContext): void {
  app.post<{ Body: TokenizeRequest }>('/tokenize', {
    schema: {
      summary: 'The tokens of a text or a conversation',
      tags: ['tokens'],
      body: TokenizeRequest,
      response: { 200: TokenizeResponse, ...errorResponses },
    },
    handler: async ({ body }) => {
      servedModel(body.model, context);
      const tokenizer = requireTokenizer(context);
      const { text, addSpecialTokens } = textToTokenize(body, tokenizer, context);
      const tokens = await tokenizer.encodeAsync(text, { addSpecialTokens });
      const spelled =
        body.return_token_strs === true ? tokens.map((id) => tokenizer.idToToken(id) ?? '') : null;
      return {
        count: tokens.length,
        max_model_len: context.engine.info.maxModelLen,
        tokens,
        token_strs: spelled,
      };
    },
  });
}

function textToTokenize(
  body: TokenizeRequest,
  tokenizer: Tokenizer,
  context: ServerContext,
): { text: string; addSpecialTokens: boolean } {
  if ((body.prompt === undefined) === (body.messages === undefined)) {
    throw new TenonError('request.invalid-body', "give either 'prompt' or 'messages'", { param: 'prompt' });
  }
  if (body.prompt !== undefined)
    return { text: body.prompt, addSpecialTokens: body.add_special_tokens ?? true };
  const text = renderMessages({ ...body, messages: body.messages ?? [] }, tokenizer, context);
  return { text, addSpecialTokens: body.add_special_tokens ?? false };
}

export function requireTokenizer({ engine }: ServerContext): Tokenizer {
  if (engine.tokenizer !== undefined) return engine.tokenizer;
  throw new TenonError('request.no-tokenizer', 'the server runs without a tokenizer (--skip-tokenizer-init)');
}
