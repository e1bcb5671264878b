// The result as a table: on a terminal, and in docs/cuda.md.
import { isMet, targetOf } from './targets.mjs';

/** A row of texts per work that was measured; the first row names the columns. */
export function tableOf({ model, scale, engines }) {
  const names = Object.keys(engines);
  const works = [...new Set(names.flatMap((name) => Object.keys(engines[name].works)))];
  const others = names.filter((name) => name !== 'tenon');
  const header = ['work', ...names, ...others.map((name) => `tenon / ${name}`), 'target', ''];
  return [
    header,
    ...works.map((work) => rowOf(scale === 1 ? model : undefined, engines, names, others, work)),
  ];
}

function rowOf(model, engines, names, others, work) {
  const figures = Object.fromEntries(names.map((name) => [name, engines[name].works[work]]));
  const { unit } = Object.values(figures).find((figure) => figure !== undefined);
  const own = figures.tenon?.value;
  const target = targetOf(model, work, figures.vllm?.value);
  return [
    `${work} (${unit})`,
    ...names.map((name) => (figures[name] === undefined ? '' : withSpread(figures[name]))),
    ...others.map((name) => ratio(own, figures[name]?.value)),
    target === undefined ? '' : `${unit === 'tokens/s' ? '≥' : '≤'} ${shown(target.figure)}${target.note && ` (${target.note})`}`, // prettier-ignore
    target === undefined || own === undefined ? '' : verdict(unit, own, target.figure),
  ];
}

const shown = (value) => (value >= 1000 ? String(Math.round(value)) : value.toPrecision(value >= 100 ? 4 : 3)); // prettier-ignore
const ratio = (own, other) => (own === undefined || other === undefined ? '' : (own / other).toFixed(2));
const verdict = (unit, own, figure) =>
  isMet(unit, own, figure) ? 'met' : `missed: ${(own / figure).toFixed(2)} of it`;

function withSpread({ value, all }) {
  if (all.length === 1) return shown(value);
  return `${shown(value)} (${shown(Math.min(...all))}–${shown(Math.max(...all))})`;
}

export function printTable(report) {
  const rows = tableOf(report);
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  console.log(`\n${report.model}, ${report.date}: medians (spread)`);
  for (const row of rows) console.log(row.map((cell, i) => cell.padEnd(widths[i])).join('  ').trimEnd()); // prettier-ignore
  const { judged = {}, agreement, failures } = report.checks;
  console.log(
    '\nAnswers: standard deviations of the logits behind the token that the model in f32 would choose',
  );
  for (const [name, { numTokens, numBehind, mean, worst, margin, allowed }] of Object.entries(judged)) {
    const limits = margin === undefined ? '' : `; allowed ${allowed} and ${margin.toFixed(3)}`;
    console.log(`  ${name}: ${numBehind} of ${numTokens} tokens, mean ${mean.toFixed(4)}, worst ${worst.toFixed(3)}${limits}`); // prettier-ignore
  }
  for (const [what, { alike, medianCommonPrefix }] of Object.entries(agreement))
    console.log(`  ${what}: ${(alike * 100).toFixed(0)} % begin as Tenon's, median ${medianCommonPrefix} tokens alike`); // prettier-ignore
  console.log(failures.length === 0 ? 'all checks of answers hold' : `${failures.length} failures`);
}

export function markdownOf(report) {
  const [header, ...rows] = tableOf(report);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map((_, i) => (i === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n');
}
