/** Logs to stderr: JSON lines for machines, short lines for a person at a terminal. */
import { type DestinationStream, type Logger, pino } from 'pino';

const pinoLevels: Readonly<Record<string, string>> = { warning: 'warn' };
const levelNames: Readonly<Record<number, string>> = {
  20: 'debug',
  30: 'info',
  40: 'warning',
  50: 'error',
  60: 'fatal',
};

export function createLogger(level: string): Logger {
  const destination = process.stderr.isTTY ? textLines() : jsonLines();
  return pino({ level: pinoLevels[level] ?? level, base: null }, destination);
}

function jsonLines(): DestinationStream {
  const lines = pino.destination({ dest: 2, sync: true });
  // A reader of logs that has gone must not end the server.
  lines.on('error', () => {});
  return lines;
}

/** A line of statistics takes the place of the one before it, where nothing was said between them. */
function textLines(): DestinationStream {
  let statsBefore = '';
  return {
    write(line: string) {
      const { level, time, msg, err, stats } = JSON.parse(line) as LogLine;
      const clock = new Date(time).toTimeString().slice(0, 8);
      const stack = err === undefined ? '' : `\n${err.stack}`;
      const text = `${clock} ${(levelNames[level] ?? 'info').padEnd(7)} ${msg}${stack}`;
      const erasing = stats === undefined || statsBefore === '' ? '' : erase(statsBefore);
      process.stderr.write(`${erasing}${text}\n`);
      statsBefore = stats === undefined ? '' : text;
    },
  };
}

/** Goes back over the rows of the terminal that a line has taken, and clears them. */
function erase(text: string): string {
  const columns = process.stderr.columns || 80;
  return `\u001B[${Math.ceil(text.length / columns)}A\u001B[J`;
}

interface LogLine {
  readonly level: number;
  readonly time: number;
  readonly msg: string;
  readonly err?: { readonly stack: string };
  readonly stats?: object;
}
