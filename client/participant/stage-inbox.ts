/**
 * What the coordinator has opened of one round of secure aggregation: it hands each stage's message to the work that waits for it, once. In memory only.
 *
 * Messages may come before the acknowledgement of what they answer to has arrived, twice after a lost connection, or from a coordinator that lies.
 */
import { digestOf } from '../../shared/crypto/digest.ts';
import { FederationError } from '../../shared/errors.ts';
import type { SecureStageName } from '../../shared/protocol/messages.ts';
import type { Digest, RoundId } from '../../shared/types/ids.ts';
import { deferred, type Deferred } from './deferred.ts';

interface Expected {
  readonly message: Deferred<Uint8Array>;
  readonly check: (data: Uint8Array) => void;
}

export class StageInbox {
  readonly round: RoundId;
  readonly #expected = new Map<SecureStageName, Expected>();
  readonly #taken = new Map<SecureStageName, Digest>();
  readonly #unexpected: ((stage: SecureStageName) => FederationError) | undefined;

  /** `unexpected`: how a stage is refused that nobody waits for; default `stage-mismatch`. */
  constructor(round: RoundId, unexpected?: (stage: SecureStageName) => FederationError) {
    this.round = round;
    this.#unexpected = unexpected;
  }

  /** The message that opens a stage. To be called before the answer to the stage before is sent. `check` throws what the message is refused with. */
  expect(stage: SecureStageName, check: (data: Uint8Array) => void = () => undefined): Promise<Uint8Array> {
    const message = deferred<Uint8Array>();
    this.#expected.set(stage, { message, check });
    return message.promise;
  }

  /** Takes a message; the same one again is ignored. Throws `context-mismatch` for a second, different one, and `stage-mismatch` for one that nobody waits for. */
  accept(stage: SecureStageName, data: Uint8Array): void {
    const digest = digestOf(data);
    const taken = this.#taken.get(stage);
    if (taken === digest) return;
    if (taken !== undefined) {
      throw new FederationError('context-mismatch', `This is a second, different message for stage ${stage} of round ${this.round}.`, { field: 'data', expected: taken, got: digest, next: 'The coordinator contradicts itself; ask its operator.' });
    }
    const expected = this.#expected.get(stage);
    if (expected === undefined) {
      throw (
        this.#unexpected?.(stage) ??
        new FederationError('stage-mismatch', `This client does not wait for stage ${stage} of round ${this.round}.`, { field: 'stage', expected: [...this.#expected.keys()].at(-1) ?? 'none', got: stage, next: 'Open the stages in order, when their clients have answered.' })
      );
    }
    expected.check(data);
    this.#taken.set(stage, digest);
    this.#expected.delete(stage);
    expected.message.resolve(data);
  }
}
