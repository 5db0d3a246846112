/**
 * Sealed envelopes that may have been sent: stored before they are charged, kept until their round is closed, so that after a crash the very same bytes
 * are sent again. One blob a round: uint32 length of the header, JSON header, envelope.
 */
import { z } from 'zod';
import { digestOf } from '../../shared/crypto/digest.ts';
import { FederationError } from '../../shared/errors.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import { ReleaseParametersSchema, type ReleaseParameters } from '../../shared/privacy/release.ts';
import { DigestSchema, RoundIdSchema } from '../../shared/protocol/messages.ts';
import { concatBytes, fromUtf8, uint32Bytes, utf8 } from '../../shared/types/bytes.ts';
import type { Digest, RoundId } from '../../shared/types/ids.ts';

const HeaderSchema = z.strictObject({
  format: z.literal('fedstill-outbox/1'),
  round: RoundIdSchema,
  transcript: DigestSchema,
  contribution: DigestSchema,
  envelope: DigestSchema,
  parameters: ReleaseParametersSchema,
});

export interface OutboxEntry {
  readonly round: RoundId;
  /** Of the announcement that the envelope is bound to. */
  readonly transcript: Digest;
  /** Digest of the noised matrix inside: what the ledger charges. */
  readonly contribution: Digest;
  readonly parameters: ReleaseParameters;
  readonly envelope: Uint8Array;
  readonly envelopeDigest: Digest;
}

export class Outbox {
  readonly #store: DurableStore;

  constructor(store: DurableStore) {
    this.#store = store;
  }

  /** Stores an envelope durably; from now on these are the bytes of this round. */
  async put(entry: Omit<OutboxEntry, 'envelopeDigest'>): Promise<OutboxEntry> {
    const { envelope, ...rest } = entry;
    const envelopeDigest = digestOf(envelope);
    const header = utf8(JSON.stringify({ format: 'fedstill-outbox/1', ...rest, envelope: envelopeDigest }));
    await this.#store.putBlob(name(entry.round), concatBytes(uint32Bytes(header.length), header, envelope));
    return { ...entry, envelopeDigest };
  }

  /** Throws `state-mismatch` when the stored bytes are damaged: they must not be sent, nor replaced by others. */
  async get(round: RoundId): Promise<OutboxEntry | undefined> {
    const bytes = await this.#store.getBlob(name(round));
    if (bytes === undefined) return undefined;
    try {
      const headerEnd = 4 + new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true);
      const header = HeaderSchema.parse(JSON.parse(fromUtf8(bytes.subarray(4, headerEnd))));
      const envelope = bytes.slice(headerEnd);
      if (digestOf(envelope) !== header.envelope) throw new Error('the envelope has another digest');
      return { round, transcript: header.transcript, contribution: header.contribution, parameters: header.parameters, envelope, envelopeDigest: header.envelope };
    } catch (cause) {
      throw new FederationError('state-mismatch', `The stored contribution to round ${round} is damaged; it is not sent.`, { field: name(round), next: 'Restore the state folder from a backup, or wait for the next round.', cause });
    }
  }

  async remove(round: RoundId): Promise<void> {
    await this.#store.deleteBlob(name(round));
  }
}

function name(round: RoundId): string {
  return `outbox/round-${round}`;
}
