import { PassThrough } from 'node:stream';

import { describe, expect, it } from 'vitest';

import { TenonError } from '../errors.js';
import { answerLines, type LineLoop } from './line-loop.js';

const ctrlC = '\u0003';
const ctrlD = '\u0004';

function start(answer: LineLoop['answer'], isInteractive: boolean) {
  const input = new PassThrough();
  const output = new PassThrough();
  let shown = '';
  output.on('data', (text: Buffer) => (shown += text.toString()));
  const ended = answerLines({ greeting: 'Hello.', answer }, { input, output, isInteractive });
  return { input, ended, shown: () => shown };
}

describe('answerLines on a terminal', () => {
  it('stops an answer with Ctrl-C and goes on', async () => {
    const asked: string[] = [];
    let isStopped = false;
    const { input, ended, shown } = start(async (line, signal) => {
      asked.push(line);
      if (line !== 'long') return;
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      isStopped = true;
    }, true);
    input.write('long\n');
    await expect.poll(() => asked).toEqual(['long']);
    input.write(ctrlC);
    await expect.poll(() => isStopped).toBe(true);
    input.write('next\n');
    await expect.poll(() => asked).toEqual(['long', 'next']);
    input.write(ctrlD);
    await ended;
    expect(shown()).toContain('Hello.\n');
    expect(shown()).not.toContain('again to exit');
  });

  it('ends with the second Ctrl-C at the prompt', async () => {
    const { input, ended, shown } = start(async () => {}, true);
    input.write(ctrlC);
    await expect.poll(shown).toContain('(Ctrl-C again to exit)');
    input.write(ctrlC);
    await ended;
  });

  it('tells errors and goes on', async () => {
    const { input, ended, shown } = start(async (line) => {
      if (line === 'bad') throw new TenonError('request.prompt-too-long', 'too long');
    }, true);
    input.write('bad\n');
    await expect.poll(shown).toContain('error [request.prompt-too-long]: too long');
    input.write(ctrlD);
    await ended;
  });
});

describe('answerLines on a pipe', () => {
  it('answers each line that is not empty, without prompts', async () => {
    const asked: string[] = [];
    const { input, ended, shown } = start(async (line) => void asked.push(line), false);
    input.end('one\n\ntwo');
    await ended;
    expect(asked).toEqual(['one', 'two']);
    expect(shown()).toBe('');
  });

  it('ends with the first error', async () => {
    const { input, ended } = start(async () => {
      throw new TenonError('request.prompt-too-long', 'too long');
    }, false);
    input.end('one\n');
    await expect(ended).rejects.toThrow('too long');
  });
});
