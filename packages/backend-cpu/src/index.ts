/** @tenon/backend-cpu: the CPU as a Tenon backend. */
import type { BackendModule } from '@tenon/core/backend';
import { CpuBackend } from './backend.js';
import { loadBinding } from './load-binding.js';

const backend: BackendModule = {
  api: { major: 1, minor: 0, features: [] },
  create: () => new CpuBackend(loadBinding()),
};

export default backend;
