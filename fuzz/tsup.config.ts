import { defineConfig } from 'tsup';

/** The targets as files that Jazzer.js can instrument: our sources and the libraries that read models, in one. */
export default defineConfig({
  entry: [
    'js/safetensors.ts',
    'js/gguf.ts',
    'js/config.ts',
    'js/tokenizer.ts',
    'js/chat-template.ts',
    'js/http-body.ts',
  ],
  outDir: '.work/js',
  format: 'cjs',
  outExtension: () => ({ js: '.cjs' }),
  target: 'node20',
  shims: true,
  splitting: false,
  noExternal: ['@huggingface/jinja', '@huggingface/tokenizers', 'typebox'],
  external: [
    'fastify',
    '@fastify/cors',
    '@fastify/swagger',
    '@fastify/swagger-ui',
    'ajv',
    'pino',
    'prom-client',
    '@huggingface/hub',
  ],
});
