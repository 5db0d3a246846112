/** The epsilon of a statement for a table: never without the words that give it its meaning. */
import type { Guarantee, PrivacyStatement } from '../../shared/privacy/statement.ts';
import { epsilon as formatEpsilon, integer, plural, smallNumber } from '../report/format.ts';

/** Over everything that one client releases, replace-one adjacency: what a task's `privacy.epsilon` is about. */
export function lifetimeGuarantees(statement: PrivacyStatement): readonly Guarantee[] {
  return statement.claim === 'none' ? [] : statement.guarantees.filter(({ scope, adjacency }) => scope === 'lifetime' && adjacency === 'replaceOne');
}

/** The largest of a statement's lifetime epsilons; infinite without a claim. */
export function largestEpsilon(statement: PrivacyStatement | null): number {
  const all = statement === null ? [] : lifetimeGuarantees(statement);
  return all.length === 0 ? Infinity : Math.max(...all.map(({ epsilon }) => (epsilon === 'infinite' ? Infinity : epsilon)));
}

export interface StatedEpsilon {
  /** For a cell: the bound against each adversary. */
  readonly cell: string;
  /** For the caption: everything else that a cell means. Equal notes go with cells that can be compared. */
  readonly note: string;
}

export function statedEpsilon(statement: PrivacyStatement | null): StatedEpsilon {
  if (statement === null) return { cell: 'none claimed', note: 'no statement: this way of learning claims no privacy.' };
  if (statement.claim === 'none') return { cell: 'infinite', note: `no differential privacy: ${statement.reason}.` };
  const guarantees = lifetimeGuarantees(statement);
  const [first] = guarantees as readonly [Guarantee, ...Guarantee[]];
  const bounds = guarantees.map(({ adversary, epsilon }) => `${epsilon === 'infinite' ? 'infinite' : `≤ ${formatEpsilon(epsilon)}`}${guarantees.length === 1 ? '' : ` (${adversary})`}`);
  const adversaries = statement.adversaries.map(({ name, description }) => `adversary "${name}": ${description}`);
  const note = [
    `epsilon at delta ${smallNumber(first.delta)} over ${plural(first.releases, 'release')} of ${plural(statement.rowsPerRelease, 'transfer example')} (${integer(statement.rowsPerClient)} a client)`,
    `unit ${first.unit}`,
    `adjacency ${first.unit === 'record' ? 'replace-one-record' : 'replace-one'}`,
    `accountant ${first.accountant.name} version ${first.accountant.version}`,
    `${statement.mechanism}, trust mode ${statement.trustMode}`,
    ...adversaries,
  ];
  return { cell: bounds.join(', '), note: `${note.join('; ')}.` };
}
