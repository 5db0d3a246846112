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
import { roundUp } from './accountants/numerics.ts';
import type { SecureCohort, TrustMode } from './client-policy.ts';
import type { NeighboringRelation } from './dp-event.ts';
import { neighboringRelations } from './dp-event.ts';
import type { ChargedRelease } from './ledger.ts';
import { chargedRelease, isSameRelease, ledgerAccountant, ledgerUnit } from './ledger.ts';
import type { ReleaseParameters } from './release.ts';
import { checkRelease, PrivateTrainingSchema, releaseSensitivity, releaseUnit } from './release.ts';

const adjacency = z.enum(['zeroOut', 'replaceOne']);
const unit = z.enum(['client', 'record']);
const epsilon = z.union([z.number().min(0), z.literal('infinite')]);

/** Against whom a bound holds; the statement's `adversaries` say what each of them sees and who works together. */
const adversaryNames = ['anybody', 'coordinator', 'participants'] as const;
export type StatedAdversary = (typeof adversaryNames)[number];

const GuaranteeSchema = z.strictObject({
  scope: z.enum(['perRelease', 'lifetime']),
  /** Of this number: over a lifetime the weaker one of all releases. */
  unit,
  adjacency,
  adversary: z.enum(adversaryNames),
  /** Releases that this epsilon covers. */
  releases: z.int().min(0),
  epsilon,
  delta: z.number().min(0).lt(1),
  accountant: z.strictObject({ name: z.string().min(1), version: z.int().min(1) }),
});
export type Guarantee = z.infer<typeof GuaranteeSchema>;

const common = {
  version: z.literal(3),
  trustMode: z.enum(['sealed', 'clear', 'secure-aggregation']),
  /** Of one release. */
  unit,
  outputKind: z.enum(['probabilities', 'logits']),
  /** One-hot votes, or none, instead of probabilities. */
  votes: z.boolean(),
  /** Disjoint shards of a client's records whose predictions are summed; null: the student predicts. */
  shards: z.int().min(2).nullable(),
  /** Most records of a client that cast one vote each in a release; null: they don't. */
  recordVotes: z.int().min(1).nullable(),
  /** Transfer examples in one release. */
  rowsPerRelease: z.int().min(1),
  /** Transfer examples, counted as often as they were predicted on, in everything that one client has released. */
  rowsPerClient: z.int().min(0),
  columns: z.int().min(1),
  /** Releases so far. */
  releases: z.int().min(0),
  /** With the trust mode `secure-aggregation`, else null. */
  secureAggregation: z.strictObject({ minSurvivors: z.int().min(2), maxCorrupt: z.int().min(0) }).nullable(),
  notProtected: z.array(z.string().min(1)).min(1),
};

const DifferentialPrivacySchema = z.strictObject({
  claim: z.literal('differentialPrivacy'),
  ...common,
  mechanism: z.enum(['gaussian', 'laplace', 'discreteGaussian']),
  /** What each adversary of the guarantees is. */
  adversaries: z.array(z.strictObject({ name: z.enum(adversaryNames), description: z.string().min(1) })).min(1),
  guarantees: z.array(GuaranteeSchema).min(4),
  /** Of the whole matrix (of one shard), in grid steps. */
  sensitivity: z.strictObject({ norm: z.enum(['L2', 'L1']), zeroOut: z.number().positive(), replaceOne: z.number().positive() }),
  noise: z.strictObject({
    law: z.enum(['rounded Gaussian', 'discrete Laplace', 'discrete Gaussian']),
    /** Of one client: standard deviation before rounding (Gaussian), parameter sigma (discrete Gaussian) or scale (Laplace), in grid steps. */
    parameterGrid: z.int().min(1),
    /** Clients whose noise is counted in a sum; 1: each client's own is all that counts. */
    shares: z.int().min(1),
    /** In units of the predictions. */
    gridStep: z.number().positive(),
  }),
});

/** Differential privacy by the noise of training steps: what leaves is computed from the model alone. */
const PrivateTrainingClaimSchema = z.strictObject({
  claim: z.literal('privateTraining'),
  ...common,
  mechanism: z.literal('dpSgd'),
  adversaries: z.array(z.strictObject({ name: z.enum(adversaryNames), description: z.string().min(1) })).min(1),
  guarantees: z.array(GuaranteeSchema).min(4),
  /** Of one step; `steps` of them are charged with one release. */
  training: PrivateTrainingSchema,
  /** Steps that were charged so far, in all releases by private training. */
  stepsSoFar: z.int().min(0),
});

export const PrivacyStatementSchema = z
  .discriminatedUnion('claim', [
    DifferentialPrivacySchema,
    PrivateTrainingClaimSchema,
    z.strictObject({
      claim: z.literal('none'),
      ...common,
      mechanism: z.enum(['none', 'gaussian', 'laplace', 'discreteGaussian', 'dpSgd']),
      epsilon: z.literal('infinite'),
      reason: z.string().min(1),
    }),
  ])
  .superRefine((statement, context) => {
    const problem = findContradiction(statement);
    if (problem !== undefined) context.addIssue({ code: 'custom', path: [problem], message: 'expected a statement that does not contradict itself' });
  });
/** Plain data: `JSON.stringify` of it is `privacy.json`. */
export type PrivacyStatement = z.infer<typeof PrivacyStatementSchema>;

/** The member that contradicts another one. */
function findContradiction(
  statement:
    | z.infer<typeof DifferentialPrivacySchema>
    | z.infer<typeof PrivateTrainingClaimSchema>
    | { readonly claim: 'none'; readonly trustMode: TrustMode; readonly secureAggregation: unknown; readonly unit: string; readonly shards: number | null; readonly recordVotes: number | null; readonly mechanism: string },
): string | undefined {
  if ((statement.trustMode === 'secure-aggregation') !== (statement.secureAggregation !== null)) return 'secureAggregation';
  if (statement.recordVotes !== null && (statement.shards !== null || statement.mechanism === 'dpSgd')) return 'recordVotes';
  if ((statement.unit === 'record') !== (statement.shards !== null || statement.recordVotes !== null || statement.mechanism === 'dpSgd')) return 'unit';
  if (statement.claim === 'none') return undefined;
  const { secureAggregation, guarantees, adversaries, mechanism } = statement;
  if ((mechanism === 'discreteGaussian') !== (secureAggregation !== null)) return 'mechanism';
  if (statement.claim === 'differentialPrivacy' && secureAggregation !== null && statement.noise.shares > secureAggregation.minSurvivors - secureAggregation.maxCorrupt) return 'noise';
  // Every adversary, both relations, one release and all of them.
  const expected = adversaries.flatMap(({ name }) => (['perRelease', 'lifetime'] as const).flatMap((scope) => neighboringRelations.map((relation) => `${scope} ${relation} ${name}`)));
  const got = guarantees.map((item) => `${item.scope} ${item.adjacency} ${item.adversary}`);
  return got.length === expected.length && expected.every((key) => got.includes(key)) ? undefined : 'guarantees';
}

const HONEST_CODE = 'Assumes that this client runs this code and that its system random generator is sound';

function describeAdversaries(secureAggregation: SecureCohort | null, released: string): readonly { readonly name: StatedAdversary; readonly description: string }[] {
  if (secureAggregation === null) {
    return [{ name: 'anybody', description: `everyone who sees the ${released}: the coordinator, even a malicious one that works with all other clients, and outsiders. ${HONEST_CODE}` }];
  }
  const { minSurvivors, maxCorrupt } = secureAggregation;
  const helpers = maxCorrupt === 0 ? 'alone' : `together with up to ${maxCorrupt} ${maxCorrupt === 1 ? 'client' : 'clients'} of a round`;
  const limits = `Computational: as long as nobody breaks X25519, XSalsa20, SHA-256 and Ed25519. Needs ${minSurvivors - maxCorrupt} honest clients in every sum, with identities that the coordinator did not invent. ${HONEST_CODE}, and the same of those clients`;
  return [
    { name: 'coordinator', description: `the coordinator, curious or malicious, ${helpers}: it sees sums over at least ${minSurvivors} clients. ${limits}` },
    { name: 'participants', description: `other clients, up to ${Math.max(1, maxCorrupt)} of them working together, and outsiders: they see what is made of a sum, and know their own share of its noise. ${limits}` },
  ];
}

const NOT_PROTECTED: readonly string[] = [
  'that a client takes part, when, how often, how fast, and when it fails',
  'which model architecture it uses, if it tells',
  'metrics, sample counts or anything else that is sent beside the noised matrices',
  'what the teacher was trained on before the federation: its soft labels go to every client',
  'a person whose records are at several clients: each client counts on its own',
  'integrity: a malicious client can send any matrix',
  'the machine itself: swap, core dumps, and how long sampling the noise takes',
];
const NOT_PROTECTED_BY_SUMS: readonly string[] = [
  'against an operator that runs the coordinator and also decides who may join: it can fill a round with clients of its own, and then only this client\'s own share of the noise is left',
  'against more corrupt clients than the task names',
  'that corrupt clients are noticed: in a sum nobody sees whose integers are wrong, not even integers that wrap around',
  'that a round ends: a client that deals bad shares and vanishes makes it fail (never leak)',
  'a client whose machine was set back to an earlier state: it may answer twice',
];
const NOT_PROTECTED_PER_RECORD: readonly string[] = [
  'what all records of a client have in common: only one record at a time is protected',
  'a person with several records at one client: each of them counts on its own',
];

const NOT_PROTECTED_BY_TRAINING: readonly string[] = [
  'how many records a client has: it scales the updates of its model',
  'what a model had learned before the task, where its owner gives one of their own, and what the owner tuned on private records',
  'against the low-order bits of weights: gradients and noise are floating-point numbers, whose rounding is not accounted for',
];

function notProtected({ trustMode, parameters }: StatementInput): string[] {
  return [
    ...NOT_PROTECTED,
    ...(trustMode === 'secure-aggregation' ? NOT_PROTECTED_BY_SUMS : []),
    ...(releaseUnit(parameters) === 'record' ? NOT_PROTECTED_PER_RECORD : []),
    ...(parameters.mechanism === 'dpSgd' ? NOT_PROTECTED_BY_TRAINING : []),
  ];
}

export interface StatementInput {
  readonly trustMode: TrustMode;
  /** The releases this statement is about; earlier ones in `ledger` may differ. */
  readonly parameters: ReleaseParameters;
  /** Of the task: needed exactly for the trust mode `secure-aggregation`. */
  readonly secureAggregation?: SecureCohort | null | undefined;
  readonly delta: Delta;
  /** Every release so far: the entries of a ledger. */
  readonly ledger: readonly ChargedRelease[];
  /** The noise comes from a seed, as in a simulation that can be repeated: then nothing is claimed for it. Default false. */
  readonly isNoiseSeeded?: boolean;
}

/** Throws `internal` when something is missing that a claim needs. */
export function buildStatement(input: StatementInput): PrivacyStatement {
  const { parameters, trustMode, ledger } = input;
  checkRelease(parameters);
  const secureAggregation = requireCohort(input);
  const base = {
    version: 3 as const,
    trustMode,
    unit: releaseUnit(parameters),
    outputKind: parameters.outputKind,
    votes: parameters.votes === true,
    shards: parameters.shards ?? null,
    recordVotes: parameters.recordVotes ?? null,
    rowsPerRelease: parameters.rows,
    rowsPerClient: ledger.reduce((sum, entry) => sum + entry.parameters.rows, 0),
    columns: parameters.columns,
    releases: ledger.length,
    secureAggregation,
    notProtected: notProtected(input),
  };
  const reason = whyNoClaim(input);
  if (reason !== undefined || parameters.mechanism === 'none') return { claim: 'none', ...base, mechanism: parameters.mechanism, epsilon: 'infinite', reason: reason ?? 'predictions are sent without noise' };

  const adversaries = describeAdversaries(secureAggregation, parameters.mechanism === 'dpSgd' ? 'predictions' : 'noised matrices');
  const guarantees = adversaries.flatMap(({ name }) => {
    // A share that a participant knows protects nobody from that participant. Other tasks of the ledger: we don't know their maxCorrupt, and take the worst.
    const entries = (releases: readonly ChargedRelease[]) =>
      name === 'participants' ? releases.map((entry) => withoutOwnShare(entry, isSameRelease(entry.parameters, parameters) ? (secureAggregation?.maxCorrupt ?? 0) : 0)) : releases;
    return [
      ...neighboringRelations.map((relation) => describeGuarantee('perRelease', entries([chargedRelease(parameters)]), relation, input.delta, name)),
      ...neighboringRelations.map((relation) => describeGuarantee('lifetime', entries(ledger), relation, input.delta, name)),
    ];
  });
  if (parameters.mechanism === 'dpSgd') {
    const stepsSoFar = ledger.reduce((sum, { parameters: charged }) => sum + (charged.mechanism === 'dpSgd' ? charged.noise.steps : 0), 0);
    return { claim: 'privateTraining', ...base, mechanism: parameters.mechanism, adversaries: [...adversaries], guarantees, training: { ...parameters.noise }, stepsSoFar };
  }
  const sensitivity = releaseSensitivity(parameters);
  return {
    claim: 'differentialPrivacy',
    ...base,
    mechanism: parameters.mechanism,
    adversaries: [...adversaries],
    guarantees,
    sensitivity: parameters.mechanism === 'laplace' ? { norm: 'L1', ...sensitivity.l1 } : { norm: 'L2', ...sensitivity.l2 },
    noise: {
      law: laws[parameters.mechanism],
      parameterGrid: parameters.mechanism === 'laplace' ? parameters.noise.scaleGrid : parameters.noise.sigmaGrid,
      shares: parameters.mechanism === 'discreteGaussian' ? parameters.noise.shares : 1,
      gridStep: parameters.gridStep,
    },
  };
}

const laws = { gaussian: 'rounded Gaussian', laplace: 'discrete Laplace', discreteGaussian: 'discrete Gaussian' } as const;

function requireCohort({ trustMode, secureAggregation, parameters }: StatementInput): SecureCohort | null {
  if (trustMode !== 'secure-aggregation') return null;
  if (secureAggregation === undefined || secureAggregation === null) throw incomplete('secureAggregation', 'minSurvivors and maxCorrupt');
  const { minSurvivors, maxCorrupt } = secureAggregation;
  if (parameters.mechanism === 'discreteGaussian' && !(parameters.noise.shares <= minSurvivors - maxCorrupt)) throw incomplete('noise.shares', `at most minSurvivors - maxCorrupt = ${minSurvivors - maxCorrupt}`);
  return { minSurvivors, maxCorrupt };
}

function whyNoClaim({ trustMode, parameters, isNoiseSeeded = false }: StatementInput): string | undefined {
  if (parameters.mechanism === 'none') {
    return trustMode === 'secure-aggregation'
      ? 'predictions are summed without noise: secure aggregation hides whose they are, and that is not differential privacy'
      : 'predictions are sent without noise';
  }
  if (trustMode === 'clear') return 'the run is in clear mode, which is for baselines: noise may be added, but nothing is claimed for it';
  if ((parameters.mechanism === 'discreteGaussian') !== (trustMode === 'secure-aggregation')) return 'the noise does not belong to the trust mode: a share of noise counts in a secure sum, and only there';
  if (isNoiseSeeded) return 'the noise is seeded, so that the run can be repeated: whoever knows the seed can take it away again';
  return undefined;
}

/** The release as it is against another participant, who knows a share of the noise: one share less, unless it is among the corrupt clients whose shares don't count anyway. */
function withoutOwnShare(entry: ChargedRelease, maxCorrupt: number): ChargedRelease {
  const { parameters } = entry;
  if (parameters.mechanism !== 'discreteGaussian' || maxCorrupt > 0) return entry;
  const shares = parameters.noise.shares - 1;
  if (shares === 0) return { parameters, events: { zeroOut: { kind: 'nonPrivate' }, replaceOne: { kind: 'nonPrivate' } } };
  return chargedRelease({ ...parameters, noise: { ...parameters.noise, shares } });
}

function incomplete(field: string, expected: string): FederationError {
  return new FederationError('internal', 'the privacy statement is incomplete, so none is printed', { field, expected, next: 'Build the statement with buildStatement, from the task\'s own numbers.' });
}

/** The statement as text for a person. Throws `internal` when anything that gives an epsilon its meaning is missing. */
export function renderStatement(statement: PrivacyStatement): string {
  const parsed = PrivacyStatementSchema.safeParse(statement);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw incomplete(issue?.path.join('.') || 'statement', issue?.message ?? 'a complete statement');
  }
  const complete = parsed.data;
  const notProtected = ['Not protected:', ...complete.notProtected.map((item) => `  - ${item}`)];
  const { secureAggregation, votes, shards, recordVotes } = complete;
  const what =
    recordVotes === null
      ? `${votes ? 'votes' : complete.outputKind}${shards === null ? '' : `, summed over ${shards} shards of a client's records`}`
      : `counts of votes, one of each of a client's first ${recordVotes} records`;
  const scope = `${what}, ${complete.rowsPerRelease} transfer rows x ${complete.columns} classes per release, ${complete.rowsPerClient} rows per client so far, trust mode ${complete.trustMode}${secureAggregation === null ? '' : ` (sums over at least ${secureAggregation.minSurvivors} clients, up to ${secureAggregation.maxCorrupt} of them corrupt)`}`;
  if (complete.claim === 'none') {
    return [
      'PRIVACY STATEMENT: NO DIFFERENTIAL PRIVACY',
      `There is no differential privacy here: epsilon is infinite, because ${complete.reason}.`,
      secureAggregation === null ? 'Whoever sees the predictions of a client may learn about its private records.' : 'Whoever sees a sum of predictions may learn about the private records behind it.',
      `Releases: ${complete.releases} (${scope}; mechanism ${complete.mechanism}).`,
      ...notProtected,
      '',
    ].join('\n');
  }
  const guarantees = complete.guarantees.map(renderGuarantee);
  const who = [`Unit: ${unitWords[complete.unit]}.`, ...complete.adversaries.map(({ name, description }) => `Adversary${complete.adversaries.length === 1 ? '' : ` "${name}"`}: ${description}.`), `Release: ${scope}.`];
  if (complete.claim === 'privateTraining') return ['PRIVACY STATEMENT', ...who, ...describeTraining(complete), ...guarantees, ...notProtected, ''].join('\n');
  const { noise, sensitivity } = complete;
  const noiseParameter = complete.mechanism === 'laplace' ? 'scale' : 'standard deviation';
  const inUnits = `${formatUp(noise.parameterGrid * noise.gridStep)} in units of the predictions`;
  const counted =
    secureAggregation === null
      ? ''
      : ` ${noise.shares} such shares are counted in a sum, those of clients that are sure to be there and honest: standard deviation ${formatUp(Math.sqrt(noise.shares) * noise.parameterGrid)} grid steps together. All others add theirs too, uncounted.`;
  return [
    'PRIVACY STATEMENT',
    ...who,
    `Noise: ${noise.law} at each client, ${noiseParameter} ${noise.parameterGrid} grid steps of ${noise.gridStep} (${inUnits}), fresh for every release.${counted}`,
    `Sensitivity of the whole matrix${shards !== null ? ' of one shard' : recordVotes !== null ? ' (one vote moves, or is missing)' : ''} (${sensitivity.norm}): ${formatUp(sensitivity.replaceOne)} grid steps ${relationNames[complete.unit].replaceOne}, ${formatUp(sensitivity.zeroOut)} ${relationNames[complete.unit].zeroOut}.`,
    ...guarantees,
    ...notProtected,
    '',
  ].join('\n');
}

function describeTraining({ training, stepsSoFar }: z.infer<typeof PrivateTrainingClaimSchema>): readonly string[] {
  const { clippingNorm, noiseMultiplier, samplingRate, steps } = training;
  return [
    `Noise: Gaussian, in every step of the training on private records, standard deviation ${noiseMultiplier} times the clipping norm ${clippingNorm} on the sum of a batch's gradients; none on the predictions, which are computed from the model alone, however many they are.`,
    `Training: each record is in a step's batch with probability ${samplingRate}, independently (Poisson); ${steps} steps are charged with each release, ${stepsSoFar} so far.`,
    'Sensitivity of one step\'s sum (L2): the clipping norm for a record that is missing, at most twice that for one that is another.',
  ];
}

function describeGuarantee(scope: Guarantee['scope'], ledger: readonly ChargedRelease[], relation: NeighboringRelation, delta: Delta, adversary: StatedAdversary): Guarantee {
  const accountant = ledgerAccountant(ledger, relation);
  const bound = accountant.epsilon(delta);
  return {
    scope,
    unit: ledgerUnit(ledger),
    adjacency: relation,
    adversary,
    releases: ledger.length,
    epsilon: bound === Infinity ? 'infinite' : bound,
    delta,
    accountant: { name: accountant.name, version: accountant.version },
  };
}

const unitWords = { client: 'client (everything of one client, so also each single record of it)', record: 'record (one example of one client)' } as const;
const relationNames = { client: { replaceOne: 'replace-one', zeroOut: 'zero-out' }, record: { replaceOne: 'replace-one-record', zeroOut: 'remove-one-record' } } as const;
const relationMeanings = {
  client: { replaceOne: 'the client had entirely different data', zeroOut: 'the client had contributed all zeros' },
  record: { replaceOne: 'one record had been any other', zeroOut: 'one record had been missing, its position left empty' },
} as const;

function renderGuarantee(item: Guarantee): string {
  const scope = item.scope === 'perRelease' ? 'One release' : `Lifetime, ${item.releases} release${item.releases === 1 ? '' : 's'} charged`;
  const bound = item.epsilon === 'infinite' ? 'epsilon is infinite (something was sent without noise that counts here: no differential privacy)' : `epsilon <= ${formatUp(item.epsilon)}`;
  const against = item.adversary === 'anybody' ? '' : `; against "${item.adversary}"`;
  return `${scope}: ${bound} at delta ${item.delta}; unit ${item.unit}; adjacency ${relationNames[item.unit][item.adjacency]} (${relationMeanings[item.unit][item.adjacency]})${against}; accountant ${item.accountant.name} version ${item.accountant.version}.`;
}

/** Four significant digits, rounded up: what is printed is still an upper bound. */
function formatUp(value: number): string {
  if (value === 0) return '0';
  const unit = 10 ** (Math.floor(Math.log10(value)) - 3);
  const nearest = Number(value.toPrecision(4));
  const rounded = nearest >= value ? nearest : Number(roundUp(nearest + unit).toPrecision(4));
  return String(rounded);
}
