/** `@tenon/core/extensions`: what the authors of extensions write against. */
import type { LogitsProcessorExtension } from './logits-processor.js';
import type { ModelSource } from './model-source.js';
import type { ModelExtension } from './model.js';
import type { StatLoggerExtension } from './stat-logger.js';
import type { ToolParserExtension } from './tool-parser.js';

/** The field of `tenon` in package.json, and what the modules that it names export by default. */
export interface ExtensionModules {
  readonly models: ModelExtension;
  readonly modelSources: ModelSource;
  readonly statLoggers: StatLoggerExtension;
  readonly logitsProcessors: LogitsProcessorExtension;
  readonly toolParsers: ToolParserExtension;
}

export type {
  LogitsProcessorExtension,
  ModelExtension,
  ModelSource,
  StatLoggerExtension,
  ToolParserExtension,
};
export { cutRows } from './model.js';
export type {
  ExtraArgs,
  LogitsEdits,
  LogitsProcessor,
  LogitsProcessorContext,
  TokenList,
  Vocabulary,
} from './logits-processor.js';
export type { Tool, ToolDelta, ToolParser, ToolParserOptions } from './tool-parser.js';
export type { ModelSourceOptions, ResolvedModel } from './model-source.js';
export type { StatLogger, StatLoggerOptions, StatRates, StatReport } from './stat-logger.js';

// For models: what records the ops, layers that several architectures share, and what describes a checkpoint.
export type { Activation, Dtype, TensorLocation } from '../backend/index.js';
export { TenonError, type ErrorCode } from '../errors.js';
export { causalDecoder } from '../layers/causal-decoder.js';
export { gatedFeedForward } from '../layers/gated-feed-forward.js';
export { projection } from '../layers/projection.js';
export { rotaryCosSin } from '../layers/rotary.js';
export { selfAttention, type SelfAttentionOptions } from '../layers/self-attention.js';
export type { ModelConfig, RopeScaling } from '../models/model-config.js';
export { ropeParameters, type RopeParameters } from '../models/rope.js';
export type { AttentionShape, GraphBuilder, Value } from '../program/graph-builder.js';
export type { Fields, JsonObject } from '../weights/fields.js';
export type { DownloadProgress } from '../weights/hub-download.js';
