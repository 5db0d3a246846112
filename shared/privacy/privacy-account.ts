/**
 * The account of a described run: which epsilon its events have under every accountant that knows them. Behind `fedstill privacy account`
 * and `calibrate`.
 *
 * An epsilon without unit, adjacency, adversary, delta, number of releases and size of the transfer set means nothing, so an
 * account that lacks one of them is refused, and all that are missing are named at once. It describes what somebody says was
 * released; a client's ledger describes what it did release.
 */
import { z } from 'zod';
import { FederationError } from '../errors.ts';
import type { Delta } from '../types/units.ts';
import type { PrivacyAccountant } from './accountants/accountant.ts';
import { flattenEvent } from './accountants/accountant.ts';
import { CompositeAccountant } from './accountants/composite-accountant.ts';
import { GaussianAccountant } from './accountants/gaussian-accountant.ts';
import { roundUp } from './accountants/numerics.ts';
import { PldAccountant } from './accountants/pld.ts';
import { PureAccountant } from './accountants/pure-accountant.ts';
import { RdpAccountant } from './accountants/rdp.ts';
import { ZcdpAccountant } from './accountants/zcdp.ts';
import type { AccountedRelation, DpEvent } from './dp-event.ts';
import { DpEventSchema, accountedRelations } from './dp-event.ts';

export const adversaries = {
  outsider: 'outsiders, who see published models and labels',
  clients: 'other clients, who see every aggregate and label',
  'curious-coordinator': 'a coordinator that follows the protocol and keeps everything it receives',
  'malicious-coordinator': 'a coordinator that sends arbitrary messages, together with all clients but this one',
} as const;
export type AccountAdversary = keyof typeof adversaries;

export const relationWords: Readonly<Record<AccountedRelation, string>> = {
  replaceOne: 'replace-one (the client had entirely different data)',
  zeroOut: 'zero-out (the client had contributed all zeros)',
  addOrRemoveRecord: 'add or remove one record (the number of records is public)',
  replaceRecord: 'replace one record',
};

/** What must stand beside an epsilon. */
const qualifiers = {
  unit: z.enum(['client', 'record']),
  adjacency: z.enum(accountedRelations as unknown as ['replaceOne', ...AccountedRelation[]]),
  adversary: z.enum(Object.keys(adversaries) as [AccountAdversary, ...AccountAdversary[]]),
  delta: z.number().min(0).lt(1),
  /** Matrices of predictions that leave a client under this account. */
  releases: z.int().min(1),
  /** Transfer examples in one release. */
  transferRows: z.int().min(1),
};
const QualifiersSchema = z.strictObject(qualifiers);
export type Qualifiers = z.infer<typeof QualifiersSchema>;

const AccountRequestSchema = z.strictObject({ ...qualifiers, events: z.array(DpEventSchema).min(1).max(100_000) });
export type AccountRequest = z.infer<typeof AccountRequestSchema>;

export interface AccountantAnswer {
  readonly accountant: string;
  readonly version: number;
  /** `null`: infinite, as JSON has no number for it. */
  readonly epsilon: number | null;
  /** Why this accountant has no answer. */
  readonly refused?: string;
}

export interface PrivacyAccount extends Omit<Qualifiers, 'unit'> {
  readonly unit: Qualifiers['unit'];
  /** Noisy steps that were accounted: for DP-SGD more than releases. */
  readonly events: number;
  /** The smallest of all answers; `null`: infinite. */
  readonly epsilon: number | null;
  /** The accountant whose answer that is. */
  readonly accountant: { readonly name: string; readonly version: number };
  readonly all: readonly AccountantAnswer[];
}

/** Qualifiers from a file or from options. Throws `usage-invalid` and names all that are missing or wrong. */
export function parseQualifiers(content: Readonly<Record<string, unknown>>): Qualifiers {
  const parsed = QualifiersSchema.safeParse(content);
  if (!parsed.success) throw refusal(parsed.error, content);
  checkUnit(parsed.data);
  return parsed.data;
}

/** A request from an events file. Throws `usage-invalid` or `data-invalid`. */
export function parseAccountRequest(content: unknown): AccountRequest {
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw new FederationError('data-invalid', 'the file does not describe a run', { field: 'events', expected: 'an object with events, unit, adjacency, adversary, delta, releases and transferRows', next: 'See docs/privacy-accounting.md for an example.' });
  }
  const parsed = AccountRequestSchema.safeParse(content);
  if (!parsed.success) throw refusal(parsed.error, content as Record<string, unknown>);
  checkUnit(parsed.data);
  return parsed.data;
}

function refusal(error: z.ZodError, content: Readonly<Record<string, unknown>>): FederationError {
  const missing = Object.keys(qualifiers).filter((name) => content[name] === undefined);
  if (missing.length > 0) {
    return new FederationError('usage-invalid', `no epsilon is printed without its meaning: ${missing.join(', ')} ${missing.length === 1 ? 'is' : 'are'} missing`, {
      field: missing.join(', '),
      expected: 'unit, adjacency, adversary, delta, releases and transferRows',
      next: 'Add what is missing; docs/privacy-accounting.md says what each of them means.',
    });
  }
  const issue = error.issues[0];
  const got = issue?.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], content);
  return new FederationError('data-invalid', 'the description of the run is not usable', {
    field: issue?.path.join('.') || 'events',
    expected: issue?.message ?? 'a valid description',
    got: (JSON.stringify(got) ?? 'nothing').slice(0, 200),
    next: 'Correct the value; docs/privacy-accounting.md lists every event.',
  });
}

function checkUnit({ unit, adjacency }: Qualifiers): void {
  const isClient = adjacency === 'replaceOne' || adjacency === 'zeroOut';
  if ((unit === 'client') === isClient) return;
  throw new FederationError('usage-invalid', 'unit and adjacency contradict each other', {
    field: 'adjacency',
    expected: unit === 'client' ? 'replaceOne or zeroOut' : 'addOrRemoveRecord or replaceRecord',
    got: adjacency,
    next: 'Say for whom the guarantee is: a whole client, or one record of it.',
  });
}

/** Every accountant, fresh. */
export function allAccountants(relation: AccountedRelation): readonly PrivacyAccountant[] {
  return [new GaussianAccountant(relation), new PureAccountant(relation), new CompositeAccountant(relation), new PldAccountant(relation), new RdpAccountant(relation), new ZcdpAccountant(relation)];
}

/** Accounts for the events. Throws `event-unsupported` when no accountant knows all of them. */
export function accountFor(request: AccountRequest): PrivacyAccount {
  const { events, ...meaning } = request;
  const run: DpEvent = { kind: 'composed', events };
  const all = allAccountants(request.adjacency).map((accountant): AccountantAnswer & { readonly bound: number } => {
    const identity = { accountant: accountant.name, version: accountant.version };
    const unsupported = accountant.check(run);
    if (unsupported) return { ...identity, epsilon: null, refused: unsupported.reason, bound: NaN };
    const bound = accountant.compose(run).epsilon(request.delta as Delta);
    return { ...identity, epsilon: Number.isFinite(bound) ? bound : null, bound };
  });
  const answers = all.filter((answer) => answer.refused === undefined);
  const best = answers.reduce<(typeof answers)[number] | undefined>((smallest, answer) => (smallest === undefined || answer.bound < smallest.bound ? answer : smallest), undefined);
  if (best === undefined) {
    throw new FederationError('event-unsupported', `no accountant has a bound for these events under ${request.adjacency}`, {
      field: 'events',
      got: all[0]?.refused ?? 'nothing',
      next: 'Poisson sampling is accounted for addOrRemoveRecord, sampling without replacement for replaceRecord, local votes for replacement, and sampling of clients not at all.',
    });
  }
  const count = flattenEvent(run).reduce((sum, part) => sum + part.count, 0);
  return {
    ...meaning,
    events: count,
    epsilon: best.epsilon,
    accountant: { name: best.accountant, version: best.version },
    all: all.map(({ bound: _bound, ...answer }) => answer),
  };
}

/** As text, with everything that gives the number its meaning. */
export function renderAccount(account: PrivacyAccount): string {
  const width = Math.max(...account.all.map((answer) => answer.accountant.length));
  return [
    account.epsilon === null ? 'epsilon is infinite: there is no differential privacy' : `epsilon <= ${formatUp(account.epsilon)}`,
    ...renderQualifiers(account),
    `accountant    ${account.accountant.name} version ${account.accountant.version} (the smallest of those below; each is a valid bound)`,
    `noisy steps   ${account.events}`,
    '',
    ...account.all.map((answer) => `  ${answer.accountant.padEnd(width)}  ${answer.refused ?? (answer.epsilon === null ? 'infinite' : formatUp(answer.epsilon))}`),
    '',
  ].join('\n');
}

export function renderQualifiers(meaning: Qualifiers): readonly string[] {
  return [
    `unit          ${meaning.unit}`,
    `adjacency     ${relationWords[meaning.adjacency]}`,
    `adversary     ${adversaries[meaning.adversary]}`,
    `delta         ${meaning.delta}`,
    `releases      ${meaning.releases}`,
    `transfer set  ${meaning.transferRows} rows`,
  ];
}

/** Five significant digits, rounded up: what is printed is still an upper bound. */
export function formatUp(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const unit = 10 ** (Math.floor(Math.log10(Math.abs(value))) - 4);
  const nearest = Number(value.toPrecision(5));
  return String(nearest >= value ? nearest : Number(roundUp(nearest + unit).toPrecision(5)));
}
