/**
 * The sealed envelope of a contribution (docs/protocol.md section 11): a NaCl box to the round's own key, signed by the client,
 * with the context (task, round, stage, sender, transcript hash) both inside the box and under the signature. An envelope for one round,
 * stage, task or sender opens nowhere else. It hides the content, not its size, its sender or its time.
 */
import { digestBytes, sha256 } from '../crypto/digest.ts';
import { boxNonceBytes, boxOverheadBytes, generateBoxKeys, openBox, sealBox } from '../crypto/sealed-box.ts';
import { signMessage, verifySignature, type IdentityKeys } from '../crypto/signature.ts';
import { FederationError } from '../errors.ts';
import type { RandomSource } from '../ports/random-source.ts';
import { concatBytes, equalBytes, uint32Bytes, utf8 } from '../types/bytes.ts';
import type { Digest, RoundId } from '../types/ids.ts';
import { stageCodes, type StageName } from './messages.ts';

const magic = utf8('FDPE');
const headerBytes = 104;
const contextBytes = 104;
const signatureBytes = 64;

/** What an envelope is bound to. */
export interface EnvelopeContext {
  readonly taskDigest: Digest;
  readonly round: RoundId;
  readonly stage: StageName;
  /** Transcript hash of the round's announcement. */
  readonly transcript: Digest;
}

/** Length of the envelope around a frame of this many bytes. */
export function envelopeBytes(frameLength: number): number {
  return headerBytes + contextBytes + frameLength + boxOverheadBytes + signatureBytes;
}

function encodeContext(context: EnvelopeContext, sender: Uint8Array): Uint8Array {
  return concatBytes(digestBytes(context.taskDigest), uint32Bytes(context.round), Uint8Array.of(stageCodes[context.stage], 0, 0, 0), sender, digestBytes(context.transcript));
}

function signedBytes(context: EnvelopeContext, unsigned: Uint8Array): Uint8Array {
  return concatBytes(utf8('fdp/1 envelope\n'), digestBytes(context.transcript), sha256(unsigned));
}

/** Seals a frame to the round's box key with fresh keys and a fresh nonce. */
export function sealEnvelope(frame: Uint8Array, context: EnvelopeContext, boxKey: Uint8Array, sender: IdentityKeys, random: RandomSource): Uint8Array {
  const ephemeral = generateBoxKeys(random);
  const nonce = random.bytes(boxNonceBytes);
  const box = sealBox(concatBytes(encodeContext(context, sender.publicKey), frame), nonce, boxKey, ephemeral.secretKey);
  const unsigned = concatBytes(magic, Uint8Array.of(1, stageCodes[context.stage], 0, 0), uint32Bytes(context.round), sender.publicKey, ephemeral.publicKey, nonce, uint32Bytes(box.length), box);
  return concatBytes(unsigned, signMessage(signedBytes(context, unsigned), sender));
}

function wrongContext(field: string): FederationError {
  return new FederationError('context-mismatch', `The envelope's ${field} is not that of this round.`, { field, next: 'Seal a contribution for the round, stage and task that were announced.' });
}

/** Checks header, length and signature: all that can be checked without the round's secret key. */
export function verifyEnvelope(envelope: Uint8Array, context: EnvelopeContext, sender: Uint8Array, frameLength: number): void {
  const expectedLength = envelopeBytes(frameLength);
  if (envelope.length !== expectedLength) {
    throw new FederationError('shape-mismatch', `The envelope has ${envelope.length} bytes; this round's has ${expectedLength}.`, { field: 'bytes', expected: `${expectedLength}`, got: `${envelope.length}` });
  }
  const view = new DataView(envelope.buffer, envelope.byteOffset, envelope.byteLength);
  if (!equalBytes(envelope.subarray(0, 4), magic) || envelope[4] !== 1 || envelope[6] !== 0 || envelope[7] !== 0) throw wrongContext('magic or version');
  if (envelope[5] !== stageCodes[context.stage]) throw wrongContext('stage');
  if (view.getUint32(8, true) !== context.round) throw wrongContext('round');
  if (!equalBytes(envelope.subarray(12, 44), sender)) throw wrongContext('sender');
  if (view.getUint32(100, true) !== expectedLength - headerBytes - signatureBytes) throw wrongContext('box length');
  const unsigned = envelope.subarray(0, envelope.length - signatureBytes);
  if (!verifySignature(signedBytes(context, unsigned), envelope.subarray(envelope.length - signatureBytes), sender)) {
    throw new FederationError('signature-invalid', 'The envelope is not signed by its sender for this round.', { field: 'signature' });
  }
}

/** Opens a verified envelope: the frame's bytes. Throws `envelope-invalid` or `context-mismatch`. */
export function openEnvelope(envelope: Uint8Array, context: EnvelopeContext, sender: Uint8Array, boxSecret: Uint8Array): Uint8Array {
  const box = envelope.subarray(headerBytes, envelope.length - signatureBytes);
  const opened = openBox(box, envelope.subarray(76, 100), envelope.subarray(44, 76), boxSecret);
  if (opened === undefined) throw new FederationError('envelope-invalid', 'The sealed box does not open with this round\'s key.', { field: 'box', next: 'Seal it to the boxKey of the announcement.' });
  if (!equalBytes(opened.subarray(0, contextBytes), encodeContext(context, sender))) throw wrongContext('inner context');
  return opened.subarray(contextBytes);
}
