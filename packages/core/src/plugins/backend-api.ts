/** Version of the backend contract that this core offers. */
export const backendApi = { major: 1, minor: 1 } as const;
