/** Figures of a benchmark, for a person and for a file. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** Lines of `name   value`. */
export function printFigures(title: string, figures: readonly (readonly [string, string | number])[]): void {
  const shown = figures.map(([name, value]) => [name, typeof value === 'number' ? digits(value) : value]);
  const nameWidth = Math.max(...shown.map(([name = '']) => name.length));
  const valueWidth = Math.max(...shown.map(([, value = '']) => value.length));
  const lines = shown.map(
    ([name = '', value = '']) => `${name.padEnd(nameWidth)}  ${value.padStart(valueWidth)}`,
  );
  process.stdout.write(`${title}\n${lines.join('\n')}\n`);
}

/** Columns of numbers under a head, a name before each row. */
export function printTable(head: readonly string[], rows: readonly (readonly [string, ...number[]])[]): void {
  const lines = [head, ...rows.map(([name, ...values]) => [name, ...values.map(digits)])];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  const text = lines.map((line) =>
    line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  '),
  );
  process.stdout.write(`\n${text.join('\n')}\n`);
}

/** Three significant digits, more where there are more before the point. */
function digits(value: number): string {
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

export function saveJson(file: string | undefined, value: object): void {
  if (file === undefined) return;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
  process.stderr.write(`figures are in ${file}\n`);
}

/** How far it is, on one line of a terminal; `undefined` ends it. */
export function showProgress(text: string | undefined): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001B[K${text ?? ''}`);
}
