/** A whole round in memory, with clients that vanish before a stage's message, and hooks for a coordinator that lies. */
import { generateIdentity } from '../../shared/crypto/signature.ts';
import type { CryptoProvider } from '../../shared/crypto/provider.ts';
import { nodeCrypto } from '../../shared/node/node-crypto.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import * as aggregator from '../../shared/secure-aggregation/aggregator.ts';
import type { RoundContext, SecureAggregationParameters } from '../../shared/secure-aggregation/parameters.ts';
import * as participant from '../../shared/secure-aggregation/participant.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { insecureFakeCrypto } from './insecure-fake-crypto.ts';

export interface Client {
  readonly tools: participant.ParticipantTools;
  state: participant.ParticipantState | undefined;
}

export const stages = ['shareKeys', 'maskedInput', 'consistencyCheck', 'unmask'] as const;
export type Stage = (typeof stages)[number];

export interface RoundOptions {
  readonly clients: number;
  readonly minSurvivors: number;
  readonly maxCorrupt?: number;
  readonly minCohort?: number;
  readonly dimension?: number;
  readonly round?: number;
  readonly seed?: number;
  readonly crypto?: CryptoProvider;
  /** Of each client; `inputOf` when left out. */
  readonly inputs?: readonly Int32Array[];
  /** Positions (0..clients-1, in the order of `clients`) that vanish before they send this stage's message. */
  readonly drops?: Partial<Record<Stage, ReadonlySet<number>>>;
}

export function fixedHash(byte: number): Uint8Array {
  return new Uint8Array(32).fill(byte);
}

export function contextFor(options: RoundOptions, manifestByte = 7): RoundContext {
  const parameters: SecureAggregationParameters = {
    dimension: options.dimension ?? 4,
    minCohort: options.minCohort ?? options.minSurvivors,
    minSurvivors: options.minSurvivors,
    maxCorrupt: options.maxCorrupt ?? 0,
  };
  return { round: options.round ?? 1, manifestHash: fixedHash(manifestByte), parameters };
}

export const lenient = { minHonest: 1, lastRound: 0 } as const;

export function makeClients(options: RoundOptions): Client[] {
  const crypto = options.crypto ?? nodeCrypto;
  return Array.from({ length: options.clients }, (_, i) => {
    const random: RandomSource = new InsecureSeededRandom(((options.seed ?? 1) * 100_003 + i) >>> 0);
    // Anyone can sign with the fake: its identities need no real keys, which take milliseconds each.
    const identity = crypto.name === insecureFakeCrypto.name ? { publicKey: random.bytes(32), secretKey: random.bytes(64) } : generateIdentity(random);
    return { tools: { identity, random, crypto }, state: undefined };
  });
}

/** Input of client i: large, of both signs, different in every coordinate. */
export function inputOf(i: number, dimension: number): Int32Array {
  return Int32Array.from({ length: dimension }, (_, j) => ((i + 1) * 7919 + j * 104729) % 1_000_003 - 500_000);
}

export function plainSum(members: Iterable<number>, dimension: number): Int32Array {
  const sum = new Int32Array(dimension);
  for (const i of members) inputOf(i, dimension).forEach((value, j) => (sum[j]! += value));
  return sum;
}

/** Everything that went over the wire. */
export interface RoundRecord {
  readonly context: RoundContext;
  readonly clients: Client[];
  readonly adverts: Uint8Array[];
  roster: Uint8Array;
  rosterState: aggregator.RosterState;
  shares: Uint8Array[];
  deliveries: ReadonlyMap<number, Uint8Array>;
  sharersState: aggregator.SharersState;
  maskedInputs: Uint8Array[];
  survivorsMessage: Uint8Array;
  survivorsState: aggregator.SurvivorsState;
  consistency: Uint8Array[];
  signatures: ReadonlyMap<number, Uint8Array>;
  answers: Uint8Array[];
  result: aggregator.SecureSum;
}

/** Runs the round up to and including `until` and gives what there is then. */
export function runRound(options: RoundOptions, until: Stage | 'advertiseKeys' | 'end' = 'end', clients: Client[] = makeClients(options)): RoundRecord {
  const crypto = options.crypto ?? nodeCrypto;
  const context = contextFor(options);
  const dropped = new Set<number>();
  const record = { context, clients } as RoundRecord;
  const alive = (stage: Stage) => {
    for (const i of options.drops?.[stage] ?? []) dropped.add(i);
    return clients.map((client, i) => ({ client, i })).filter(({ i }) => !dropped.has(i));
  };
  const step = <S extends participant.ParticipantState>(client: Client, result: participant.ParticipantStep<S>) => {
    client.state = result.state;
    return result.message;
  };
  const index = (client: Client) => record.rosterState.roster.adverts.findIndex(({ identity }) => identity.every((byte, b) => byte === client.tools.identity.publicKey[b]));

  const adverts = clients.map((client) => step(client, participant.advertiseKeys(context, lenient, client.tools)));
  Object.assign(record, { adverts });
  const opened = aggregator.closeAdvertiseKeys(context, adverts.map((message) => aggregator.acceptAdvert(context, message, crypto)), crypto);
  Object.assign(record, { roster: opened.message, rosterState: opened.state });
  if (until === 'advertiseKeys') return record;

  record.shares = alive('shareKeys').map(({ client }) => step(client, participant.shareKeys(client.state!, record.roster, client.tools)));
  const shared = aggregator.closeShareKeys(record.rosterState, record.shares.map((message) => aggregator.acceptShares(record.rosterState, message, crypto)));
  Object.assign(record, { sharersState: shared.state, deliveries: shared.deliveries });
  if (until === 'shareKeys') return record;

  record.maskedInputs = alive('maskedInput').map(({ client, i }) => step(client, participant.maskInput(client.state!, record.deliveries.get(index(client))!, options.inputs?.[i] ?? inputOf(i, context.parameters.dimension), client.tools)));
  const masked = aggregator.closeMaskedInput(record.sharersState, record.maskedInputs.map((message) => aggregator.acceptMaskedInput(record.sharersState, message, crypto)), crypto);
  Object.assign(record, { survivorsState: masked.state, survivorsMessage: masked.message });
  if (until === 'maskedInput') return record;

  record.consistency = alive('consistencyCheck').map(({ client }) => step(client, participant.signSurvivors(client.state!, record.survivorsMessage, client.tools)));
  record.signatures = aggregator.closeConsistency(record.survivorsState, record.consistency.map((message) => aggregator.acceptConsistency(record.survivorsState, message, crypto))).messages;
  if (until === 'consistencyCheck') return record;

  record.answers = alive('unmask').map(({ client }) => step(client, participant.unmask(client.state!, record.signatures.get(index(client))!, client.tools)));
  if (until === 'unmask') return record;
  record.result = aggregator.closeUnmask(record.survivorsState, record.answers.map((message) => aggregator.acceptUnmask(record.survivorsState, message, crypto)), crypto);
  return record;
}
