/** Prints a streamed answer as it comes. */
import type { StreamChunk } from './api-client.js';

/** The text; where the signal stopped it, what there was by then. */
export async function printAnswer(
  chunks: AsyncIterable<StreamChunk>,
  signal: AbortSignal,
  options: { readonly stats: boolean },
): Promise<string> {
  const startMs = performance.now();
  let text = '';
  let numTokens = 0;
  try {
    for await (const { choices, usage } of chunks) {
      const news = choices[0]?.delta?.content ?? choices[0]?.text ?? '';
      process.stdout.write(news);
      text += news;
      numTokens = usage?.completion_tokens ?? numTokens;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  process.stdout.write('\n');
  if (options.stats) writeStats(numTokens, performance.now() - startMs);
  return text;
}

function writeStats(numTokens: number, elapsedMs: number): void {
  const speed = ((numTokens * 1000) / elapsedMs).toFixed(1);
  process.stderr.write(`[${numTokens} tokens in ${(elapsedMs / 1000).toFixed(2)} s, ${speed} tokens/s]\n`);
}
