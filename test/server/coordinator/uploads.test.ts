import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../shared/crypto/digest.ts';
import { generateBoxKeys } from '../../../shared/crypto/sealed-box.ts';
import type { ProblemCode } from '../../../shared/errors.ts';
import { largestInteger } from '../../../shared/privacy/release.ts';
import { crc32, encodeFrame, encodeGrid, encodePredictions } from '../../../shared/protocol/matrix-frame.ts';
import { uint32Bytes } from '../../../shared/types/bytes.ts';
import type { Digest, RoundId } from '../../../shared/types/ids.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';
import { exactly, isAmong, Uploads } from '../../../server/coordinator/uploads.ts';
import { expectedConsensus, frameOf, gridOf, largestDifference, predictionsOf } from './predictions.ts';
import { beginMessage, connectDirectly, problemOf, ProtocolClient, refusal, TestFederation, type FederationOptions, type OpenRound } from './protocol-client.ts';

const tolerances: Partial<Record<string, number>> = { float32: 1e-6, float16: 1e-3, uint8: 0.01 };

/** A federation in its second round, with clients 1 to 3 in the cohort and client 4 outside of it. */
async function inSecondRound(options: FederationOptions, work: (parts: { federation: TestFederation; members: ProtocolClient[]; stranger: ProtocolClient; round: OpenRound; earlier: Uint8Array[] }) => Promise<void>): Promise<void> {
  const federation = new TestFederation({ ...options, schedule: { rounds: 2, ...options.schedule } });
  await federation.run(async () => {
    await federation.start();
    const members = [1, 2, 3].map((number) => new ProtocolClient(federation, number));
    for (const member of members) await member.arrive();
    const earlier: Uint8Array[] = [];
    for (const [i, member] of members.entries()) {
      const first = await member.nextRound();
      const envelope = member.seal(frameOf(i + 1, first.document), first);
      earlier.push(envelope);
      await member.upload(1, envelope);
    }
    const [round] = await Promise.all(members.map((member) => member.nextRound()));
    const stranger = new ProtocolClient(federation, 4);
    await stranger.arrive();
    await work({ federation, members, stranger, round: round!, earlier });

    // Whatever happened: the round ends well, with everybody's contribution counted once.
    for (const [i, member] of members.entries()) {
      await member.arrive();
      await member.upload(2, member.seal(frameOf(i + 1, round!.document), round!)).catch((error: unknown) => expect(error).toMatchObject({ code: 'contribution-conflict' }));
    }
    const finished = await members[0]!.nextFinished();
    expect(finished).toMatchObject({ reason: 'rounds-done', rounds: 2 });
    const { matrix } = await members[0]!.labels('/finished/soft-labels', finished.labels!);
    expect(largestDifference(matrix.values, expectedConsensus([1, 2, 3], round!.document, federation.config.aggregation))).toBeLessThan(tolerances[federation.config.aggregation.encoding]!);
  });
}

/** A frame whose bytes were changed, with the checksum that belongs to them. */
function withChecksum(frame: Uint8Array, change: (bytes: Uint8Array) => void): Uint8Array {
  const bytes = frame.slice();
  change(bytes);
  bytes.set(uint32Bytes(crc32(bytes.subarray(0, -4))), bytes.length - 4);
  return bytes;
}

const setFloat = (index: number, value: number) => (bytes: Uint8Array) => new DataView(bytes.buffer).setFloat32(24 + 4 * index, value, true);
const setInteger = (index: number, value: number) => (bytes: Uint8Array) => new DataView(bytes.buffer).setInt32(24 + 4 * index, value, true);

describe('an upload', () => {
  it('is refused for rounds that are over, were not announced, or asked somebody else', () =>
    inSecondRound({}, async ({ members: [one], stranger, round, earlier }) => {
      const envelope = one!.seal(frameOf(1, round.document), round);
      const begin = (client: ProtocolClient, number: number, bytes = envelope) => problemOf(client.request('upload-begin', beginMessage(number, bytes)));
      expect(await begin(one!, 1, earlier[0])).toMatchObject({ code: 'round-closed', nextRound: 2 });
      expect(await begin(one!, 1)).toMatchObject({ code: 'round-closed', nextRound: 2 });
      expect(await begin(one!, 3)).toMatchObject({ code: 'round-unknown', nextRound: 2 });
      expect(await begin(one!, 0xffff_ffff)).toMatchObject({ code: 'round-unknown', nextRound: 2 });
      expect(await begin(stranger, 2)).toMatchObject({ code: 'not-in-cohort', nextRound: 3 });
    }));

  it('has the size that follows from the announcement, checked before anything is allocated', () =>
    inSecondRound({}, async ({ members: [one], round }) => {
      const envelope = one!.seal(frameOf(1, round.document), round);
      for (const bytes of [1, envelope.length - 1, envelope.length + 1, 64 * 1024 * 1024]) {
        expect(await refusal(one!.request('upload-begin', { ...beginMessage(2, envelope), bytes }))).toBe('shape-mismatch');
      }
      expect(await refusal(one!.request('upload-begin', { ...beginMessage(2, envelope), bytes: 64 * 1024 * 1024 + 1 }))).toBe('message-malformed');
      expect(await refusal(one!.request('upload-begin', { ...beginMessage(2, envelope), stage: 'mask' }))).toBe('message-malformed');
      expect(await refusal(one!.request('upload-begin', { ...beginMessage(2, envelope), stage: 'unmask' }))).toBe('stage-mismatch');
    }));

  it('takes chunks in order only, and says where to go on', () =>
    inSecondRound({}, async ({ members: [one, two], round }) => {
      const envelope = one!.seal(frameOf(1, round.document), round);
      const { upload } = (await one!.request('upload-begin', beginMessage(2, envelope))) as { upload: string };
      const chunk = (offset: number, to: number, client = one!) => client.request('upload-chunk', { upload, offset, data: envelope.subarray(offset, to) });
      expect(await chunk(0, 100)).toMatchObject({ offset: 100 });
      for (const offset of [0, 99, 101, 200]) expect(await problemOf(chunk(offset, offset + 50))).toMatchObject({ code: 'upload-offset', expected: '100' });
      expect(await problemOf(one!.request('upload-chunk', { upload, offset: 100, data: new Uint8Array(envelope.length) }))).toMatchObject({ code: 'upload-offset' });
      expect(await refusal(one!.request('upload-end', { upload }))).toBe('upload-offset');
      expect(await refusal(one!.request('upload-chunk', { upload, offset: 100, data: new Uint8Array(256 * 1024 + 1) }))).toBe('message-malformed');
      expect(await refusal(chunk(100, 200, two))).toBe('upload-unknown'); // somebody else's
      expect(await refusal(two!.request('upload-end', { upload }))).toBe('upload-unknown');
      expect(await chunk(100, 200)).toMatchObject({ offset: 200 });
    }));

  it('goes on at its offset after a disconnection', () =>
    inSecondRound({}, async ({ members: [one], round }) => {
      const envelope = one!.seal(frameOf(1, round.document), round);
      const { upload } = (await one!.request('upload-begin', beginMessage(2, envelope))) as { upload: string };
      await one!.request('upload-chunk', { upload, offset: 0, data: envelope.subarray(0, 150) });
      await one!.close();
      await one!.arrive();
      expect(await one!.request('upload-begin', beginMessage(2, envelope))).toMatchObject({ upload, offset: 150 });
      expect(await one!.upload(2, envelope)).toMatchObject({ accepted: true, duplicate: false });
    }));

  it('with another digest than its bytes is refused and begins again', () =>
    inSecondRound({}, async ({ members: [one], round }) => {
      const envelope = one!.seal(frameOf(1, round.document), round);
      const message = { ...beginMessage(2, envelope), digest: digestOf(envelope, Uint8Array.of(1)) };
      const { upload } = (await one!.request('upload-begin', message)) as { upload: string };
      await one!.request('upload-chunk', { upload, offset: 0, data: envelope });
      expect(await refusal(one!.request('upload-end', { upload }))).toBe('upload-digest');
      expect(await refusal(one!.request('upload-end', { upload }))).toBe('upload-unknown');
      expect(await one!.request('upload-begin', message)).toMatchObject({ offset: 0 });
    }));

  it('is counted once, however often it is sent; other bytes are refused afterwards', () =>
    inSecondRound({}, async ({ federation, members: [one, two], round }) => {
      const envelope = one!.seal(frameOf(1, round.document), round);
      expect(await one!.upload(2, envelope)).toMatchObject({ accepted: true, duplicate: false });
      expect(await one!.upload(2, envelope)).toMatchObject({ accepted: true, duplicate: true });
      expect(await refusal(one!.upload(2, one!.seal(frameOf(1, round.document), round)))).toBe('contribution-conflict');
      // Two ends of one upload at the same time.
      connectDirectly(two!);
      await (await two!.hello()).join();
      const other = two!.seal(frameOf(2, round.document), round);
      const { upload } = (await two!.request('upload-begin', beginMessage(2, other))) as { upload: string };
      await two!.request('upload-chunk', { upload, offset: 0, data: other });
      const ends = await Promise.all([two!.request('upload-end', { upload }), two!.request('upload-end', { upload })]);
      expect(ends.map((ack) => (ack as { duplicate: boolean }).duplicate)).toEqual([false, true]);
      expect(federation.events.filter(({ event, round: of }) => event === 'contribution' && of === 2)).toHaveLength(2);
    }));

  it('of two different envelopes at once keeps one', () =>
    inSecondRound({}, async ({ members: [one], round }) => {
      const envelopes = [one!.seal(frameOf(1, round.document), round), one!.seal(frameOf(1, round.document), round)];
      const { upload } = (await one!.request('upload-begin', beginMessage(2, envelopes[0]!))) as { upload: string };
      await one!.request('upload-chunk', { upload, offset: 0, data: envelopes[0] });
      const end = one!.request('upload-end', { upload });
      const second = refusal(one!.upload(2, envelopes[1]!));
      expect(await end).toMatchObject({ duplicate: false });
      expect(['contribution-conflict', 'capacity-exceeded']).toContain(await second);
    }));

  it('is answered although its connection was lost meanwhile', () =>
    inSecondRound({}, async ({ federation, members: [one], round }) => {
      const envelope = one!.seal(frameOf(1, round.document), round);
      const { coordinator } = federation;
      const connection = connectDirectly(one!);
      await (await one!.hello()).join();
      const { upload } = (await one!.request('upload-begin', beginMessage(2, envelope))) as { upload: string };
      await one!.request('upload-chunk', { upload, offset: 0, data: envelope });
      const end = coordinator.receive(connection, 'upload-end', { upload });
      coordinator.disconnected(connection);
      expect(await end).toEqual({ ok: true, accepted: true, duplicate: false });
      expect(await coordinator.receive(connection, 'upload-begin', beginMessage(1, envelope))).toMatchObject({ ok: false, problem: { code: 'not-authenticated' } });
    }));
});

type Forgery = (parts: { one: ProtocolClient; two: ProtocolClient; round: OpenRound; earlier: Uint8Array[] }) => Uint8Array;

describe('an envelope', () => {
  const flip = (at: (length: number) => number): Forgery => ({ one, round }) => {
    const envelope = one.seal(frameOf(1, round.document), round);
    envelope[at(envelope.length)]! ^= 1;
    return envelope;
  };
  const otherDigest = `sha256:${'0'.repeat(64)}` as Digest;
  const forgeries: readonly (readonly [string, ProblemCode, Forgery])[] = [
    ['with a changed byte in its box', 'signature-invalid', flip((length) => length - 100)],
    ['with a changed signature', 'signature-invalid', flip((length) => length - 40)],
    ['with a changed ephemeral key', 'signature-invalid', flip(() => 50)],
    ['with a changed nonce', 'signature-invalid', flip(() => 80)],
    ['with a wrong magic', 'context-mismatch', flip(() => 0)],
    ['with a reserved byte', 'context-mismatch', flip(() => 7)],
    ['with another box length', 'context-mismatch', flip(() => 100)],
    ['of the round before', 'context-mismatch', ({ earlier }) => earlier[0]!],
    ['sealed and signed by another client', 'context-mismatch', ({ two, round }) => two.seal(frameOf(1, round.document), round)],
    ['that names another sender', 'context-mismatch', ({ one, two, round }) => {
      const envelope = one.seal(frameOf(1, round.document), round);
      envelope.set(two.identity.publicKey, 12);
      return envelope;
    }],
    ['of another client under the own name', 'signature-invalid', ({ one, two, round }) => {
      const envelope = two.seal(frameOf(1, round.document), round);
      envelope.set(one.identity.publicKey, 12);
      return envelope;
    }],
    ['bound to another transcript', 'signature-invalid', ({ one, round }) => one.seal(frameOf(1, round.document), round, { context: { transcript: otherDigest } })],
    ['bound to another task inside the box', 'context-mismatch', ({ one, round }) => one.seal(frameOf(1, round.document), round, { context: { taskDigest: otherDigest } })],
    ['sealed to another key', 'envelope-invalid', ({ one, round }) => one.seal(frameOf(1, round.document), round, { boxKey: generateBoxKeys(new InsecureSeededRandom(5)).publicKey })],
    ['with a wrong checksum inside', 'frame-checksum', ({ one, round }) => {
      const frame = frameOf(1, round.document);
      frame[30]! ^= 1;
      return one.seal(frame, round);
    }],
    ['with NaN inside', 'value-out-of-range', ({ one, round }) => one.seal(withChecksum(frameOf(1, round.document), setFloat(3, NaN)), round)],
    ['with infinity inside', 'value-out-of-range', ({ one, round }) => one.seal(withChecksum(frameOf(1, round.document), setFloat(3, -Infinity)), round)],
    ['with a probability above 1', 'value-out-of-range', ({ one, round }) => one.seal(withChecksum(frameOf(1, round.document), setFloat(3, 1.01)), round)],
    ['with a negative probability', 'value-out-of-range', ({ one, round }) => one.seal(withChecksum(frameOf(1, round.document), setFloat(3, -0.01)), round)],
    ['with a row that does not sum to 1', 'value-out-of-range', ({ one, round }) => one.seal(withChecksum(frameOf(1, round.document), (bytes) => [0, 1, 2].forEach((i) => setFloat(i, 0.9)(bytes))), round)],
    ['with the transposed shape', 'shape-mismatch', ({ one, round }) => one.seal(withChecksum(frameOf(1, round.document), (bytes) => bytes.set([3, 0, 0, 0, 5], 16)), round)],
    ['with logits instead of probabilities', 'shape-mismatch', ({ one, round }) => one.seal(encodePredictions(predictionsOf(1, round.document), 'logits', 'float32'), round)],
    ['with integers instead of probabilities', 'shape-mismatch', ({ one, round }) => one.seal(encodeGrid({ rows: 5, columns: 3, values: new Int32Array(15) }), round)],
    ['with half-floats of twice the classes', 'shape-mismatch', ({ one, round }) => one.seal(encodeFrame({ content: 'probabilities', shape: [5, 6], values: new Float32Array(30).fill(1 / 6), dtype: 'float16' }), round)],
    ['with a header that promises more than there is', 'frame-malformed', ({ one, round }) => one.seal(withChecksum(frameOf(1, round.document), (bytes) => bytes.set([255, 255, 255, 255], 16)), round)],
  ];

  it('that is forged, damaged, replayed or holds something else is refused, and the round completes', () =>
    inSecondRound({}, async ({ members: [one, two], round, earlier }) => {
      for (const [what, code, forge] of forgeries) {
        const envelope = forge({ one: one!, two: two!, round, earlier });
        expect([what, await refusal(one!.upload(2, envelope))]).toEqual([what, code]);
      }
    }));

  it('that was refused is forgotten: its end cannot be repeated', () =>
    inSecondRound({}, async ({ members: [one], round }) => {
      const envelope = one!.seal(withChecksum(frameOf(1, round.document), setFloat(3, NaN)), round);
      const { upload } = (await one!.request('upload-begin', beginMessage(2, envelope))) as { upload: string };
      await one!.request('upload-chunk', { upload, offset: 0, data: envelope });
      expect(await refusal(one!.request('upload-end', { upload }))).toBe('value-out-of-range');
      expect(await refusal(one!.request('upload-end', { upload }))).toBe('upload-unknown');
    }));

  it('of another dtype than announced is refused', () =>
    inSecondRound({ aggregation: { encoding: 'float16' }, schedule: { transferBatch: 8 } }, async ({ members: [one], round }) => {
      // As long as 8 x 3 half-floats: another shape cannot hide behind another dtype.
      const frame = encodeFrame({ content: 'probabilities', shape: [16, 3], values: new Float32Array(48).fill(1 / 3), dtype: 'uint8' });
      expect(await refusal(one!.upload(2, one!.seal(frame, round)))).toBe('shape-mismatch');
    }));

  it.each(['gaussian', 'laplace'] as const)('with an integer that no noise explains is refused (%s)', (mechanism) =>
    inSecondRound({ privacy: { mechanism, epsilon: mechanism === 'gaussian' ? 40 : 400 } }, async ({ members: [one], round }) => {
      const limit = Math.floor(largestInteger(round.document.release));
      expect(limit).toBeLessThan(2 ** 31 - 1);
      const grid = encodeGrid({ rows: 5, columns: 3, values: gridOf(1, round.document) });
      for (const value of [limit + 1, -limit - 1, 2 ** 31 - 1, -(2 ** 31)]) {
        expect(await refusal(one!.upload(2, one!.seal(withChecksum(grid, setInteger(7, value)), round)))).toBe('value-out-of-range');
      }
      expect(await refusal(one!.upload(2, one!.seal(encodePredictions(predictionsOf(1, round.document), 'probabilities', 'float32'), round)))).toBe('shape-mismatch');
    }),
  );
});

describe('memory for uploads', () => {
  const client = (n: number) => `client-${n}` as never;
  const request = (n: number) => ({ round: 1 as RoundId, stage: 'contribution' as const, bytes: 100, digest: `sha256:${String(n).padStart(64, '0')}` as Digest });

  it('holds one upload per client and no more than its bound', () => {
    const uploads = new Uploads(new InsecureSeededRandom(1), 250);
    for (let n = 0; n < 1000; n++) uploads.begin(client(1), request(n), exactly(100));
    uploads.begin(client(2), request(0), exactly(100));
    expect(() => uploads.begin(client(3), request(0), exactly(100))).toThrowError(expect.objectContaining({ code: 'capacity-exceeded' }));
    uploads.dropRoundsBefore(2 as RoundId);
    uploads.begin(client(3), request(0), exactly(100));
    uploads.begin(client(4), request(0), exactly(100));
  });

  it('is only for lengths that the stage may have', () => {
    const lengths = { least: 100, most: 180, step: 40 };
    expect([60, 99, 100, 120, 140, 180, 181, 220].filter((bytes) => isAmong(lengths, bytes))).toEqual([100, 140, 180]);
    const uploads = new Uploads(new InsecureSeededRandom(1), 1000);
    expect(() => uploads.begin(client(1), { ...request(0), stage: 'unmask', bytes: 120 }, lengths)).toThrowError(expect.objectContaining({ code: 'shape-mismatch', expected: '100 to 180 in steps of 40', got: '120' }));
    uploads.begin(client(1), { ...request(0), stage: 'unmask', bytes: 140 }, lengths);
  });

  it('stays accounted for while the bytes are being stored', () => {
    const uploads = new Uploads(new InsecureSeededRandom(1), 150);
    const data = new Uint8Array(100);
    const message = { ...request(0), digest: digestOf(data) };
    const { upload } = uploads.begin(client(1), message, exactly(100));
    uploads.chunk(client(1), upload, 0, data);
    uploads.complete(client(1), upload);
    expect(() => uploads.begin(client(1), request(1), exactly(100))).toThrowError(expect.objectContaining({ code: 'capacity-exceeded' }));
    expect(uploads.begin(client(1), message, exactly(100))).toEqual({ upload, offset: 100 });
    uploads.end(client(1), upload, true);
    uploads.begin(client(1), request(1), exactly(100));
    uploads.end(client(1), upload, false); // an old end does not touch the new upload
    expect(() => uploads.begin(client(2), request(1), exactly(100))).toThrowError(expect.objectContaining({ code: 'capacity-exceeded' }));
  });
});
