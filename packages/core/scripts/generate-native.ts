/** Writes native/include/tenon/schema.gen.h from the op table, the plan and the step schema. */
import { writeFileSync } from 'node:fs';
import { renderSchemaHeader } from '../src/program/native-schema.js';

writeFileSync(new URL('../native/include/tenon/schema.gen.h', import.meta.url), renderSchemaHeader());
