import type { FastifyInstance } from 'fastify';

import type { GenerateRequest } from '../../../engine/types.js';
import { beginAnswer } from '../../generation/answer.js';
import {
  completionAnswer,
  type CompletionJob,
  CompletionStream,
} from '../../generation/completion-answer.js';
import { completionPrompts } from '../../generation/completion-prompts.js';
import { engineRequestId } from '../../generation/request-id.js';
import { collectOutputs, streamOutputs } from '../../generation/run-requests.js';
import { samplingFromCompletion } from '../../generation/sampling-from-request.js';
import { refuseUnsupportedFields } from '../../request-fields.js';
import { CompletionRequest } from '../../schemas/completions.js';
import { CompletionResponse, errorResponses } from '../../schemas/responses.js';
import type { ServerContext } from '../../server-context.js';

export function completionRoute(app: FastifyInstance, context: ServerContext): void {
  const { engine } = context;
  app.post<{ Body: CompletionRequest }>('/v1/completions', {
    schema: {
      summary: 'Complete one or more prompts',
      tags: ['generate'],
      body: CompletionRequest,
      response: { 200: CompletionResponse, ...errorResponses },
    },
    config: { generates: true },
    preValidation: async (request) => refuseUnsupportedFields('completions', request.body),
    handler: async (request, reply) => {
      const { body } = request;
      const answer = beginAnswer('cmpl', body, request, context);
      const params = samplingFromCompletion(body, engine);
      const prompts = await completionPrompts(body, context);
      const job: CompletionJob = { body, answer, prompts, params, context };
      const requests = engineRequests(job);
      if (body.stream === true) return streamOutputs(context, requests, reply, new CompletionStream(job));
      return completionAnswer(job, await collectOutputs(context, requests, reply));
    },
  });
}

function engineRequests({ body, answer, prompts, params }: CompletionJob): GenerateRequest[] {
  return prompts.map((prompt, i) => ({
    requestId: engineRequestId(answer.id, i),
    prompt,
    params,
    addSpecialTokens: body.add_special_tokens ?? true,
    priority: body.priority,
    cacheSalt: body.cache_salt,
  }));
}
