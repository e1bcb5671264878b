/** How to reach the hub: Hugging Face's environment variables, and a fetch that signs requests and explains failures. */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { getHFHubCachePath, HUB_URL } from '@huggingface/hub';
import { TenonError } from '../errors.js';

export interface HubSettings {
  /** No slash at its end. */
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly cacheDir: string;
  readonly offline: boolean;
}

/** From HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_CACHE, HF_HOME and HF_HUB_OFFLINE, as Python's library reads them. */
export async function readHubSettings(downloadDir?: string): Promise<HubSettings> {
  return {
    endpoint: readEndpoint(process.env['HF_ENDPOINT']),
    token: process.env['HF_TOKEN'] || process.env['HUGGING_FACE_HUB_TOKEN'] || (await readTokenFile()),
    cacheDir: downloadDir ?? getHFHubCachePath(),
    offline: readFlag('HF_HUB_OFFLINE'),
  };
}

function readEndpoint(value: string | undefined): string {
  if (!value) return HUB_URL;
  if (/^https?:$/.test(URL.canParse(value) ? new URL(value).protocol : '')) return value.replace(/\/+$/, '');
  throw new TenonError(
    'config.invalid-environment',
    `HF_ENDPOINT is '${value}'; expected an http or https URL`,
  );
}

async function readTokenFile(): Promise<string | undefined> {
  const home =
    process.env['HF_HOME'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'huggingface');
  const token = await readFile(process.env['HF_TOKEN_PATH'] ?? join(home, 'token'), 'utf8').catch(() => '');
  return token.trim() || undefined;
}

function readFlag(name: string): boolean {
  const value = (process.env[name] ?? '').toLowerCase();
  if (['1', 'true', 'yes', 'on'].includes(value)) return true;
  if (['', '0', 'false', 'no', 'off'].includes(value)) return false;
  throw new TenonError('config.invalid-environment', `${name} is '${process.env[name]}'; expected 1 or 0`);
}

/**
 * A fetch that sends the token to the hub (and to nobody else) and throws `config.download-failed` or
 * `config.model-not-found` for every answer but success. `what` is being asked for.
 */
export function hubFetch(settings: HubSettings, what: string): typeof fetch {
  return async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    const headers = new Headers(init?.headers);
    if (settings.token !== undefined && url.origin === new URL(settings.endpoint).origin) {
      headers.set('Authorization', `Bearer ${settings.token}`);
    }
    let response: Response;
    try {
      response = await fetch(url, { ...init, headers });
    } catch (error) {
      throw unreachable(settings, what, error);
    }
    if (response.ok) return response;
    await response.body?.cancel();
    throw refusal(settings, what, response);
  };
}

function unreachable(settings: HubSettings, what: string, error: unknown): TenonError {
  const cause = (error as Error).cause ?? error;
  return new TenonError(
    'config.download-failed',
    `cannot reach ${settings.endpoint} for ${what}: ${(cause as Error).message}; check the network and HF_ENDPOINT, ` +
      `or name a model that is on this machine`,
    { cause: error },
  );
}

/**
 * By status and `X-Error-Code`. Without the right token the hub answers 401 for private models and for those that do
 * not exist alike; only gated ones it names.
 */
function refusal(settings: HubSettings, what: string, response: Response): TenonError {
  const { status } = response;
  const reason = response.headers.get('X-Error-Code') ?? response.statusText;
  const answered = `${settings.endpoint} answered ${status} ${reason} for ${what}`;
  const token =
    settings.token === undefined
      ? 'set HF_TOKEN to a token that may read it'
      : 'the token of HF_TOKEN may not read it';
  if (status === 404 || reason === 'RepoNotFound' || (status === 401 && reason !== 'GatedRepo')) {
    return new TenonError(
      'config.model-not-found',
      `${answered}: there is no such model, revision or file, or it is private; check the spelling, or for a private one ${token}`,
      { param: 'model' },
    );
  }
  if (status === 401 || status === 403) {
    return new TenonError(
      'config.download-failed',
      `${answered}: it is gated or private; ask for access at ${settings.endpoint}, then ${token}`,
      { param: 'model' },
    );
  }
  const retryAfter = Number(response.headers.get('Retry-After') ?? NaN);
  return new TenonError('config.download-failed', `${answered}; try again later`, {
    retryAfterSeconds:
      status >= 500 || status === 429 ? (Number.isFinite(retryAfter) ? retryAfter : 1) : undefined,
  });
}
