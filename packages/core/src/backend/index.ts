/** `@tenon/core/backend`: the contract between core and backends, and the glue that native backends share. */
export * from './contract.js';
export * from './dtype.js';
export * from './native-backend.js';
export * from './ops.js';
export * from './plan.js';
export * from './step.js';
export * from './weight-scheme.js';
