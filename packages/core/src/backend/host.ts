/**
 * `@tenon/core/backend/host`: what a backend in JavaScript needs beside the contract: a reader of steps, and the `sample` op computed on
 * the host. Native backends have both in the SDK (`tenon/step.h`, `tenon/host_sampler.h`).
 */
export { Sampler } from '../program/reference/sampler.js';
export { StepReader } from '../program/reference/step-reader.js';
