import type { FastifyInstance } from 'fastify';

import type { GenerateRequest } from '../../../engine/types.js';
import { invariant } from '../../../errors.js';
import { beginAnswer } from '../../generation/answer.js';
import { chatAnswer, type ChatJob, ChatStream } from '../../generation/chat-answer.js';
import { chatPrompt } from '../../generation/chat-prompt.js';
import { engineRequestId } from '../../generation/request-id.js';
import { collectOutputs, streamOutputs } from '../../generation/run-requests.js';
import { samplingFromChat } from '../../generation/sampling-from-request.js';
import { refuseUnsupportedFields } from '../../request-fields.js';
import { ChatCompletionRequest } from '../../schemas/chat-completions.js';
import { ChatCompletionResponse, errorResponses } from '../../schemas/responses.js';
import type { ServerContext } from '../../server-context.js';
import { samplingFor, toolCallingOf } from '../../tool-calls/tool-calling.js';

export function chatCompletionRoute(app: FastifyInstance, context: ServerContext): void {
  const { engine } = context;
  app.post<{ Body: ChatCompletionRequest }>('/v1/chat/completions', {
    schema: {
      summary: 'Answer a conversation',
      tags: ['generate'],
      body: ChatCompletionRequest,
      response: { 200: ChatCompletionResponse, ...errorResponses },
    },
    config: { generates: true },
    preValidation: async (request) => refuseUnsupportedFields('chat', request.body),
    handler: async (request, reply) => {
      const { body } = request;
      const answer = beginAnswer('chatcmpl', body, request, context);
      const toolCalling = toolCallingOf(body, context);
      const params = samplingFor(toolCalling, samplingFromChat(body, engine));
      const { text, prompt, addSpecialTokens } = await chatPrompt(body, context, params.maxTokens);
      const job: ChatJob = { body, answer, promptText: text, params, toolCalling, context };
      const generateRequest: GenerateRequest = {
        requestId: engineRequestId(answer.id, 0),
        prompt,
        params,
        addSpecialTokens,
        priority: body.priority,
        cacheSalt: body.cache_salt,
      };
      if (body.stream === true) return streamOutputs(context, [generateRequest], reply, new ChatStream(job));
      const [output] = await collectOutputs(context, [generateRequest], reply);
      invariant(output !== undefined, 'a chat request has one output');
      return chatAnswer(job, output);
    },
  });
}
