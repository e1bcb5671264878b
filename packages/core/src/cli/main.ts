/** The `tenon` command: finds the subcommand, loads only its code, and ends with its status. */
import { Command, CommanderError } from 'commander';

import { hasStuckThread } from '../engine/stuck-threads.js';
import { asTenonError, type ErrorKind, TenonError } from '../errors.js';
import { tenonVersion } from '../version.js';
import { helpTopic, showHelp } from './help.js';
import { normalizeArguments, respellOption } from './parse-options.js';

interface Subcommand {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly summary: string;
  /** Whether it takes the options of vLLM's `serve`, with their short forms and `--config`. */
  readonly takesServeOptions: boolean;
  /** Whether it has subcommands itself. */
  readonly isGroup?: boolean;
  /** Whether `--help` takes a topic. */
  readonly hasHelpTopics?: boolean;
  readonly load: () => Promise<Command>;
}

const subcommands: readonly Subcommand[] = [
  {
    name: 'serve',
    summary: 'serve a model over an OpenAI-compatible API',
    takesServeOptions: true,
    hasHelpTopics: true,
    load: async () => (await import('./serve.js')).serveCommand(),
  },
  {
    name: 'chat',
    summary: 'talk to a running server, or to a model',
    takesServeOptions: false,
    load: async () => (await import('./chat.js')).chatCommand(),
  },
  {
    name: 'complete',
    summary: 'complete texts with a running server, or a model',
    takesServeOptions: false,
    load: async () => (await import('./complete.js')).completeCommand(),
  },
  {
    name: 'explain',
    summary: 'show how a model runs: ops, kernels, bytes and reasons',
    takesServeOptions: true,
    hasHelpTopics: true,
    load: async () => (await import('./explain.js')).explainCommand(),
  },
  {
    name: 'bench',
    summary: 'measure latency, throughput, start, or a running server',
    takesServeOptions: true,
    isGroup: true,
    load: async () => (await import('./bench.js')).benchCommand(),
  },
  {
    name: 'doctor',
    aliases: ['collect-env'],
    summary: 'show every plugin, its state, and why any cannot be used',
    takesServeOptions: false,
    load: async () => (await import('./doctor.js')).doctorCommand(),
  },
  {
    name: 'devices',
    summary: 'show the devices, and which of them can be used',
    takesServeOptions: false,
    load: async () => (await import('./devices.js')).devicesCommand(),
  },
  {
    name: 'conform',
    summary: 'test a backend against the contract',
    takesServeOptions: false,
    load: async () => (await import('./conform.js')).conformCommand(),
  },
  {
    name: 'plugin',
    summary: 'make and publish backends and other plugins',
    takesServeOptions: false,
    isGroup: true,
    load: async () => (await import('./plugin.js')).pluginCommand(),
  },
];

const exitStatus: Readonly<Record<ErrorKind, number>> = {
  request: 1,
  config: 2,
  capacity: 2,
  unsupported: 2,
  backend: 1,
  internal: 1,
};

export async function main(argv: readonly string[]): Promise<void> {
  // A reader that has gone (`| head`) is no failure.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  try {
    await run(argv);
  } catch (thrown) {
    const error = readableError(thrown, argv[0] ?? '');
    if (error === undefined) return;
    process.stderr.write(`error [${error.code}]: ${error.message.replaceAll(/\s*\n\s*/g, ' ')}\n`);
    if (showsStack(argv)) process.stderr.write(`${error.stack}\n${describeCause(error)}`);
    process.exitCode = exitStatus[error.kind];
    // Node would wait for the thread, for ever.
    if (hasStuckThread()) process.kill(process.pid, 'SIGKILL');
  }
}

async function run(argv: readonly string[]): Promise<void> {
  const [first = ''] = argv;
  const chosen = subcommands.find(({ name, aliases }) => name === first || aliases?.includes(first));
  if (chosen === undefined && first !== '' && !first.startsWith('-')) throw unknownCommand(first);
  const program = await buildProgram(chosen);
  const numNames = chosen === undefined ? 0 : chosen.isGroup === true ? 2 : 1;
  const rest = argv.slice(numNames);
  const topic = chosen?.hasHelpTopics === true ? helpTopic(rest) : undefined;
  const command = program.commands.find((candidate) => candidate.name() === chosen?.name);
  if (topic !== undefined && command !== undefined) return showHelp(command, topic);
  const normalized = chosen?.takesServeOptions === true ? normalizeArguments(rest) : rest;
  await program.parseAsync([...argv.slice(0, numNames), ...normalized], { from: 'user' });
}

function unknownCommand(name: string): TenonError {
  const names = subcommands.map((subcommand) => subcommand.name).join(', ');
  return new TenonError(
    'config.invalid-option',
    `no command '${name}'; expected one of ${names}; see 'tenon --help'`,
  );
}

async function buildProgram(chosen: Subcommand | undefined): Promise<Command> {
  const program = new Command('tenon')
    .description('LLM inference and serving')
    .version(tenonVersion, '-v, --version');
  for (const subcommand of subcommands) {
    const command = subcommand === chosen ? await subcommand.load() : new Command(subcommand.name);
    program.addCommand(command.summary(subcommand.summary).aliases(subcommand.aliases ?? []));
  }
  quiet(program);
  return program.action(() => program.help());
}

/** Commander reports by throwing; `main` prints. Also for the command's own subcommands. */
function quiet(command: Command): void {
  command.exitOverride().configureOutput({ writeErr: () => {} });
  for (const subcommand of command.commands) quiet(subcommand);
}

/** Undefined: commander has shown help or the version. */
function readableError(thrown: unknown, first: string): TenonError | undefined {
  if (!(thrown instanceof CommanderError)) return respellOption(asTenonError(thrown));
  if (thrown.exitCode === 0) return undefined;
  const message = thrown.message.replace(/^error: /, '');
  const command = subcommands.find(({ name }) => name === first);
  const help =
    command === undefined ? '--help' : `${first} --help${command.hasHelpTopics === true ? ' all' : ''}`;
  return new TenonError('config.invalid-option', `${message}; see 'tenon ${help}'`);
}

function showsStack(argv: readonly string[]): boolean {
  return (
    /--log[-_]level[= ]debug/.test(argv.join(' ')) ||
    process.env['TENON_LOGGING_LEVEL']?.toLowerCase() === 'debug'
  );
}

function describeCause({ cause }: TenonError): string {
  return cause instanceof Error ? `caused by: ${cause.stack}\n` : '';
}
