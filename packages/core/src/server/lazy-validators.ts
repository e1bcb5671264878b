/** Validators of request bodies, compiled when first needed or when the server has started, so that starting does not wait. */
import Ajv, { type AnySchema, type ValidateFunction } from 'ajv';
import type { FastifyInstance } from 'fastify';

/** No coercion, no removal: what the client sent is what is judged. */
const ajvOptions = {
  coerceTypes: false,
  removeAdditional: false,
  useDefaults: false,
  allErrors: false,
  verbose: true,
  strict: false,
} as const;

export function registerLazyValidators(app: FastifyInstance): void {
  const ajv = new Ajv.default(ajvOptions);
  const compiling: (() => ValidateFunction)[] = [];
  app.setValidatorCompiler<AnySchema>(({ schema }) => {
    let compiled: ValidateFunction | undefined;
    const compile = (): ValidateFunction => (compiled ??= ajv.compile(schema));
    compiling.push(compile);
    const validate = (data: unknown): boolean => {
      const isValid = compile()(data) as boolean;
      validate.errors = compile().errors;
      return isValid;
    };
    validate.errors = undefined as ValidateFunction['errors'];
    return validate;
  });
  app.addHook('onListen', async () => {
    for (const compile of compiling) setImmediate(compile);
  });
}
