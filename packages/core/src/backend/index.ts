/** `@tenon/core/backend`: the contract between core and backends. Types and constants only. */
export * from './contract.js';
export * from './dtype.js';
export * from './ops.js';
export * from './plan.js';
export * from './step.js';
export * from './weight-scheme.js';
