/**
 * One client in one round: what clients use instead of the functions of `participant.ts`. It holds the state where nobody else reaches it, so a stage that was
 * answered can't be answered again: not from an older state, not with other tools, not by two calls at once.
 *
 * A call out of turn is refused and changes nothing. Anything else that goes wrong in a stage ends the round for this client: its secrets are dropped, and it is a dropout to the others.
 * To send a message again, keep its bytes. In memory only: never write a round down; a client that restarts has left it.
 */
import { FederationError } from '../errors.ts';
import type { ParticipantPolicy, RoundContext } from './parameters.ts';
import { advertiseKeys, maskInput, shareKeys, signSurvivors, unmask, type ParticipantState, type ParticipantStep, type ParticipantTools } from './participant.ts';

/** `created`: nothing was sent yet. `left`: refused, failed or given up. Otherwise what was sent last. */
export type ParticipantPhase = 'created' | ParticipantState['phase'] | 'left';

export class SecureRound {
  readonly #tools: ParticipantTools;
  readonly #announced: { readonly context: RoundContext; readonly policy: ParticipantPolicy };
  #phase: ParticipantPhase = 'created';
  #state: ParticipantState | undefined;
  #digest: Uint8Array | undefined;

  /** Checks nothing yet: `advertiseKeys` does. */
  constructor(context: RoundContext, policy: ParticipantPolicy, tools: ParticipantTools) {
    // Copies: what was checked must be what is used, whatever the caller does with its objects.
    this.#announced = { context: { ...context, manifestHash: context.manifestHash.slice(), parameters: { ...context.parameters } }, policy: { ...policy } };
    this.#tools = { ...tools };
  }

  get phase(): ParticipantPhase {
    return this.#phase;
  }

  /** Digest of the survivors that this client signed; `undefined` before. It stays after the round. */
  get digest(): Uint8Array | undefined {
    return this.#digest?.slice();
  }

  /** The first message. Throws `policy-refused` for a round that this client does not take part in. */
  advertiseKeys(): Uint8Array {
    const { context, policy } = this.#announced;
    return this.#advance('created', () => advertiseKeys(context, policy, this.#tools));
  }

  /** Throws when the roster is refused. */
  shareKeys(roster: Uint8Array): Uint8Array {
    return this.#advance('advertised', (state) => shareKeys(state!, roster, this.#tools));
  }

  /** `input`: noised integers, `dimension` of them. The charge for them must be in the ledger before the message leaves. Throws when the delivery is refused. */
  maskInput(delivery: Uint8Array, input: Int32Array): Uint8Array {
    return this.#advance('shared', (state) => maskInput(state!, delivery, input, this.#tools));
  }

  /** Throws when the set of survivors is refused. */
  signSurvivors(survivors: Uint8Array): Uint8Array {
    return this.#advance('masked', (state) => {
      const step = signSurvivors(state!, survivors, this.#tools);
      this.#digest = step.state.digest;
      return step;
    });
  }

  /** The last message. Throws when too few neighbors signed the same survivors. */
  unmask(signatures: Uint8Array): Uint8Array {
    return this.#advance('signed', (state) => unmask(state!, signatures, this.#tools));
  }

  /** Drops the secrets: to the others this client has vanished. Changes nothing once it has answered. */
  leave(): void {
    if (this.#phase === 'answered') return;
    this.#phase = 'left';
    this.#state = undefined;
  }

  #advance(from: ParticipantPhase, answer: (state: ParticipantState | undefined) => ParticipantStep<ParticipantState>): Uint8Array {
    if (this.#phase !== from) {
      throw new FederationError('stage-mismatch', 'The round is in another stage: each message is answered once.', { field: 'stage', expected: from, got: this.#phase, next: 'Send the bytes that were sent before, or start a new round.' });
    }
    // Taken out first: whatever happens below, this state is never used again.
    const state = this.#state;
    this.leave();
    const step = answer(state);
    this.#state = step.state;
    this.#phase = step.state.phase;
    return step.message;
  }
}
