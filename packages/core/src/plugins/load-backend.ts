/** The code of a backend package. */
import { pathToFileURL } from 'node:url';
import type { BackendModule } from '../backend/index.js';
import { TenonError } from '../errors.js';
import { backendApi } from './backend-api.js';

/**
 * The backend that `entry` exports by default. Errors name the package.
 * @throws config.backend-invalid where the module does not load, is no backend, or was made for a contract that this core lacks
 */
export async function loadBackendModule(packageName: string, entry: string): Promise<BackendModule> {
  const invalid = (reason: string, cause?: unknown) =>
    new TenonError('config.backend-invalid', `backend package ${packageName}: ${reason}`, { cause });
  const loaded = (await import(pathToFileURL(entry).href).catch((error: unknown) => {
    throw invalid(
      `its entry failed to load: ${error instanceof Error ? error.message : String(error)}`,
      error,
    );
  })) as { default?: Partial<BackendModule> };
  const module = loaded.default;
  if (module?.api === undefined || typeof module.create !== 'function') {
    throw invalid(`${entry} has no backend as its default export; expected { api, create }`);
  }
  if (module.api.major !== backendApi.major || module.api.minor > backendApi.minor) {
    const [made, here] = [module.api, backendApi].map(({ major, minor }) => `${major}.${minor}`);
    const remedy = `install ${isOlder(module.api) ? 'a newer version of the package' : 'a newer @tenon/core'}`;
    throw invalid(`it was made for backend api ${made}, and this is ${here}; ${remedy}`);
  }
  return module as BackendModule;
}

const isOlder = ({ major }: { readonly major: number }): boolean => major < backendApi.major;
