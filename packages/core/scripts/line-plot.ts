/** Line plots as SVG text, with a legend and a logarithmic or linear x axis. The y axis begins at 0. */
export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface LinePlot {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly logX: boolean;
  readonly series: readonly Series[];
}

const size = { width: 720, height: 400 };
const frame = { left: 70, right: 700, top: 40, bottom: 300 };
const colors = ['#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#ff7f0e', '#17becf'];
const numYTicks = 5;
const numXTicks = 8;

export function linePlot(plot: LinePlot): string {
  const xs = [...new Set(plot.series.flatMap(({ points }) => points.map(([x]) => x)))].toSorted(
    (a, b) => a - b,
  );
  const maxY = roundUp(Math.max(...plot.series.flatMap(({ points }) => points.map(([, y]) => y))));
  const place = plot.logX ? Math.log : (x: number): number => x;
  const [first, last] = [place(xs[0]!), place(xs.at(-1)!)];
  const toX = (x: number): number =>
    frame.left + ((place(x) - first) / (last - first)) * (frame.right - frame.left);
  const toY = (y: number): number => frame.bottom - (y / maxY) * (frame.bottom - frame.top);
  const ticks = plot.logX ? xs : evenly(xs);
  const parts = [
    `<rect width="${size.width}" height="${size.height}" fill="white"/>`,
    text(size.width / 2, 24, plot.title, 'middle', 15),
    ...Array.from({ length: numYTicks + 1 }, (_, i) => yTick((maxY * i) / numYTicks, toY)),
    ...ticks.map((x) => text(toX(x), frame.bottom + 18, shortNumber(x), 'middle')),
    text((frame.left + frame.right) / 2, frame.bottom + 38, plot.xLabel, 'middle'),
    `<g transform="translate(18 ${(frame.top + frame.bottom) / 2}) rotate(-90)">${text(0, 0, plot.yLabel, 'middle')}</g>`,
    ...plot.series.map((series, i) => line(series, colors[i % colors.length]!, toX, toY)),
    ...plot.series.map(({ name }, i) => legend(name, i)),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" font-family="sans-serif" font-size="12">\n${parts.join('\n')}\n</svg>\n`;
}

function line({ points }: Series, color: string, toX: (x: number) => number, toY: (y: number) => number) {
  const path = points.map(([x, y]) => `${toX(x).toFixed(1)},${toY(y).toFixed(1)}`);
  const dots = points.length > 30 ? [] : path.map((at) => dot(at, color));
  return `<polyline points="${path.join(' ')}" fill="none" stroke="${color}" stroke-width="2"/>${dots.join('')}`;
}

function dot(at: string, color: string): string {
  const [x, y] = at.split(',');
  return `<circle cx="${x}" cy="${y}" r="3" fill="${color}"/>`;
}

function yTick(y: number, toY: (y: number) => number): string {
  const at = toY(y).toFixed(1);
  return `<line x1="${frame.left}" x2="${frame.right}" y1="${at}" y2="${at}" stroke="#ddd"/>${text(frame.left - 8, toY(y) + 4, shortNumber(y), 'end')}`;
}

function legend(name: string, i: number): string {
  const [x, y] = [frame.left + (i % 2) * 320, frame.bottom + 62 + Math.floor(i / 2) * 18];
  const color = colors[i % colors.length]!;
  return `<rect x="${x}" y="${y - 9}" width="18" height="4" fill="${color}"/>${text(x + 26, y - 2, name, 'start')}`;
}

function text(x: number, y: number, content: string, anchor: string, fontSize = 12): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" font-size="${fontSize}">${escaped}</text>`;
}

/** 1, 2 or 5 times a power of ten. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10) * power;
}

function evenly(xs: readonly number[]): number[] {
  const step = Math.max(1, Math.ceil(xs.length / numXTicks));
  return xs.filter((_, i) => i % step === 0);
}

/** 4096 as 4 096, 65 536 as 64 k, 2^20 as 1 M. */
export function shortNumber(value: number): string {
  if (value >= 2 ** 20 && value % 2 ** 20 === 0) return `${value / 2 ** 20} M`;
  if (value >= 2 ** 14 && value % 1024 === 0) return `${value / 1024} k`;
  return String(Number(value.toPrecision(4))).replaceAll(/(\d)(?=(\d{3})+$)/g, '$1 ');
}
