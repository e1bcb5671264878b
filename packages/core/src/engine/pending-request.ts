import { asTenonError, TenonError } from '../errors.js';
import type { RequestState } from './request-state.js';
import type { OutputSource } from './request-stream.js';
import type { GenerateRequest, RequestOutput } from './types.js';

/** A request between `generate` and its stream: started by the first read, left by the consumer at any time. */
export class PendingRequest implements OutputSource {
  #state: RequestState | undefined = undefined;
  #error: TenonError | undefined = undefined;
  #isLeft = false;

  constructor(
    private readonly request: GenerateRequest,
    private readonly begin: (
      request: GenerateRequest,
      isWanted: () => boolean,
      onNews: () => void,
    ) => Promise<RequestState | undefined>,
    private readonly leaveRequest: (state: RequestState) => void,
  ) {}

  start(onNews: () => void): void {
    this.begin(this.request, () => !this.#isLeft, onNews).then(
      (state) => {
        this.#state = state;
        if (state !== undefined && this.#isLeft) this.leaveRequest(state);
        onNews();
      },
      (error: unknown) => {
        this.#error = this.request.signal?.aborted === true ? aborted() : asTenonError(error);
        onNews();
      },
    );
  }

  take(): RequestOutput | undefined {
    const error = this.#error ?? this.#state?.error;
    if (error !== undefined) throw error;
    return this.#state?.takeOutput();
  }

  leave(): void {
    this.#isLeft = true;
    if (this.#state !== undefined) this.leaveRequest(this.#state);
  }
}

const aborted = () => new TenonError('request.aborted', 'the request was aborted before it began');
