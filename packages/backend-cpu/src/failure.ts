/** An Error with a code of docs/errors.md, as the backend contract asks for: core makes a TenonError of it. */
export function failure(
  code: 'backend.load-failed' | 'config.weights-missing',
  message: string,
  cause?: unknown,
): Error {
  return Object.assign(new Error(message, { cause }), { code });
}
