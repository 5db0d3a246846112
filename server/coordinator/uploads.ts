/**
 * Chunked, resumable uploads (docs/protocol.md section 12): bytes in memory until an envelope is whole. Each client has at most one; memory is
 * bounded by the announced size before anything is allocated, and by a total.
 */
import { digestOf } from '../../shared/crypto/digest.ts';
import { FederationError } from '../../shared/errors.ts';
import { toHex } from '../../shared/types/bytes.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import type { StageName } from '../../shared/protocol/messages.ts';
import type { ClientId, Digest, RoundId } from '../../shared/types/ids.ts';

interface Upload {
  readonly id: string;
  readonly client: ClientId;
  readonly round: RoundId;
  readonly stage: StageName;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
  received: number;
  /** Answers to `upload-end` under way: the bytes are in use and stay accounted for. */
  ending: number;
}

/** Lengths that a message may have, in bytes: `least`, and multiples of `step` more, up to `most`. Known before its first byte came. */
export interface ByteLengths {
  readonly least: number;
  readonly most: number;
  readonly step: number;
}

export function exactly(bytes: number): ByteLengths {
  return { least: bytes, most: bytes, step: 1 };
}

export function isAmong({ least, most, step }: ByteLengths, bytes: number): boolean {
  return bytes >= least && bytes <= most && (bytes - least) % step === 0;
}

/** A whole envelope with the digest that was announced for it. */
export interface CompleteUpload {
  readonly id: string;
  readonly round: RoundId;
  readonly stage: StageName;
  readonly digest: Digest;
  readonly envelope: Uint8Array;
}

export class Uploads {
  readonly #byClient = new Map<ClientId, Upload>();
  readonly #random: RandomSource;
  readonly #maxTotalBytes: number;
  #totalBytes = 0;

  constructor(random: RandomSource, maxTotalBytes: number) {
    this.#random = random;
    this.#maxTotalBytes = maxTotalBytes;
  }

  /** Starts an upload, or finds the one to go on with. `lengths`: what envelopes of this stage may have. */
  begin(client: ClientId, request: { readonly round: RoundId; readonly stage: StageName; readonly bytes: number; readonly digest: Digest }, lengths: ByteLengths): { readonly upload: string; readonly offset: number } {
    const { bytes } = request;
    if (!isAmong(lengths, bytes)) {
      const { least, most, step } = lengths;
      const expected = least === most ? String(least) : `${least} to ${most} in steps of ${step}`;
      const next = request.stage === 'contribution' ? 'Predict exactly the queried examples.' : 'Send what docs/secure-aggregation.md asks for in this stage.';
      throw new FederationError('shape-mismatch', `An envelope of ${request.stage} in round ${request.round} has ${expected} bytes.`, { field: 'bytes', expected, got: String(bytes), next });
    }
    const existing = this.#byClient.get(client);
    if (existing?.digest === request.digest && existing.round === request.round && existing.stage === request.stage) return { upload: existing.id, offset: existing.received };
    if (existing !== undefined && existing.ending > 0) {
      throw new FederationError('capacity-exceeded', 'Another upload of this client is being stored.', { next: 'Wait for the answer to upload-end.' });
    }
    this.drop(client);
    if (this.#totalBytes + bytes > this.#maxTotalBytes) {
      throw new FederationError('capacity-exceeded', 'Too many uploads are under way at once.', { next: 'Try again in a few seconds.' });
    }
    const upload: Upload = { id: toHex(this.#random.bytes(8)), client, round: request.round, stage: request.stage, digest: request.digest, bytes: new Uint8Array(bytes), received: 0, ending: 0 };
    this.#byClient.set(client, upload);
    this.#totalBytes += bytes;
    return { upload: upload.id, offset: 0 };
  }

  /** Takes the next chunk; the new offset. */
  chunk(client: ClientId, id: string, offset: number, data: Uint8Array): number {
    const upload = this.#find(client, id);
    if (offset !== upload.received || offset + data.length > upload.bytes.length) {
      throw new FederationError('upload-offset', 'This chunk does not follow the bytes that arrived before it.', {
        field: 'offset',
        expected: String(upload.received),
        got: `${offset} with ${data.length} bytes of ${upload.bytes.length}`,
        next: 'Go on at the expected offset.',
      });
    }
    upload.bytes.set(data, offset);
    upload.received += data.length;
    return upload.received;
  }

  /** The whole envelope, checked against its digest. To be followed by `end`. */
  complete(client: ClientId, id: string): CompleteUpload {
    const upload = this.#find(client, id);
    if (upload.received !== upload.bytes.length) {
      throw new FederationError('upload-offset', 'The upload is not complete.', { field: 'offset', expected: String(upload.received), got: String(upload.bytes.length), next: 'Go on at the expected offset.' });
    }
    if (digestOf(upload.bytes) !== upload.digest) {
      this.drop(client);
      throw new FederationError('upload-digest', 'The bytes that arrived do not have the announced digest.', { field: 'digest', next: 'Start the upload again.' });
    }
    upload.ending++;
    return { id, round: upload.round, stage: upload.stage, digest: upload.digest, envelope: upload.bytes };
  }

  /** The answer to `upload-end` is known. The bytes of an upload that could not be stored for now are kept, so that `upload-end` can be repeated. */
  end(client: ClientId, id: string, keep: boolean): void {
    const upload = this.#byClient.get(client);
    if (upload?.id !== id) return;
    upload.ending--;
    if (!keep) this.drop(client);
  }

  drop(client: ClientId): void {
    const upload = this.#byClient.get(client);
    if (upload === undefined) return;
    this.#totalBytes -= upload.bytes.length;
    this.#byClient.delete(client);
  }

  /** Drops everything of rounds that are over. */
  dropRoundsBefore(round: RoundId): void {
    for (const upload of [...this.#byClient.values()]) if (upload.round < round) this.drop(upload.client);
  }

  #find(client: ClientId, id: string): Upload {
    const upload = this.#byClient.get(client);
    if (upload?.id === id) return upload;
    throw new FederationError('upload-unknown', 'There is no such upload; it was dropped, or the coordinator was restarted.', { field: 'upload', next: 'Send upload-begin again.' });
  }
}
