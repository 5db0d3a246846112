/** Results as a table for a spreadsheet: one row a point. Shares in [0, 1], nats, bytes; an empty cell where there is nothing. */
import { mean } from '../spread.ts';
import { lifetimeGuarantees } from './stated-epsilon.ts';
import { isSuccess, type PointResult } from './result.ts';

type Cell = string | number | null | undefined;

/** An epsilon's column names its adversary; the columns after them say what else it means. */
export function resultsCsv(results: readonly PointResult[]): string {
  const paths = [...new Set(results.flatMap(({ settings }) => Object.keys(settings)))];
  const heads = ['index', 'point', 'case', ...paths, 'seed', ...Object.keys(measures(undefined)), 'error'];
  const rows = results.map((result): Cell[] => [
    result.index,
    result.point,
    result.case,
    ...paths.map((path) => cellOf(result.settings[path])),
    result.seed,
    ...Object.values(measures(result)),
    isSuccess(result) ? null : `${result.error.code}: ${result.error.message}`,
  ]);
  return [heads, ...rows].map((row) => `${row.map(quoted).join(',')}\n`).join('');
}

function measures(result: PointResult | undefined): Readonly<Record<string, Cell>> {
  const outcome = result !== undefined && isSuccess(result) ? result.outcome : undefined;
  const statement = outcome?.statement ?? undefined;
  const guarantees = statement === undefined ? [] : lifetimeGuarantees(statement);
  const epsilonAgainst = (name: string) => guarantees.find(({ adversary }) => adversary === name)?.epsilon;
  return {
    reason: outcome?.reason,
    finalAccuracy: outcome?.final?.accuracy,
    finalNll: outcome?.final?.nll,
    finalCalibrationError: outcome?.final?.calibrationError,
    meanClientAccuracy: meanOf(outcome?.clients.map(({ accuracy }) => accuracy)),
    meanLocalOnlyAccuracy: meanOf(outcome?.clients.map(({ localOnlyAccuracy }) => localOnlyAccuracy)),
    clients: outcome?.clients.length,
    failedClients: outcome?.clients.filter(({ error }) => error !== null).length,
    bytesUp: outcome?.bytesUp,
    bytesDown: outcome?.bytesDown,
    privacyClaim: statement?.claim,
    epsilonAgainstAnybody: epsilonAgainst('anybody'),
    epsilonAgainstCoordinator: epsilonAgainst('coordinator'),
    epsilonAgainstParticipants: epsilonAgainst('participants'),
    delta: guarantees[0]?.delta,
    unit: guarantees[0]?.unit,
    adjacency: guarantees[0]?.adjacency,
    accountant: guarantees[0] && `${guarantees[0].accountant.name} ${guarantees[0].accountant.version}`,
    releases: statement?.releases,
    transferExamplesPerRelease: statement?.rowsPerRelease,
    transferExamplesPerClient: statement?.rowsPerClient,
  };
}

/** Mean of the values that were measured. */
export function meanOf(values: readonly (number | null)[] | undefined): number | null {
  const measured = (values ?? []).filter((value) => value !== null);
  return measured.length === 0 ? null : mean(measured);
}

function cellOf(value: unknown): Cell {
  return value === null || value === undefined || typeof value === 'string' || typeof value === 'number' ? value : JSON.stringify(value);
}

/** RFC 4180. */
function quoted(cell: Cell): string {
  const text = String(cell ?? '');
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
