/** Tenon as a library. */
export { LLM, type CallOptions, type ChatOptions, type PromptInput } from './llm.js';
export { createEngine, explainModel, type EngineHost, type LoadedEngine } from './container.js';
export type { EngineOptions } from './config/engine-options.js';
export type { RuntimeInfo } from './engine/engine-runtime.js';
export type {
  CompletionOutput,
  Engine,
  EngineInfo,
  EngineStats,
  FinishReason,
  FinishedRequest,
  GenerateRequest,
  Logprob,
  Prompt,
  RequestMetrics,
  RequestOutput,
  StepObservation,
} from './engine/types.js';
export { errorCodes, TenonError, type ErrorCode, type ErrorKind } from './errors.js';
export { resolveSamplingParams, samplingDefaults } from './sampling/resolve-sampling-params.js';
export type { SamplingParams } from './sampling/sampling-params.js';
export type {
  ChatMessage,
  ChatTemplateOptions,
  IncrementalDetokenizer,
  Tokenizer,
} from './tokenizer/types.js';
export { tenonVersion } from './version.js';
