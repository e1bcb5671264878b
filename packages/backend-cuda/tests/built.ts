import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The native part, as `npm run build` leaves it where there are a GPU and nvcc, or `npm run build:native`. */
export const addon = fileURLToPath(new URL('../native/build/Release/tenon_cuda.node', import.meta.url));
export const isBuilt = existsSync(addon);
