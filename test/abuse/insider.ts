/** A participant that knows the protocol and the join token, over raw sockets: honest when asked to be, else with forged, stale and replayed messages. */
import { digestOf } from '../../shared/crypto/digest.ts';
import { generateBoxKeys } from '../../shared/crypto/sealed-box.ts';
import { generateIdentity, signMessage, type IdentityKeys } from '../../shared/crypto/signature.ts';
import { systemRandom } from '../../shared/node/system-random.ts';
import { sealEnvelope, type EnvelopeContext } from '../../shared/protocol/envelope.ts';
import { joinTranscript, tokenProof, type SessionNonces } from '../../shared/protocol/identity.ts';
import { crc32, encodeGrid, encodePredictions } from '../../shared/protocol/matrix-frame.ts';
import { RoundDocumentSchema, TaskDocumentSchema, type RoundDocument } from '../../shared/protocol/messages.ts';
import { openDocument, type SignedDocument } from '../../shared/protocol/signed-document.ts';
import { fromBase64, toBase64, uint32Bytes } from '../../shared/types/bytes.ts';
import type { Digest, RoundId } from '../../shared/types/ids.ts';
import { RawSocket, type Answer, type Received, type Target } from './raw-peer.ts';
import { checkOnce, randomBytes, type Abuse } from './garbage.ts';
import type { Tally } from './tally.ts';

export interface JoinMessage {
  readonly signature: string;
  readonly tokenProof?: string;
}

/** A connection that has said hello. */
export class Insider {
  readonly identity: IdentityKeys;
  readonly socket: RawSocket;
  readonly nonces: SessionNonces;
  readonly taskDigest: Digest;
  sessionToken = '';

  private constructor(identity: IdentityKeys, socket: RawSocket, nonces: SessionNonces, taskDigest: Digest) {
    this.identity = identity;
    this.socket = socket;
    this.nonces = nonces;
    this.taskDigest = taskDigest;
  }

  static async hello(target: Target, received: Received, identity = generateIdentity(systemRandom)): Promise<Insider> {
    const socket = await RawSocket.open(target, received, '127.0.0.20');
    const clientNonce = systemRandom.bytes(32);
    const ack = await socket.request('hello', { protocols: ['fdp/1'], clientKey: toBase64(identity.publicKey), clientNonce: toBase64(clientNonce) });
    if (ack?.ok !== true) throw new Error(`hello was refused: ${JSON.stringify(ack)}`);
    const { coordinatorKey, serverNonce, task } = ack as unknown as { coordinatorKey: string; serverNonce: string; task: SignedDocument };
    const key = fromBase64(coordinatorKey)!;
    const nonces = { coordinatorKey: key, clientKey: identity.publicKey, clientNonce, serverNonce: fromBase64(serverNonce)! };
    return new Insider(identity, socket, nonces, openDocument('task', task, key, TaskDocumentSchema).hash);
  }

  joinMessage(token: string): JoinMessage {
    return { signature: toBase64(signMessage(joinTranscript(this.nonces, this.taskDigest), this.identity)), tokenProof: toBase64(tokenProof(token, this.nonces)) };
  }

  async join(token: string): Promise<this> {
    const ack = await this.socket.request('join', { ...this.joinMessage(token) });
    if (ack?.ok !== true) throw new Error(`join was refused: ${JSON.stringify(ack)}`);
    this.sessionToken = String(ack['sessionToken']);
    return this;
  }

  async nextRound(): Promise<OpenRound> {
    const signed = (await this.socket.nextEvent('round')) as SignedDocument;
    const { value: document, hash } = openDocument('round', signed, this.nonces.coordinatorKey, RoundDocumentSchema);
    return { document, context: { taskDigest: document.taskDigest, round: document.round, stage: 'contribution', transcript: hash } };
  }

  honestEnvelope({ document, context }: OpenRound): Uint8Array {
    return sealEnvelope(honestFrame(document), context, document.boxKey, this.identity, systemRandom);
  }

  /** The last acknowledgement of an upload: of its end, or of what was refused before. */
  async upload(round: number, envelope: Uint8Array): Promise<Answer | undefined> {
    const begun = await this.socket.request('upload-begin', { round, stage: 'contribution', bytes: envelope.length, digest: digestOf(envelope) });
    if (begun?.ok !== true || begun['accepted'] === true) return begun;
    const { upload, offset } = begun as unknown as { upload: string; offset: number };
    if (offset < envelope.length) {
      const sent = await this.socket.request('upload-chunk', { upload, offset, data: envelope.subarray(offset) });
      if (sent?.ok !== true) return sent;
    }
    return this.socket.request('upload-end', { upload });
  }
}

export interface OpenRound {
  readonly document: RoundDocument;
  readonly context: EnvelopeContext;
}

function honestFrame({ release: { rows, columns } }: RoundDocument): Uint8Array {
  return encodePredictions({ rows, columns, values: new Float32Array(rows * columns).fill(1 / columns) }, 'probabilities', 'float32');
}

/** The frame with one value changed to these four bytes, and a checksum that fits. */
function withValue(frame: Uint8Array, value: number): Uint8Array {
  const changed = Uint8Array.from(frame);
  new DataView(changed.buffer).setFloat32(24, value, true); // the first value of a matrix
  changed.set(uint32Bytes(crc32(changed.subarray(0, -4))), changed.length - 4);
  return changed;
}

/** Envelopes of the announced length that are all wrong, each in its own way. `stored`: sealed envelopes of other clients, as the run folder holds them. */
function forgedEnvelopes(insider: Insider, { document, context }: OpenRound, { random }: Abuse, stored: readonly Uint8Array[]): Uint8Array[] {
  const { identity } = insider;
  const other = generateIdentity(systemRandom);
  const frame = honestFrame(document);
  const { rows, columns } = document.release;
  const seal = (bytes: Uint8Array, changes: Partial<EnvelopeContext> = {}, boxKey = document.boxKey, sender = identity) => sealEnvelope(bytes, { ...context, ...changes }, boxKey, sender, systemRandom);
  const honest = seal(frame);
  const tampered = (at: number) => {
    const copy = Uint8Array.from(honest);
    copy[at]! ^= 1 + random.integer(255);
    return copy;
  };
  const wrongDigest: Digest = `sha256:${'00'.repeat(32)}` as Digest;
  return [
    seal(frame, {}, document.boxKey, other),
    seal(frame, {}, generateBoxKeys(systemRandom).publicKey),
    seal(frame, { round: (context.round + 1) as RoundId }),
    seal(frame, { transcript: wrongDigest }),
    seal(frame, { taskDigest: wrongDigest }),
    ...[NaN, Infinity, -Infinity, 1e30, -1, 2].map((value) => seal(withValue(frame, value))),
    seal(frame.map((byte, i) => (i === 30 ? byte ^ 1 : byte))), // a wrong checksum
    seal(randomBytes(random, frame.length)),
    seal(new Uint8Array(frame.length)),
    seal(encodeGrid({ rows, columns, values: new Int32Array(rows * columns).fill(0x7fff_ffff) })),
    seal(encodePredictions({ rows: columns, columns: rows, values: new Float32Array(rows * columns).fill(1 / rows) }, 'probabilities', 'float32')),
    seal(encodePredictions({ rows, columns, values: new Float32Array(rows * columns).fill(1 / columns) }, 'logits', 'float32')),
    ...[0, 4, 5, 6, 8, 12, 44, 76, 100, 110, honest.length - 64, honest.length - 1].map(tampered),
    randomBytes(random, honest.length),
    ...stored,
  ];
}

/** Uploads that must all be refused, by a client of the cohort. */
export async function forgedUploads(insider: Insider, round: OpenRound, abuse: Abuse, stored: readonly Uint8Array[]): Promise<void> {
  const { tally, random } = abuse;
  const number = round.document.round;
  const refused = (answer: Answer | undefined, what: string) => {
    tally.count('forged uploads');
    tally.acknowledged(answer, what);
    if (answer?.ok === true) tally.fault(`accepted: ${what}`);
  };
  for (const [i, envelope] of forgedEnvelopes(insider, round, abuse, stored).entries()) refused(await insider.upload(number, envelope), `forged envelope ${i}`);

  const envelope = insider.honestEnvelope(round);
  const begin = { round: number, stage: 'contribution', bytes: envelope.length, digest: digestOf(envelope) };
  for (const changes of [{ round: number + 1 }, { round: 0xffff_ffff }, { round: 0 }, { stage: 'unmask' }, { bytes: envelope.length + 1 }, { bytes: 64 * 1024 * 1024 }, { bytes: 2 ** 53 }, { bytes: 0 }, { digest: 'sha256:' }]) {
    refused(await insider.socket.request('upload-begin', { ...begin, ...changes }), `upload-begin with ${JSON.stringify(changes)}`);
  }
  // An upload that is begun well, and then goes wrong.
  const wrong: Uint8Array = randomBytes(random, envelope.length);
  const { upload } = (await insider.socket.request('upload-begin', begin)) as unknown as { upload: string };
  for (const [offset, data] of [[1, wrong], [0, new Uint8Array(envelope.length + 1)], [0, new Uint8Array(256 * 1024 + 1)], [0, new Uint8Array(0)], [0xffff_ffff, wrong], [-1, wrong], [0, 'text']] as const) {
    refused(await insider.socket.request('upload-chunk', { upload, offset, data }), `chunk at ${offset}`);
  }
  refused(await insider.socket.request('upload-end', { upload }), 'an end before all bytes');
  await insider.socket.request('upload-chunk', { upload, offset: 0, data: wrong });
  refused(await insider.socket.request('upload-end', { upload }), 'other bytes than announced');
  refused(await insider.socket.request('upload-end', { upload }), 'an upload that was dropped');
  checkOnce(tally, insider.socket, { all: true });
}

/** Joins with what belongs to another connection, key or token. */
export async function forgedJoins({ target, received, tally }: Abuse, token: string, count: number): Promise<void> {
  const seen = await Insider.hello(target, received);
  const replayed = seen.joinMessage(token);
  for (let i = 0; i < count; i++) {
    const fresh = await Insider.hello(target, received, i % 2 === 0 ? seen.identity : undefined);
    const right = fresh.joinMessage(token);
    const message: JoinMessage = [
      replayed,
      { ...right, tokenProof: replayed.tokenProof! },
      { ...right, signature: replayed.signature },
      { signature: right.signature },
      fresh.joinMessage('a-token-that-was-guessed'),
      { ...right, signature: toBase64(new Uint8Array(64)) },
    ][i % 6]!;
    const answer = await fresh.socket.request('join', { ...message });
    tally.count('forged joins');
    tally.acknowledged(answer, 'a forged join');
    if (answer?.ok === true) tally.fault(`a forged join was accepted: ${i % 6}`);
    tally.acknowledged(await fresh.socket.request('join', { ...right }), 'a second attempt'); // one attempt a connection
    fresh.socket.peer.destroy();
  }
  seen.socket.peer.destroy();
}

/** The identity joins twice: the earlier connection is told, and ends. */
export async function replaceSession({ target, received, tally }: Abuse, token: string): Promise<void> {
  const first = await (await Insider.hello(target, received)).join(token);
  const second = await (await Insider.hello(target, received, first.identity)).join(token);
  tally.count('replaced sessions');
  const { problem } = (await first.socket.nextEvent('problem')) as { problem: { code: string } };
  tally.outcome(problem.code);
  await first.socket.peer.closed;
  await leave(second, tally);
}

export async function leave(insider: Insider, tally: Tally): Promise<void> {
  const answer = await insider.socket.request('leave', {});
  if (answer?.ok !== true) tally.fault(`leave was answered with ${JSON.stringify(answer)}`);
  insider.socket.peer.destroy();
  await insider.socket.peer.closed;
}
