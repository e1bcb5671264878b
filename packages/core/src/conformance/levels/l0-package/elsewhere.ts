/** Loads the backend's package outside of this thread and runs a step of a tiny program there. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { lower } from '../../../program/lower.js';
import { fail, notApplicable } from '../../case.js';
import { expectEqual } from '../../compare.js';
import type { Kit, PackageUnderTest } from '../../kit.js';
import { legalSteps, limitsFor } from '../../legal-steps.js';
import { OpProgram } from '../../op-program.js';
import { encodeStep } from '../../plain-step.js';
import { ReferenceRunner } from '../../reference-runner.js';
import { countsOf, decodeResult, resultSize, type StepResult } from '../../step-runner.js';
import { BlockGiver } from '../../test-sequences.js';

/** What the script below is given. */
interface ScriptInput {
  /** Of backends that are loaded and run one after another. */
  readonly entries: readonly string[];
  /** Of the first; the others' own first one. */
  readonly deviceId: string;
  readonly plan: object;
  readonly locations: readonly object[];
  readonly step: readonly number[];
  readonly resultWords: number;
}

interface ScriptOutput {
  /** Words of each entry's result. */
  readonly results: readonly number[][];
  /** Shared objects in the process. */
  readonly libraries: readonly string[];
}

/** Plain JavaScript, since the process and the thread that run it know nothing of core. */
const script = `
  async function runAll({ entries, deviceId, plan, locations, step, resultWords }) {
    const { readFileSync } = require('node:fs');
    const { pathToFileURL } = require('node:url');
    const read = async (name) => {
      const { file, offset, sizeBytes } = locations.find((location) => location.name === name);
      return new Float32Array(Uint8Array.from(readFileSync(file).subarray(offset, offset + sizeBytes)).buffer);
    };
    const weights = { locations: new Map(locations.map((location) => [location.name, location])), read };
    const opened = [];
    for (const [i, entry] of entries.entries()) {
      const backend = (await import(pathToFileURL(entry).href)).default.create({ log() {} });
      const [first] = await backend.devices();
      const group = await backend.open([i === 0 ? deviceId : first.id], {});
      let done;
      const executable = await group.load(plan, weights, { onStepDone: (id, error) => done(error) });
      opened.push({ group, executable, run: (words, result) => new Promise((resolve) => { done = resolve; executable.run(words, result); }) });
    }
    const results = [];
    for (const { run } of opened) {
      const result = new Int32Array(resultWords);
      const error = await run(Int32Array.from(step), result);
      if (error) throw new Error(error.code + ': ' + error.message);
      results.push(Array.from(result));
    }
    for (const { group, executable } of opened) { await executable.close(); await group.close(); }
    process.report.excludeNetwork = true;
    return { results, libraries: process.report.getReport().sharedObjects };
  }`;

/** A step of an embedding: what is run elsewhere, and what has to come of it. */
export class Elsewhere {
  readonly #input: ScriptInput;
  readonly #expected: StepResult;
  readonly #decode: (words: readonly number[]) => StepResult;
  readonly package: PackageUnderTest;

  private constructor(
    input: ScriptInput,
    expected: StepResult,
    decode: (words: readonly number[]) => StepResult,
    tested: PackageUnderTest,
  ) {
    this.#input = input;
    this.#expected = expected;
    this.#decode = decode;
    this.package = tested;
  }

  /** Not applicable to a backend that was given as an object. */
  static async prepare(kit: Kit): Promise<Elsewhere> {
    const tested = kit.options.package;
    if (tested === undefined) notApplicable('the backend was given as an object, not as a package');
    const { constraints } = await kit.group();
    const program = new OpProgram(kit.device.preferredDtype, kit.random('elsewhere'));
    program.g.output(program.table(16, program.random.normals(program.vocabSize * 16), 'f32'));
    const limits = limitsFor(constraints, { tokens: 4, seqs: 1, length: 4 }, program.vocabSize);
    const plan = lower(program.finish(), limits, { tokenBuckets: constraints.tokenBuckets });
    const [step] = legalSteps([new BlockGiver(plan.limits, program.random).sequence(4).next([5, 0, 63, 5])], constraints, plan.limits); // prettier-ignore
    const words = encodeStep({ ...step!, stepId: 1 });
    const counts = countsOf(words);
    const weights = program.weights.write(kit.file('elsewhere.safetensors'));
    const input = {
      entries: [tested.entry],
      deviceId: kit.device.id,
      plan,
      locations: [...weights.locations.values()],
      step: Array.from(words),
      resultWords: resultSize(plan, counts),
    };
    const expected = (await ReferenceRunner.load(plan, weights)).run(step!);
    return new Elsewhere(
      input,
      expected,
      (result) => decodeResult(plan, counts, Int32Array.from(result)),
      tested,
    );
  }

  /** In a process of its own, which has to end by itself. */
  async inChild(entries = this.#input.entries): Promise<ScriptOutput> {
    const input = JSON.stringify({ ...this.#input, entries });
    const main = `${script}\nrunAll(${input}).then((output) => process.stdout.write(JSON.stringify(output)));`;
    const { stdout } = await runNode(main);
    return this.#checked(JSON.parse(stdout) as ScriptOutput, 'a child process');
  }

  /** In a worker thread, which has to end by itself. */
  async inWorker(): Promise<ScriptOutput> {
    const main = `${script}
      const { parentPort, workerData } = require('node:worker_threads');
      runAll(workerData).then((output) => parentPort.postMessage(output));`;
    const worker = new Worker(main, { eval: true, workerData: this.#input });
    const output = await new Promise<ScriptOutput>((resolve, reject) => {
      let message: ScriptOutput | undefined;
      worker.on('message', (value: ScriptOutput) => (message = value));
      worker.on('error', reject);
      worker.on('exit', (code) =>
        message === undefined ? reject(new Error(`the thread ended with ${code}`)) : resolve(message),
      );
    });
    return this.#checked(output, 'a worker thread');
  }

  #checked(output: ScriptOutput, where: string): ScriptOutput {
    for (const words of output.results) {
      const [got] = this.#decode(words).outputs.values();
      const [expected] = this.#expected.outputs.values();
      expectEqual(got!.subarray(0, 64), expected!.subarray(0, 64), 16, 'embedding', where);
    }
    return output;
  }
}

/** What a process may take, and what may pass from its last output to its end. */
const limits = { startMs: 30_000, endMs: 5000 };

/** Runs a script until its process ends, with success and by itself. */
async function runNode(main: string): Promise<{ readonly stdout: string }> {
  const child = spawn(process.execPath, ['-e', main], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr, overdue] = ['', '', false];
  const kill = (): void => {
    overdue = true;
    child.kill('SIGKILL');
  };
  let timer = setTimeout(kill, limits.startMs);
  child.stdout.on('data', (text: Buffer) => {
    stdout += String(text);
    clearTimeout(timer);
    timer = setTimeout(kill, limits.endMs);
  });
  child.stderr.on('data', (text: Buffer) => (stderr += String(text)));
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  clearTimeout(timer);
  const isDone = stdout.includes('"results"');
  if (overdue && isDone)
    fail(`the process did not end by itself in the ${limits.endMs / 1000} s after all was closed`);
  if (overdue) fail(`the process did not end within ${limits.startMs / 1000} s`);
  if (signal !== null) fail(`the process was ended by ${signal}${isDone ? ', after its work was done' : ''}`);
  if (code !== 0) fail(`the process ended with ${code}: ${stderr.trim().split('\n').slice(-8).join(' ')}`);
  return { stdout };
}
