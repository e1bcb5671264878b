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
  for (const line of linesAboutAnswers(report.checks)) console.log(line);
}

/** What the checks found. `judged` is undefined where nothing was. */
function linesAboutAnswers({ judged, agreement, failures }) {
  const lines = Object.entries(judged ?? {}).map(
    ([name, { numTokens, numBehind, mean, worst, margin, allowed }]) => {
      const limits = margin === undefined ? '' : ` (allowed: ${allowed} and ${margin.toFixed(2)})`;
      return `- ${name}: ${numBehind} of ${numTokens} tokens behind, mean ${mean.toFixed(4)}, worst ${worst.toFixed(3)}${limits}`;
    },
  );
  const likeness = Object.entries(agreement).map(
    ([what, { alike, medianCommonPrefix }]) =>
      `- ${what}: ${(alike * 100).toFixed(0)} % begin as Tenon's, median ${medianCommonPrefix} tokens alike`,
  );
  const verdict = failures.length === 0 ? 'All checks of answers hold.' : `${failures.length} failures: ${failures.join('; ')}`; // prettier-ignore
  return [
    '',
    'Answers, in standard deviations behind the token that the model in f32 would choose:',
    '',
    ...lines,
    ...likeness,
    '',
    verdict,
  ];
}

export function markdownOf(report) {
  const [header, ...rows] = tableOf(report);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const columns = header.map((_, i) => (i === 0 ? '---' : '---:'));
  const versions = Object.values(report.engines).map(({ version }) => version);
  return [
    `${report.date}, ${report.machine}; ${versions.join(', ')}`,
    '',
    ...[header, columns, ...rows].map(line),
    ...linesAboutAnswers(report.checks),
  ].join('\n');
}
