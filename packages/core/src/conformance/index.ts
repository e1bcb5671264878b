/** `@tenon/core/conformance`: the conformance kit, the two devices that are always there, and what tests of backends need. */
export { createNullBackend, nullBackend, type NullBackendOptions } from './null-backend.js';
export {
  createReferenceBackend,
  referenceBackend,
  type ReferenceBackendOptions,
} from './reference-backend.js';
export { GraphBuilder, type Value } from '../program/graph-builder.js';
export { planProgram, type BuiltPlan, type PlanNegotiation } from '../program/build-plan.js';
export { lower } from '../program/lower.js';
export { Interpreter } from '../program/reference/interpreter.js';
export { StepReader } from '../program/reference/step-reader.js';
export { sampleRow, uniform, type SampleResult, type SampleRow } from '../program/reference/sample.js';
export type { ConformanceCase, Level, WorstElement } from './case.js';
export type { KernelSpeed, PackageUnderTest } from './kit.js';
export { ObservedBackend } from './observed-backend.js';
export { Random } from './random.js';
export { makeReport, type ConformanceReport, type LevelSummary, type TestedBackend } from './report.js';
export {
  listCases,
  runConformance,
  type CaseResult,
  type ConformanceEvent,
  type ConformanceOptions,
} from './run-conformance.js';
export { textReport } from './text-report.js';
