import type { FastifyInstance } from 'fastify';

import { servedModel } from '../../generation/answer.js';
import { errorResponses, ModelCard, ModelList } from '../../schemas/responses.js';
import type { ServerContext } from '../../server-context.js';

export function modelRoutes(app: FastifyInstance, context: ServerContext): void {
  app.get('/v1/models', {
    schema: {
      summary: 'The served models',
      tags: ['models'],
      response: { 200: ModelList, ...errorResponses },
    },
    handler: async () => ({
      object: 'list',
      data: context.options.servedModelNames.map((name) => modelCard(name, context)),
    }),
  });

  // A wildcard: names of hub models contain slashes.
  app.get<{ Params: { '*': string } }>('/v1/models/*', {
    schema: {
      summary: 'One served model',
      tags: ['models'],
      response: { 200: ModelCard, ...errorResponses },
    },
    handler: async (request) => modelCard(servedModel(request.params['*'], context), context),
  });
}

function modelCard(id: string, { engine, startedAt }: ServerContext): unknown {
  const { backend, device } = engine.info;
  return {
    id,
    object: 'model',
    created: startedAt,
    owned_by: 'tenon',
    root: engine.info.modelPath,
    parent: null,
    max_model_len: engine.info.maxModelLen,
    backend: { id: backend.id, version: backend.version, device },
    permission: [modelPermission(id, startedAt)],
  };
}

function modelPermission(id: string, created: number): unknown {
  return {
    id: `modelperm-${id}`,
    object: 'model_permission',
    created,
    allow_create_engine: false,
    allow_sampling: true,
    allow_logprobs: true,
    allow_search_indices: false,
    allow_view: true,
    allow_fine_tuning: false,
    organization: '*',
    group: null,
    is_blocking: false,
  };
}
