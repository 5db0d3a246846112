/**
 * The coordinator's side of one round of secure aggregation (docs/secure-aggregation.md): which message opens a stage, what a client's message must be, and the sum. All
 * of it is a function of the announcement and of the messages that closed the stages before, which are on disk: computed when it is first asked for, again and bit for bit the
 * same by a process that comes after.
 *
 * It learns the sum and nothing else of anybody's input, unless more clients help it than the round tolerates.
 */
import type { CryptoProvider } from '../../shared/crypto/provider.ts';
import { isLowOrderKey } from '../../shared/crypto/small-order.ts';
import { FederationError } from '../../shared/errors.ts';
import { clientIdOf } from '../../shared/protocol/identity.ts';
import type { SecureStageName, StageName } from '../../shared/protocol/messages.ts';
import type { ClosedStage, Contribution } from '../../shared/rounds/state.ts';
import {
  acceptAdvert,
  acceptConsistency,
  acceptMaskedInput,
  acceptShares,
  acceptUnmask,
  closeAdvertiseKeys,
  closeConsistency,
  closeMaskedInput,
  closeShareKeys,
  closeUnmask,
  type AcceptedInput,
  type RosterState,
  type SecureSum,
  type SharersState,
  type SurvivorsState,
} from '../../shared/secure-aggregation/aggregator.ts';
import { clientMessageBytes } from '../../shared/secure-aggregation/messages.ts';
import { addInPlace } from '../../shared/secure-aggregation/modulus.ts';
import type { RoundContext } from '../../shared/secure-aggregation/parameters.ts';
import { holdersOf, neighborsOf } from '../../shared/secure-aggregation/share-graph.ts';
import { equalBytes, toHex } from '../../shared/types/bytes.ts';
import type { ClientId } from '../../shared/types/ids.ts';
import { exactly, type ByteLengths } from './uploads.ts';

export interface SecureAggregationDeps {
  readonly context: RoundContext;
  readonly crypto: CryptoProvider;
  /** Opens a stored message of a stage that is over, or of the first one. */
  readonly readFrame: (stage: StageName, contribution: Contribution) => Promise<Uint8Array>;
}

/** The message that opens a stage, for each client. */
export type StageMessages = (client: ClientId) => Uint8Array;

interface RosterStage {
  readonly state: RosterState;
  readonly message: Uint8Array;
  /** Index in the roster. */
  readonly indices: ReadonlyMap<ClientId, number>;
}
interface SharersStage {
  readonly state: SharersState;
  readonly deliveries: ReadonlyMap<number, Uint8Array>;
}
interface SurvivorsStage {
  readonly state: SurvivorsState;
  readonly message: Uint8Array;
}

export class SecureAggregation {
  readonly #deps: SecureAggregationDeps;
  /** What was computed, by stage: a stage that is over never changes. */
  readonly #computed = new Map<string, Promise<unknown>>();
  /** Who advertised a key, by its hexadecimal text. */
  readonly #keyOwners = new Map<string, ClientId>();
  #knowsAdverts = false;

  constructor(deps: SecureAggregationDeps) {
    this.#deps = deps;
  }

  get round(): number {
    return this.#deps.context.round;
  }

  /** What to send to the clients that are asked in `stage`. Throws `quorum-missed`, `policy-refused` and the like when no such stage can follow. */
  async messagesFor(stage: SecureStageName, closed: readonly ClosedStage[]): Promise<StageMessages> {
    switch (stage) {
      case 'advertiseKeys':
        throw new FederationError('internal', 'The announcement opens the first stage.');
      case 'shareKeys': {
        const { message } = await this.#roster(closed);
        return () => message;
      }
      case 'maskedInput': {
        const { deliveries } = await this.#sharers(closed);
        return this.#byIndex(deliveries, closed);
      }
      case 'consistencyCheck': {
        const { message } = await this.#survivors(closed);
        return () => message;
      }
      case 'unmask': {
        const messages = await this.#signatures(closed);
        return this.#byIndex(messages, closed);
      }
    }
  }

  /** Lengths in bytes that a client's message of the open stage may have, before its first byte came. */
  async frameLengths(stage: SecureStageName, client: ClientId, closed: readonly ClosedStage[]): Promise<ByteLengths> {
    switch (stage) {
      case 'advertiseKeys':
        return exactly(clientMessageBytes.advert);
      case 'shareKeys': {
        const { state, indices } = await this.#roster(closed);
        return exactly(clientMessageBytes.shares(neighborsOf(state.roster.graph, indices.get(client)!).length));
      }
      case 'maskedInput':
        return exactly(clientMessageBytes.maskedInput(this.#deps.context.parameters.dimension));
      case 'consistencyCheck':
        return exactly(clientMessageBytes.consistency);
      case 'unmask': {
        // A client has the shares that it could open: never fewer than open a secret, or it would have left.
        const { state } = await this.#sharers(closed);
        const { graph } = state.roster;
        const sharers = new Set(state.sharers);
        const held = holdersOf(graph, (await this.#roster(closed)).indices.get(client)!).filter((peer) => sharers.has(peer)).length;
        const { unmask } = clientMessageBytes;
        return { least: unmask(graph.shape.threshold), most: unmask(held), step: unmask(1) - unmask(0) };
      }
    }
  }

  /**
   * Throws unless this is a message that the open stage can go on with. `sender`: the identity key under which it came.
   * What is sealed inside it, and whether its shares are good, nobody can tell yet.
   */
  async accept(stage: SecureStageName, frame: Uint8Array, sender: Uint8Array, closed: readonly ClosedStage[]): Promise<void> {
    const { context, crypto } = this.#deps;
    const identityOf = (state: RosterState, index: number) => state.roster.adverts[index]!.identity;
    let identity: Uint8Array;
    switch (stage) {
      case 'advertiseKeys': {
        const advert = acceptAdvert(context, frame, crypto);
        identity = advert.identity;
        if (isLowOrderKey(advert.channelKey) || isLowOrderKey(advert.maskKey)) throw unusableKey('a key of low order');
        if (equalBytes(advert.channelKey, advert.maskKey)) throw unusableKey('one key for both purposes');
        break;
      }
      case 'shareKeys': {
        const { state } = await this.#roster(closed);
        identity = identityOf(state, acceptShares(state, frame, crypto).sender);
        break;
      }
      case 'maskedInput': {
        const { state } = await this.#sharers(closed);
        identity = identityOf(state, acceptMaskedInput(state, frame, crypto).sender);
        break;
      }
      case 'consistencyCheck': {
        const { state } = await this.#survivors(closed);
        identity = identityOf(state, acceptConsistency(state, frame, crypto).sender);
        break;
      }
      case 'unmask': {
        const { state } = await this.#survivors(closed);
        identity = identityOf(state, acceptUnmask(state, frame, crypto).sender);
        break;
      }
    }
    if (!equalBytes(identity, sender)) throw new FederationError('context-mismatch', 'The message names another client than the one that sent it.', { field: 'identity', next: 'Send your own message.' });
  }

  /**
   * Takes the keys of an accepted advert: a second client with one of them would make the whole roster unusable. To be called with one advert at a time, right before it is
   * stored; again for the same client is no conflict. `received`: what the stage has so far.
   */
  async claimKeys(frame: Uint8Array, client: ClientId, received: readonly Contribution[]): Promise<void> {
    if (!this.#knowsAdverts) {
      for (const contribution of received) this.#claim(await this.#deps.readFrame('advertiseKeys', contribution), contribution.client);
      this.#knowsAdverts = true;
    }
    this.#claim(frame, client);
  }

  #claim(frame: Uint8Array, client: ClientId): void {
    const { context, crypto } = this.#deps;
    const { channelKey, maskKey } = acceptAdvert(context, frame, crypto);
    const keys = [toHex(channelKey), toHex(maskKey)];
    if (keys.some((key) => (this.#keyOwners.get(key) ?? client) !== client)) throw unusableKey('a key of another client');
    for (const key of keys) this.#keyOwners.set(key, client);
  }

  /** The sum, once every stage is over. Throws `quorum-missed` when the shares of a secret are too few, or do not fit together. */
  async sum(closed: readonly ClosedStage[]): Promise<SecureSum> {
    const { crypto } = this.#deps;
    const { state } = await this.#survivors(closed);
    const frames = await this.#frames('unmask', closed);
    return closeUnmask(state, frames.map((frame) => acceptUnmask(state, frame, crypto)), crypto);
  }

  /** The client of an index in the roster. */
  async clientAt(index: number, closed: readonly ClosedStage[]): Promise<ClientId> {
    const { state } = await this.#roster(closed);
    return clientIdOf(state.roster.adverts[index]!.identity);
  }

  // --- stages that are over ---

  #roster(closed: readonly ClosedStage[]): Promise<RosterStage> {
    return this.#once('advertiseKeys', async () => {
      const { context, crypto } = this.#deps;
      const adverts = (await this.#frames('advertiseKeys', closed)).map((frame) => acceptAdvert(context, frame, crypto));
      const { state, message } = closeAdvertiseKeys(context, adverts, crypto);
      return { state, message, indices: new Map(state.roster.adverts.map(({ identity }, index) => [clientIdOf(identity), index])) };
    });
  }

  #sharers(closed: readonly ClosedStage[]): Promise<SharersStage> {
    return this.#once('shareKeys', async () => {
      const { state } = await this.#roster(closed);
      const frames = await this.#frames('shareKeys', closed);
      return closeShareKeys(state, frames.map((frame) => acceptShares(state, frame, this.#deps.crypto)));
    });
  }

  #survivors(closed: readonly ClosedStage[]): Promise<SurvivorsStage> {
    return this.#once('maskedInput', async () => {
      const { context, crypto, readFrame } = this.#deps;
      const { state } = await this.#sharers(closed);
      // One input in memory at a time: a cohort's are gigabytes. Their sum goes in with the first of them, the others with nothing.
      const total = new Uint32Array(context.parameters.dimension);
      const nothing = new Uint32Array(context.parameters.dimension);
      const accepted: AcceptedInput[] = [];
      for (const contribution of receivedIn('maskedInput', closed)) {
        const { sender, elements } = acceptMaskedInput(state, await readFrame('maskedInput', contribution), crypto);
        addInPlace(total, elements);
        accepted.push({ sender, elements: accepted.length === 0 ? total : nothing });
      }
      return closeMaskedInput(state, accepted, crypto);
    });
  }

  #signatures(closed: readonly ClosedStage[]): Promise<ReadonlyMap<number, Uint8Array>> {
    return this.#once('consistencyCheck', async () => {
      const { state } = await this.#survivors(closed);
      const frames = await this.#frames('consistencyCheck', closed);
      return closeConsistency(state, frames.map((frame) => acceptConsistency(state, frame, this.#deps.crypto))).messages;
    });
  }

  async #byIndex(messages: ReadonlyMap<number, Uint8Array>, closed: readonly ClosedStage[]): Promise<StageMessages> {
    const { indices } = await this.#roster(closed);
    return (client) => messages.get(indices.get(client)!)!;
  }

  async #frames(stage: SecureStageName, closed: readonly ClosedStage[]): Promise<Uint8Array[]> {
    const frames: Uint8Array[] = [];
    for (const contribution of receivedIn(stage, closed)) frames.push(await this.#deps.readFrame(stage, contribution));
    return frames;
  }

  /** What failed is tried again when it is asked for again: a disk may have hiccuped. */
  #once<T>(stage: SecureStageName, compute: () => Promise<T>): Promise<T> {
    const known = this.#computed.get(stage) as Promise<T> | undefined;
    if (known !== undefined) return known;
    const result = compute();
    this.#computed.set(stage, result);
    result.catch(() => this.#computed.delete(stage));
    return result;
  }
}

function receivedIn(stage: SecureStageName, closed: readonly ClosedStage[]): readonly Contribution[] {
  const found = closed.find((candidate) => candidate.stage === stage);
  if (found === undefined) throw new FederationError('internal', `Stage ${stage} is not over.`);
  return found.received;
}

function unusableKey(got: string): FederationError {
  return new FederationError('value-out-of-range', 'The advert holds a key that cannot be used.', { field: 'advert', expected: 'two fresh keys that nobody else has', got, next: 'Make fresh keys for every round.' });
}
