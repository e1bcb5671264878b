import type { FastifyInstance } from 'fastify';

import { TenonError } from '../../errors.js';
import { servedModel } from '../generation/answer.js';
import { errorResponses } from '../schemas/responses.js';
import { DetokenizeRequest, DetokenizeResponse } from '../schemas/tokenize.js';
import type { ServerContext } from '../server-context.js';
import { requireTokenizer } from './tokenize.js';

export function detokenizeRoute(app: FastifyInstance, context: ServerContext): void {
  const { vocabSize } = context.engine.info;
  app.post<{ Body: DetokenizeRequest }>('/detokenize', {
    schema: {
      summary: 'The text of tokens',
      tags: ['tokens'],
      body: DetokenizeRequest,
      response: { 200: DetokenizeResponse, ...errorResponses },
    },
    handler: async ({ body }) => {
      servedModel(body.model, context);
      const unknown = body.tokens.find((tokenId) => tokenId >= vocabSize);
      if (unknown !== undefined) {
        const message = `'tokens' has token id ${unknown}; the vocabulary has ${vocabSize} tokens`;
        throw new TenonError('request.token-out-of-vocabulary', message, { param: 'tokens' });
      }
      return { prompt: requireTokenizer(context).decode(body.tokens, { skipSpecialTokens: false }) };
    },
  });
}
