/** What the coordinator keeps of each round, by name in its store, and what it erases when the round is over. */
import { digestOf } from '../../shared/crypto/digest.ts';
import { boxKeysFromSecret, generateBoxKeys, type BoxKeys } from '../../shared/crypto/sealed-box.ts';
import { FederationError } from '../../shared/errors.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import { FinishedDocumentSchema, RoundDocumentSchema, stageCodes, type FinishedDocument, type RoundDocument, type StageName } from '../../shared/protocol/messages.ts';
import { openDocument, SignedDocumentSchema, type SignedDocument } from '../../shared/protocol/signed-document.ts';
import type { Contribution } from '../../shared/rounds/state.ts';
import { equalBytes, fromUtf8, utf8 } from '../../shared/types/bytes.ts';
import type { ClientId, Digest, RoundId } from '../../shared/types/ids.ts';

/** An announcement as it was signed, with what it says. */
export interface Announcement {
  readonly signed: SignedDocument;
  readonly document: RoundDocument;
  readonly transcript: Digest;
}

const folder = (round: RoundId) => `rounds/${round}`;
/** By code: the names of stages have capitals, and those of blobs none. */
const stageFolder = (round: RoundId, stage: StageName) => `${folder(round)}/${stage === 'contribution' ? 'contributions' : `stage-${stageCodes[stage]}`}`;

export class RoundFiles {
  readonly #store: DurableStore;
  readonly #publicKey: Uint8Array;
  /** Every message is opened with them. */
  #lastBoxKeys: BoxKeys | undefined;

  /** `publicKey`: the coordinator's own identity, whose signature stored documents must have. */
  constructor(store: DurableStore, publicKey: Uint8Array) {
    this.#store = store;
    this.#publicKey = publicKey;
  }

  async announcement(round: RoundId): Promise<Announcement | undefined> {
    const signed = await this.#document(`${folder(round)}/announcement`);
    if (signed === undefined) return undefined;
    const { value, hash } = openDocument('round', signed, this.#publicKey, RoundDocumentSchema);
    return { signed, document: value, transcript: hash };
  }

  putAnnouncement(round: RoundId, signed: SignedDocument): Promise<void> {
    return this.#store.putBlob(`${folder(round)}/announcement`, utf8(JSON.stringify(signed)));
  }

  async finished(): Promise<{ readonly signed: SignedDocument; readonly document: FinishedDocument } | undefined> {
    const signed = await this.#document('finished');
    return signed === undefined ? undefined : { signed, document: openDocument('finished', signed, this.#publicKey, FinishedDocumentSchema).value };
  }

  putFinished(signed: SignedDocument): Promise<void> {
    return this.#store.putBlob('finished', utf8(JSON.stringify(signed)));
  }

  /** Frame of soft labels: of a round, or of the end. */
  labels(of: RoundId | 'finished'): Promise<Uint8Array | undefined> {
    return this.#store.getBlob(of === 'finished' ? 'finished-labels' : `${folder(of)}/soft-labels`);
  }

  putLabels(of: RoundId | 'finished', frame: Uint8Array): Promise<void> {
    return this.#store.putBlob(of === 'finished' ? 'finished-labels' : `${folder(of)}/soft-labels`, frame);
  }

  /** Frame of those soft labels that differ from what was announced before, where an announcement has `changed`. */
  changedLabels(of: RoundId | 'finished'): Promise<Uint8Array | undefined> {
    return this.#store.getBlob(of === 'finished' ? 'finished-labels-changed' : `${folder(of)}/soft-labels-changed`);
  }

  putChangedLabels(of: RoundId | 'finished', frame: Uint8Array): Promise<void> {
    return this.#store.putBlob(of === 'finished' ? 'finished-labels-changed' : `${folder(of)}/soft-labels-changed`, frame);
  }

  /** The round's box keys, made on the first call and the same ones after a restart. */
  async makeBoxKeys(round: RoundId, random: RandomSource): Promise<BoxKeys> {
    const existing = await this.boxKeys(round);
    if (existing !== undefined) return existing;
    const keys = generateBoxKeys(random);
    await this.#store.putBlob(`${folder(round)}/box-secret`, keys.secretKey);
    return keys;
  }

  /** The round's box keys; `undefined` once they are erased. */
  async boxKeys(round: RoundId): Promise<BoxKeys | undefined> {
    const stored = await this.#store.getBlob(`${folder(round)}/box-secret`);
    if (stored === undefined) this.#lastBoxKeys = undefined;
    else if (this.#lastBoxKeys === undefined || !equalBytes(this.#lastBoxKeys.secretKey, stored)) this.#lastBoxKeys = boxKeysFromSecret(stored);
    return this.#lastBoxKeys;
  }

  /** A client's sealed message of one stage. */
  putContribution(round: RoundId, stage: StageName, client: ClientId, envelope: Uint8Array): Promise<void> {
    return this.#store.putBlob(`${stageFolder(round, stage)}/${client}`, envelope);
  }

  /** The message that the journal counts; throws `state-mismatch` when it is gone or changed. */
  async contribution(round: RoundId, stage: StageName, { client, digest }: Contribution): Promise<Uint8Array> {
    const envelope = await this.#store.getBlob(`${stageFolder(round, stage)}/${client}`);
    if (envelope === undefined) throw new FederationError('state-mismatch', `The journal counts a contribution to round ${round} whose file is gone.`, { field: 'contributions', next: 'Restore the run folder, or start a new run.' });
    if (digestOf(envelope) !== digest) throw new FederationError('state-mismatch', `A stored contribution to round ${round} was changed on disk.`, { field: 'contributions' });
    return envelope;
  }

  /** Erases what would open or hold individual contributions of a round that is over. */
  async erase(round: RoundId, stages: readonly StageName[], clients: readonly ClientId[]): Promise<void> {
    this.#lastBoxKeys = undefined; // else they would stay in memory until another round asks for its own
    await this.#store.deleteBlob(`${folder(round)}/box-secret`);
    for (const stage of stages) for (const client of clients) await this.#store.deleteBlob(`${stageFolder(round, stage)}/${client}`);
  }

  async #document(name: string): Promise<SignedDocument | undefined> {
    const bytes = await this.#store.getBlob(name);
    return bytes === undefined ? undefined : SignedDocumentSchema.parse(JSON.parse(fromUtf8(bytes)));
  }
}
