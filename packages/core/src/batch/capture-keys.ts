/**
 * Numbers for the shapes of steps that recur: 1, 2, … in the order of their first appearance. The writers of all steps in flight share
 * one, so that a key means one shape.
 */
export class CaptureKeys {
  readonly #shapes: Int32Array[] = [];

  /** `sampling`: a number of what the rows ask of it. Few shapes recur, so looking through them allocates nothing and costs nothing. */
  keyOf(
    numSeqs: number,
    numLogitRows: number,
    stride: number,
    maxTopLogprobs: number,
    blockTablesAt: number,
    sampling: number,
  ): number {
    for (let i = 0; i < this.#shapes.length; i++) {
      const shape = this.#shapes[i]!;
      if (
        shape[0] === numSeqs &&
        shape[1] === numLogitRows &&
        shape[2] === stride &&
        shape[3] === maxTopLogprobs &&
        shape[4] === blockTablesAt &&
        shape[5] === sampling
      )
        return i + 1;
    }
    const shape = Int32Array.of(numSeqs, numLogitRows, stride, maxTopLogprobs, blockTablesAt, sampling);
    return this.#shapes.push(shape);
  }
}
