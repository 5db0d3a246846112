/**
 * A coordinator that works with its puppets: takes everything that clients have sent, everything that the puppets have ever known, and tries to take the masks off the
 * inputs of a few clients.
 */
import { nodeCrypto as crypto } from '../../shared/node/node-crypto.ts';
import { pairwiseMaskKey, selfMaskKey, selfSeedCommitment } from '../../shared/secure-aggregation/key-derivation.ts';
import { applyMasks, pairwiseSign, type SignedMask } from '../../shared/secure-aggregation/masking.ts';
import { decodeDelivery, decodeMaskedInput, decodeRoster, decodeUnmask } from '../../shared/secure-aggregation/messages.ts';
import { addInPlace, toSigned } from '../../shared/secure-aggregation/modulus.ts';
import { rosterOf, type Roster } from '../../shared/secure-aggregation/roster.ts';
import { combineShares, lagrangeWeights } from '../../shared/secure-aggregation/shamir.ts';
import { holdersOf, neighborsOf } from '../../shared/secure-aggregation/share-graph.ts';
import { equalBytes, toHex } from '../../shared/types/bytes.ts';
import type { OpenRound, SecureCoordinator } from './secure-coordinator.ts';

export interface Attempt {
  /** The sum of the inputs, less every mask that could be computed. */
  readonly sum: Int32Array;
  /** Masks that are still on it. */
  readonly masksLeft: number;
}

/** What one client was told: the graph and the keys are those of this roster. */
interface View {
  readonly roster: Roster;
  readonly own: number;
  readonly sharers: readonly number[];
  readonly elements: Uint32Array;
}

/** `undefined` when one of the clients has sent no masked input: then there is nothing to take masks off. */
export function unmaskBy(coordinator: SecureCoordinator, open: OpenRound, clients: readonly string[]): Attempt | undefined {
  const views = new Map<string, View>();
  for (const client of clients) {
    const view = viewOf(coordinator, open, client);
    if (view === undefined) return undefined;
    views.set(client, view);
  }
  const sum = new Uint32Array(open.context.parameters.dimension);
  let masksLeft = 0;
  for (const [client, { roster, own, sharers, elements }] of views) {
    const { adverts, keyContext, graph } = roster;
    const secrets = new Secrets(coordinator, open, roster);
    const known: SignedMask[] = [];
    const seed = secrets.selfSeed(own);
    if (seed === undefined) masksLeft++;
    else known.push({ key: selfMaskKey(seed, keyContext, adverts[own]!.identity, crypto), sign: -1 });
    for (const neighbor of neighborsOf(graph, own).filter((index) => sharers.includes(index))) {
      const other = toHex(adverts[neighbor]!.identity);
      // The same mask with the other sign is on the other's input.
      if (other !== client && views.has(other) && equalBytes(views.get(other)!.roster.keyContext.rosterRoot, keyContext.rosterRoot)) continue;
      const point = secrets.agreement(own, neighbor);
      if (point === undefined) masksLeft++;
      else known.push({ key: pairwiseMaskKey(point, keyContext, adverts[own]!.identity, adverts[neighbor]!.identity, crypto), sign: pairwiseSign(own, neighbor) === 1 ? -1 : 1 });
    }
    addInPlace(sum, elements);
    applyMasks(sum, known, crypto);
  }
  return { sum: toSigned(sum), masksLeft };
}

/** Every group of `size` of these clients. */
export function groupsOf<T>(clients: readonly T[], size: number): T[][] {
  if (size === 0) return [[]];
  return clients.flatMap((client, i) => groupsOf(clients.slice(i + 1), size - 1).map((rest) => [client, ...rest]));
}

function viewOf(coordinator: SecureCoordinator, open: OpenRound, client: string): View | undefined {
  const input = coordinator.learned.find((message) => message.round === open.round && message.stage === 'maskedInput' && message.client === client);
  const rosterMessage = open.opening.get('shareKeys')?.get(client);
  const delivery = open.opening.get('maskedInput')?.get(client);
  if (input === undefined || rosterMessage === undefined || delivery === undefined) return undefined;
  const context = contextFor(coordinator, open, client);
  const roster = rosterOf(context, decodeRoster(rosterMessage, context), crypto);
  const own = roster.adverts.findIndex(({ identity }) => toHex(identity) === client);
  const { sharers } = decodeDelivery(delivery, context, roster.keyContext.rosterRoot, roster.graph.clients);
  return { roster, own, sharers, elements: decodeMaskedInput(input.message, context, roster.keyContext.rosterRoot).elements };
}

function contextFor(coordinator: SecureCoordinator, open: OpenRound, client: string) {
  return coordinator.contextOf(open.round, open.announced.get(client) ?? open.signed);
}

/** The secrets of the clients in one roster, as far as the adversary can put them together. */
class Secrets {
  readonly #roster: Roster;
  readonly #selfSeeds = new Map<number, Map<number, Uint8Array>>();
  readonly #maskSecrets = new Map<number, Map<number, Uint8Array>>();
  readonly #ownSeeds = new Map<number, Uint8Array>();
  readonly #ownMaskSecrets = new Map<number, Uint8Array>();

  constructor(coordinator: SecureCoordinator, open: OpenRound, roster: Roster) {
    this.#roster = roster;
    const { adverts, keyContext, graph } = roster;
    const indexOf = (identity: Uint8Array) => adverts.findIndex((advert) => equalBytes(advert.identity, identity));
    for (const { tools, states } of coordinator.puppets) {
      const index = indexOf(tools.identity.publicKey);
      for (const state of states) {
        if (state.phase === 'answered' || state.context.round !== open.round) continue;
        if (state.phase === 'advertised' || state.phase === 'shared') {
          this.#ownSeeds.set(index, state.selfSeed);
          this.#ownMaskSecrets.set(index, state.maskSecret);
        }
        const held = state.phase === 'shared' ? state.ownShares : state.phase === 'advertised' ? [] : state.held;
        for (const { owner, selfSeed, maskSecret } of held) {
          this.#add(this.#selfSeeds, owner, index, selfSeed);
          this.#add(this.#maskSecrets, owner, index, maskSecret);
        }
      }
    }
    for (const { round, stage, client, message } of coordinator.learned) {
      if (round !== open.round || stage !== 'unmask') continue;
      const digest = message.slice(108, 140); // whatever survivors it answers for
      try {
        const { identity, shares } = decodeUnmask(message, contextFor(coordinator, open, client), keyContext.rosterRoot, digest, graph.clients);
        for (const { owner, kind, share } of shares) this.#add(kind === 'selfSeed' ? this.#selfSeeds : this.#maskSecrets, owner, indexOf(identity), share);
      } catch {
        // Of another roster.
      }
    }
  }

  #add(to: Map<number, Map<number, Uint8Array>>, owner: number, holder: number, share: Uint8Array): void {
    const shares = to.get(owner) ?? new Map<number, Uint8Array>();
    shares.set(holder, share);
    to.set(owner, shares);
  }

  #combine(from: Map<number, Map<number, Uint8Array>>, owner: number): Uint8Array | undefined {
    const { graph } = this.#roster;
    const held = holdersOf(graph, owner).flatMap((holder, i) => {
      const share = from.get(owner)?.get(holder);
      return share === undefined ? [] : [{ position: i + 1, share }];
    });
    const { threshold } = graph.shape;
    if (held.length < threshold) return undefined;
    const chosen = held.slice(0, threshold);
    return combineShares(chosen.map(({ share }) => share), lagrangeWeights(chosen.map(({ position }) => position)));
  }

  selfSeed(owner: number): Uint8Array | undefined {
    const seed = this.#ownSeeds.get(owner) ?? this.#combine(this.#selfSeeds, owner);
    const { adverts, keyContext } = this.#roster;
    const { identity, commitment } = adverts[owner]!;
    return seed !== undefined && equalBytes(selfSeedCommitment(seed, keyContext.manifestHash, identity, crypto), commitment) ? seed : undefined;
  }

  #maskSecret(owner: number): Uint8Array | undefined {
    const secret = this.#ownMaskSecrets.get(owner) ?? this.#combine(this.#maskSecrets, owner);
    return secret !== undefined && equalBytes(crypto.x25519PublicKey(secret), this.#roster.adverts[owner]!.maskKey) ? secret : undefined;
  }

  /** What two clients agreed on: one secret of the two is enough. */
  agreement(one: number, other: number): Uint8Array | undefined {
    const { adverts } = this.#roster;
    for (const [mine, theirs] of [[one, other], [other, one]] as const) {
      const secret = this.#maskSecret(mine);
      if (secret !== undefined) return crypto.x25519(secret, adverts[theirs]!.maskKey);
    }
    return undefined;
  }
}
