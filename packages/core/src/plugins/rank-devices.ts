/** Which device `auto` means, for one model: by a tuple of criteria that can be shown, never by a number that a backend gives itself. */
import { alignColumns } from '../align-columns.js';
import type { Backend, DeviceInfo } from '../backend/index.js';
import type { TenonError } from '../errors.js';
import { readConformance, type ConformanceSummary } from './conformance-summary.js';
import { deviceClasses } from './manifest.js';
import { findMatch, pciDevices } from './pci-devices.js';
import type { BackendReport } from './survey.js';

export interface ChosenDevice {
  readonly backend: Backend;
  readonly device: DeviceInfo;
}

/** Whether a model runs on a device: why its plan is not valid there, or why it does not fit. */
export interface Fitness {
  readonly planProblem?: TenonError;
  readonly memoryProblem?: TenonError;
}

export interface RankedDevice extends ChosenDevice {
  readonly report: BackendReport;
  readonly fitness: Fitness;
  readonly conformance: ConformanceSummary | undefined;
  /** The hardware that its package's manifest names and this machine has. */
  readonly hardware: ReturnType<typeof findMatch>;
}

interface Criterion {
  readonly name: string;
  /** The greater goes first. */
  readonly value: (device: RankedDevice) => number;
  readonly text: (device: RankedDevice) => string;
}

/** The first that differs decides; after the last, the id does. */
const criteria: readonly Criterion[] = [
  { name: 'named', value: ({ report }) => Number(report.source === 'option'), text: ({ report }) => (report.source === 'option' ? 'yes' : 'no') },
  { name: 'plan', value: ({ fitness }) => Number(fitness.planProblem === undefined), text: ({ fitness }) => (fitness.planProblem === undefined ? 'valid' : 'invalid') },
  { name: 'fits', value: ({ fitness }) => Number(fits(fitness)), text: ({ fitness }) => (fits(fitness) ? 'yes' : 'no') },
  { name: 'class', value: ({ device }) => -deviceClasses.indexOf(device.class), text: ({ device }) => device.class },
  { name: 'conformance', value: ({ conformance }) => conformance?.level ?? -1, text: ({ conformance }) => (conformance === undefined ? 'none' : `L${conformance.level}`) },
  { name: 'hardware', value: ({ hardware }) => (hardware === undefined ? 0 : hardware.isExact ? 2 : 1), text: ({ hardware }) => hardware?.id ?? '-' },
]; // prettier-ignore

/** Whether it fits is not known without a plan. */
const fits = ({ planProblem, memoryProblem }: Fitness): boolean =>
  planProblem === undefined && memoryProblem === undefined;

/** A device with all that it is ranked by. */
export function describeDevice(report: BackendReport, chosen: ChosenDevice, fitness: Fitness): RankedDevice {
  const { match = [], conformance } = report.manifest ?? {};
  const hardware = match.length === 0 ? undefined : findMatch(match, pciDevices());
  return {
    ...chosen,
    report,
    fitness,
    conformance: readConformance(conformance, chosen.backend.info.id),
    hardware,
  };
}

/** The best first. */
export function rankDevices(devices: readonly RankedDevice[]): readonly RankedDevice[] {
  return devices.toSorted((a, b) => {
    const criterion = decisive(a, b);
    return criterion === undefined
      ? a.device.id.localeCompare(b.device.id, 'en', { numeric: true })
      : criterion.value(b) - criterion.value(a);
  });
}

const decisive = (a: RankedDevice, b: RankedDevice): Criterion | undefined =>
  criteria.find(({ value }) => value(a) !== value(b));

/** The tuples, and why the first is first. */
export function explainRanking(ranked: readonly RankedDevice[]): string[] {
  const table = [
    ['device', ...criteria.map(({ name }) => name), 'package'],
    ...ranked.map((row) => [row.device.id, ...criteria.map(({ text }) => text(row)), packageOf(row)]),
  ];
  return [...alignColumns(table), ...ranked.slice(0, 1).map((first) => whyFirst(first, ranked[1]))];
}

const packageOf = ({ report }: RankedDevice): string => `${report.name} ${report.version ?? ''}`.trimEnd();

function whyFirst(first: RankedDevice, second: RankedDevice | undefined): string {
  const { id } = first.device;
  if (second === undefined) return `${id} is chosen: no other device can be used`;
  const criterion = decisive(first, second);
  if (criterion === undefined)
    return `${id} is chosen: the next, ${second.device.id}, is equal in all but its id`;
  const [mine, other] = [criterion.text(first), criterion.text(second)];
  return `${id} is chosen: by '${criterion.name}' (${mine}) it comes before ${second.device.id} (${other})`;
}
