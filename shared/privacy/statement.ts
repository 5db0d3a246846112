/**
 * The privacy statement: the only place where an epsilon is turned into text. Every number comes with unit, adjacency,
 * adversary, delta, accountant and version, number of releases, rows per release, sensitivity and noise; a statement that
 * lacks one of them is an error, not a shorter statement.
 *
 * A statement describes what was charged. That the run really released only that is for tests and the audit.
 */
import { z } from 'zod';
import { FederationError } from '../errors.ts';
import type { Delta } from '../types/units.ts';
import { accountantFor } from './accountants/composite-accountant.ts';
import { roundUp } from './accountants/numerics.ts';
import type { TrustMode } from './client-policy.ts';
import type { NeighboringRelation } from './dp-event.ts';
import { neighboringRelations } from './dp-event.ts';
import type { ReleaseEvents, ReleaseParameters } from './release.ts';
import { checkRelease, releaseEvents, releaseSensitivity } from './release.ts';

const adjacency = z.enum(['zeroOut', 'replaceOne']);
const epsilon = z.union([z.number().min(0), z.literal('infinite')]);

const GuaranteeSchema = z.strictObject({
  scope: z.enum(['perRelease', 'lifetime']),
  adjacency,
  /** Releases that this epsilon covers. */
  releases: z.int().min(0),
  epsilon,
  delta: z.number().min(0).lt(1),
  accountant: z.strictObject({ name: z.string().min(1), version: z.int().min(1) }),
});
export type Guarantee = z.infer<typeof GuaranteeSchema>;

const common = {
  version: z.literal(1),
  trustMode: z.enum(['sealed', 'clear', 'secure-aggregation']),
  unit: z.literal('client'),
  outputKind: z.enum(['probabilities', 'logits']),
  /** Transfer examples in one release. */
  rowsPerRelease: z.int().min(1),
  columns: z.int().min(1),
  /** Releases so far. */
  releases: z.int().min(0),
  notProtected: z.array(z.string().min(1)).min(1),
};

export const PrivacyStatementSchema = z.discriminatedUnion('claim', [
  z.strictObject({
    claim: z.literal('differentialPrivacy'),
    ...common,
    mechanism: z.enum(['gaussian', 'laplace']),
    adversary: z.string().min(1),
    guarantees: z.array(GuaranteeSchema).length(4),
    /** Of the whole matrix, in grid steps. */
    sensitivity: z.strictObject({ norm: z.enum(['L2', 'L1']), zeroOut: z.number().positive(), replaceOne: z.number().positive() }),
    noise: z.strictObject({
      law: z.enum(['rounded Gaussian', 'discrete Laplace']),
      /** Standard deviation before rounding (Gaussian) or scale (Laplace), in grid steps. */
      parameterGrid: z.int().min(1),
      /** In units of the predictions. */
      gridStep: z.number().positive(),
    }),
  }),
  z.strictObject({
    claim: z.literal('none'),
    ...common,
    mechanism: z.enum(['none', 'gaussian', 'laplace', 'discreteGaussian']),
    epsilon: z.literal('infinite'),
    reason: z.string().min(1),
  }),
]);
/** Plain data: `JSON.stringify` of it is `privacy.json`. */
export type PrivacyStatement = z.infer<typeof PrivacyStatementSchema>;

const ADVERSARY =
  'everyone who sees the noised matrices: the coordinator, even a malicious one that works with all other clients, and outsiders. Assumes that this client runs this code and that its system random generator is sound';

const NOT_PROTECTED: readonly string[] = [
  'that a client takes part, when, how often, how fast, and when it fails',
  'which model architecture it uses, if it tells',
  'metrics, sample counts or anything else that is sent beside the noised matrices',
  'what the teacher was trained on before the federation: its soft labels go to every client',
  'a person whose records are at several clients: each client counts on its own',
  'integrity: a malicious client can send any matrix',
  'the machine itself: swap, core dumps, and how long sampling the noise takes',
];

export interface StatementInput {
  readonly trustMode: TrustMode;
  /** The releases this statement is about; earlier ones in `ledger` may differ. */
  readonly parameters: ReleaseParameters;
  readonly delta: Delta;
  /** Every release so far: the entries of a ledger. */
  readonly ledger: readonly { readonly events: ReleaseEvents }[];
  /** The noise comes from a seed, as in a simulation that can be repeated: then nothing is claimed for it. Default false. */
  readonly isNoiseSeeded?: boolean;
}

export function buildStatement(input: StatementInput): PrivacyStatement {
  const { parameters, trustMode, ledger } = input;
  checkRelease(parameters);
  const base = {
    version: 1 as const,
    trustMode,
    unit: 'client' as const,
    outputKind: parameters.outputKind,
    rowsPerRelease: parameters.rows,
    columns: parameters.columns,
    releases: ledger.length,
    notProtected: [...NOT_PROTECTED],
  };
  if (parameters.mechanism === 'none' || parameters.mechanism === 'discreteGaussian' || trustMode !== 'sealed' || input.isNoiseSeeded === true) {
    const reason =
      parameters.mechanism === 'none'
        ? 'predictions are sent without noise'
        : trustMode === 'clear'
          ? 'the run is in clear mode, which is for baselines: noise may be added, but nothing is claimed for it'
          : trustMode === 'sealed'
            ? 'the noise is seeded, so that the run can be repeated: whoever knows the seed can take it away again'
            : `trust mode ${trustMode} is not part of this version`;
    return { claim: 'none', ...base, mechanism: parameters.mechanism, epsilon: 'infinite', reason };
  }

  const thisRelease = [{ events: releaseEvents(parameters) }];
  const sensitivity = releaseSensitivity(parameters);
  const isGaussian = parameters.mechanism === 'gaussian';
  return {
    claim: 'differentialPrivacy',
    ...base,
    mechanism: parameters.mechanism,
    adversary: ADVERSARY,
    guarantees: [
      ...neighboringRelations.map((relation) => describeGuarantee('perRelease', thisRelease, relation, input.delta)),
      ...neighboringRelations.map((relation) => describeGuarantee('lifetime', ledger, relation, input.delta)),
    ],
    sensitivity: { norm: isGaussian ? 'L2' : 'L1', ...(isGaussian ? sensitivity.l2 : sensitivity.l1) },
    noise: {
      law: isGaussian ? 'rounded Gaussian' : 'discrete Laplace',
      parameterGrid: parameters.mechanism === 'gaussian' ? parameters.noise.sigmaGrid : parameters.noise.scaleGrid,
      gridStep: parameters.gridStep,
    },
  };
}

/** The statement as text for a person. Throws `internal` when anything that gives an epsilon its meaning is missing. */
export function renderStatement(statement: PrivacyStatement): string {
  const parsed = PrivacyStatementSchema.safeParse(statement);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new FederationError('internal', 'the privacy statement is incomplete, so none is printed', {
      field: issue?.path.join('.') ?? 'statement',
      expected: issue?.message ?? 'a complete statement',
      next: 'Build the statement with buildStatement.',
    });
  }
  const complete = parsed.data;
  const notProtected = ['Not protected:', ...complete.notProtected.map((item) => `  - ${item}`)];
  const scope = `${complete.outputKind}, ${complete.rowsPerRelease} transfer rows x ${complete.columns} classes per release, trust mode ${complete.trustMode}`;
  if (complete.claim === 'none') {
    return [
      'PRIVACY STATEMENT: NO DIFFERENTIAL PRIVACY',
      `There is no differential privacy here: epsilon is infinite, because ${complete.reason}.`,
      'Whoever sees the predictions of a client may learn about its private records.',
      `Releases: ${complete.releases} (${scope}; mechanism ${complete.mechanism}).`,
      ...notProtected,
      '',
    ].join('\n');
  }
  const { noise, sensitivity } = complete;
  const noiseParameter = complete.mechanism === 'gaussian' ? 'standard deviation' : 'scale';
  return [
    'PRIVACY STATEMENT',
    `Unit: ${complete.unit} (everything of one client, so also each single record of it).`,
    `Adversary: ${complete.adversary}.`,
    `Release: ${scope}.`,
    `Noise: ${noise.law} at each client, ${noiseParameter} ${noise.parameterGrid} grid steps of ${noise.gridStep} (${formatUp(noise.parameterGrid * noise.gridStep)} in units of the predictions), fresh for every release.`,
    `Sensitivity of the whole matrix (${sensitivity.norm}): ${formatUp(sensitivity.replaceOne)} grid steps replace-one, ${formatUp(sensitivity.zeroOut)} zero-out.`,
    ...complete.guarantees.map(renderGuarantee),
    ...notProtected,
    '',
  ].join('\n');
}

function describeGuarantee(scope: Guarantee['scope'], ledger: StatementInput['ledger'], relation: NeighboringRelation, delta: Delta): Guarantee {
  const accountant = accountantFor(
    ledger.map((entry) => entry.events[relation]),
    relation,
  );
  const bound = accountant.epsilon(delta);
  return {
    scope,
    adjacency: relation,
    releases: ledger.length,
    epsilon: bound === Infinity ? 'infinite' : bound,
    delta,
    accountant: { name: accountant.name, version: accountant.version },
  };
}

const adjacencyWords: Record<NeighboringRelation, string> = {
  replaceOne: 'replace-one (the client had entirely different data)',
  zeroOut: 'zero-out (the client had contributed all zeros)',
};

function renderGuarantee(item: Guarantee): string {
  const scope = item.scope === 'perRelease' ? 'One release' : `Lifetime, ${item.releases} release${item.releases === 1 ? '' : 's'} charged`;
  const bound = item.epsilon === 'infinite' ? 'epsilon is infinite (something was sent without noise: no differential privacy)' : `epsilon <= ${formatUp(item.epsilon)}`;
  return `${scope}: ${bound} at delta ${item.delta}; unit client; adjacency ${adjacencyWords[item.adjacency]}; accountant ${item.accountant.name} version ${item.accountant.version}.`;
}

/** Four significant digits, rounded up: what is printed is still an upper bound. */
function formatUp(value: number): string {
  if (value === 0) return '0';
  const unit = 10 ** (Math.floor(Math.log10(value)) - 3);
  const nearest = Number(value.toPrecision(4));
  const rounded = nearest >= value ? nearest : Number(roundUp(nearest + unit).toPrecision(4));
  return String(rounded);
}
