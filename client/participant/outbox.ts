/**
 * Sealed envelopes that may have been sent: stored before they are charged, kept until their round is closed, so that after a crash the very same bytes
 * are sent again. One blob for a round's contribution (in secure aggregation: its masked input) and one for its answer to `unmask`: uint32 length of the
 * header, JSON header, envelope.
 */
import { z } from 'zod';
import { digestOf } from '../../shared/crypto/digest.ts';
import { FederationError } from '../../shared/errors.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import { ReleaseParametersSchema, type ReleaseParameters } from '../../shared/privacy/release.ts';
import { DigestSchema, RoundIdSchema } from '../../shared/protocol/messages.ts';
import { concatBytes, fromBase64, fromUtf8, toBase64, uint32Bytes, utf8 } from '../../shared/types/bytes.ts';
import type { Digest, RoundId } from '../../shared/types/ids.ts';

const ContributionHeaderSchema = z.strictObject({
  format: z.literal('fedstill-outbox/1'),
  round: RoundIdSchema,
  /** Absent in what versions without secure aggregation have stored. */
  stage: z.enum(['contribution', 'maskedInput']).default('contribution'),
  transcript: DigestSchema,
  contribution: DigestSchema,
  envelope: DigestSchema,
  parameters: ReleaseParametersSchema,
});

const AnswerHeaderSchema = z.strictObject({
  format: z.literal('fedstill-answer/1'),
  round: RoundIdSchema,
  transcript: DigestSchema,
  /** Base64. */
  opening: z.string().max(4096),
  envelope: DigestSchema,
});

export interface OutboxEntry {
  readonly round: RoundId;
  readonly stage: 'contribution' | 'maskedInput';
  /** Of the announcement that the envelope is bound to. */
  readonly transcript: Digest;
  /** Digest of the noised matrix inside, or of the masked one: what the ledger charges. */
  readonly contribution: Digest;
  readonly parameters: ReleaseParameters;
  readonly envelope: Uint8Array;
  readonly envelopeDigest: Digest;
}

/** A client's one answer to `unmask` in a round. */
export interface StoredAnswer {
  readonly round: RoundId;
  readonly stage: 'unmask';
  readonly transcript: Digest;
  /** How every coordinator's message that this answers begins: round, manifest, roster and survivors. */
  readonly opening: Uint8Array;
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
    await this.#store.putBlob(contributionName(entry.round), pack({ format: 'fedstill-outbox/1', ...rest, envelope: envelopeDigest }, envelope));
    return { ...entry, envelopeDigest };
  }

  /** Throws `state-mismatch` when the stored bytes are damaged: they must not be sent, nor replaced by others. */
  async get(round: RoundId): Promise<OutboxEntry | undefined> {
    const stored = await this.#read(contributionName(round), ContributionHeaderSchema, round);
    if (stored === undefined) return undefined;
    const { stage, transcript, contribution, parameters, envelope: envelopeDigest } = stored.header;
    return { round, stage, transcript, contribution, parameters, envelope: stored.envelope, envelopeDigest };
  }

  /** Stores the answer to `unmask` durably, before it is sent. */
  async putAnswer(answer: Omit<StoredAnswer, 'envelopeDigest'>): Promise<StoredAnswer> {
    const { round, transcript, opening, envelope } = answer;
    const envelopeDigest = digestOf(envelope);
    await this.#store.putBlob(answerName(round), pack({ format: 'fedstill-answer/1', round, transcript, opening: toBase64(opening), envelope: envelopeDigest }, envelope));
    return { ...answer, envelopeDigest };
  }

  /** Throws `state-mismatch` when the stored bytes are damaged. */
  async getAnswer(round: RoundId): Promise<StoredAnswer | undefined> {
    const stored = await this.#read(answerName(round), AnswerHeaderSchema, round);
    if (stored === undefined) return undefined;
    const { transcript, opening, envelope: envelopeDigest } = stored.header;
    const bytes = fromBase64(opening);
    if (bytes === undefined) throw damaged(answerName(round), round, new Error('the opening is not base64'));
    return { round, stage: 'unmask', transcript, opening: bytes, envelope: stored.envelope, envelopeDigest };
  }

  async remove(round: RoundId): Promise<void> {
    await this.#store.deleteBlob(contributionName(round));
    await this.#store.deleteBlob(answerName(round));
  }

  async #read<H extends { readonly round: RoundId; readonly envelope: Digest }>(name: string, schema: z.ZodType<H>, round: RoundId): Promise<{ readonly header: H; readonly envelope: Uint8Array } | undefined> {
    const bytes = await this.#store.getBlob(name);
    if (bytes === undefined) return undefined;
    try {
      const headerEnd = 4 + new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true);
      const header = schema.parse(JSON.parse(fromUtf8(bytes.subarray(4, headerEnd))));
      const envelope = bytes.slice(headerEnd);
      if (header.round !== round) throw new Error('it belongs to another round');
      if (digestOf(envelope) !== header.envelope) throw new Error('the envelope has another digest');
      return { header, envelope };
    } catch (cause) {
      throw damaged(name, round, cause);
    }
  }
}

function pack(header: object, envelope: Uint8Array): Uint8Array {
  const text = utf8(JSON.stringify(header));
  return concatBytes(uint32Bytes(text.length), text, envelope);
}

function damaged(name: string, round: RoundId, cause: unknown): FederationError {
  return new FederationError('state-mismatch', `What is stored of the contribution to round ${round} is damaged; it is not sent.`, { field: name, next: 'Restore the state folder from a backup, or wait for the next round.', cause });
}

function contributionName(round: RoundId): string {
  return `outbox/round-${round}`;
}

function answerName(round: RoundId): string {
  return `outbox/answer-${round}`;
}
