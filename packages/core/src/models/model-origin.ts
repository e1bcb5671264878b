/** A model whose code is a package's: plain data, from which the engine's thread loads it. */
import type { Extension } from '../plugins/extensions.js';
import type { JsonObject } from '../weights/fields.js';

export interface ModelOrigin {
  readonly extension: Extension & { readonly kind: 'models' };
  /** config.json with the user's overrides, as the package's functions read it. */
  readonly raw: JsonObject;
  /** The file, for messages. */
  readonly source: string;
}
