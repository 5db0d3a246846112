import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { digestOf } from '../../../shared/crypto/digest.ts';
import { maxChunkBytes, maxEnvelopeBytes, maxMessageBytes, maxDocumentLength, maxQueryRows, maxStageBytes } from '../../../shared/protocol/limits.ts';
import { AckSchema, clientAckSchemas, clientEventSchemas, coordinatorEventSchemas, FinishedDocumentSchema, RoundDocumentSchema, TaskDocumentSchema } from '../../../shared/protocol/messages.ts';
import { toBase64, utf8 } from '../../../shared/types/bytes.ts';
import { client, finishedDocument, roundBox, roundDocument, secureRound, secureRoundDocument, taskDocument } from './fixtures.ts';

const key = toBase64(client.publicKey);
const signature = toBase64(new Uint8Array(64).fill(1));
const digest = digestOf(utf8('x'));
const signed = { document: '{}', signature };
const problem = { type: 'urn:fedstill:problem:declined', code: 'declined', title: 'No.', status: 403 };
const text32 = toBase64(new Uint8Array(31)); // 44 characters, but of 31 bytes

type Wrong = Readonly<Record<string, readonly unknown[]>>;
interface Case {
  readonly schema: z.ZodType;
  readonly valid: Readonly<Record<string, unknown>>;
  /** Values that a member must not have. Every required member is also tried absent, as null and as another type. */
  readonly wrong?: Wrong;
  readonly optional?: readonly string[];
  readonly nullable?: readonly string[];
}

const badRounds = [0, -1, 1.5, 2 ** 32, '1', NaN, Infinity];
const badDigests = ['', 'sha256:', digest.toUpperCase(), `${digest}0`, digest.replace('sha256', 'sha512'), `\n${digest}`, `${digest}\n`];

const events: Record<string, Case> = {
  hello: {
    schema: clientEventSchemas.hello,
    valid: { protocols: ['fdp/1', 'fdp/2'], clientKey: key, clientNonce: key },
    wrong: { protocols: [[], 'fdp/1', [1], new Array(17).fill('fdp/1'), ['x'.repeat(33)]], clientKey: ['', text32, key.slice(0, -1), `${key}=`, signature, '!'.repeat(44)], clientNonce: [text32, client.publicKey] },
  },
  join: { schema: clientEventSchemas.join, valid: { signature, tokenProof: key }, optional: ['tokenProof'], wrong: { signature: ['', key, signature.slice(1)], tokenProof: ['', text32, signature] } },
  'upload-begin': {
    schema: clientEventSchemas['upload-begin'],
    valid: { round: 1, stage: 'contribution', bytes: 1000, digest },
    wrong: { round: badRounds, stage: ['', 'Unmask', 'mask', 1], bytes: [0, -1, 1.5, maxEnvelopeBytes + 1, '1'], digest: badDigests },
  },
  'upload-chunk': {
    schema: clientEventSchemas['upload-chunk'],
    valid: { upload: 'u1', offset: 0, data: Buffer.from([1, 2, 3]) },
    wrong: { upload: ['x'.repeat(65)], offset: [-1, 0.5, 2 ** 32], data: [new Uint8Array(), new Uint8Array(maxChunkBytes + 1), [1, 2], 'AQID', { length: 3 }, { type: 'Buffer', data: [1] }, new Float32Array(3)] },
  },
  'upload-end': { schema: clientEventSchemas['upload-end'], valid: { upload: 'u1' }, wrong: { upload: ['x'.repeat(65)] } },
  decline: { schema: clientEventSchemas.decline, valid: { round: 3, code: 'policy-refused' }, wrong: { round: badRounds, code: ['x'.repeat(65)] } },
  leave: { schema: clientEventSchemas.leave, valid: {} },
  round: { schema: coordinatorEventSchemas.round, valid: signed, wrong: { signature: ['', key] } },
  stage: {
    schema: coordinatorEventSchemas.stage,
    valid: { round: 1, stage: 'shareKeys', data: Buffer.from([1, 2, 3]) },
    wrong: { round: badRounds, stage: ['', 'contribution', 1], data: [new Uint8Array(), new Uint8Array(maxStageBytes + 1), [1, 2], 'AQID', { type: 'Buffer', data: [1] }, new Float32Array(3)] },
  },
  'round-closed': {
    schema: coordinatorEventSchemas['round-closed'],
    valid: { round: 2, outcome: 'aborted', code: 'quorum-missed', contributions: 0, nextRound: 3 },
    nullable: ['code'],
    wrong: { round: badRounds, outcome: ['', 'done'], contributions: [-1, 0.5], nextRound: badRounds },
  },
  finished: { schema: coordinatorEventSchemas.finished, valid: signed, wrong: { signature: ['', key] } },
  problem: { schema: coordinatorEventSchemas.problem, valid: { problem }, wrong: { problem: [{}, 'declined', { ...problem, status: 'x' }] } },
};

const loose: Record<string, Case> = {
  'ack of hello': { schema: clientAckSchemas.hello, valid: { protocol: 'fdp/1', coordinatorKey: key, serverNonce: key, task: signed, signature }, wrong: { coordinatorKey: [text32], serverNonce: [text32, signature], task: ['{}'], signature: [key] } },
  'ack of join': {
    schema: clientAckSchemas.join,
    valid: { clientId: 'a2'.repeat(13), sessionToken: 's', nextRound: 1, round: null, finished: null },
    nullable: ['round', 'finished'],
    wrong: { clientId: ['', 'A2'.repeat(13), 'a1'.repeat(13)], sessionToken: ['', 'x'.repeat(257)], nextRound: badRounds },
  },
  'ack of upload-begin, new': { schema: clientAckSchemas['upload-begin'], valid: { upload: 'u1', offset: 5 }, wrong: { upload: [''], offset: [-1] } },
  'ack of upload-begin, known': { schema: clientAckSchemas['upload-begin'], valid: { accepted: true, duplicate: true }, wrong: { accepted: [false, 1], duplicate: ['yes'] } },
  'ack of upload-chunk': { schema: clientAckSchemas['upload-chunk'], valid: { offset: 262_144 }, wrong: { offset: [-1, 0.5] } },
  'ack of upload-end': { schema: clientAckSchemas['upload-end'], valid: { accepted: true, duplicate: false }, wrong: { accepted: [false] } },
  'task document': {
    schema: TaskDocumentSchema,
    valid: taskDocument(),
    wrong: {
      protocol: ['fdp/2', ''],
      task: ['', 'A', 'a b', '-a', 'x'.repeat(65), '../x'],
      coordinator: ['', 'A2'.repeat(13)],
      numClasses: [1, 1001, 2.5],
      exampleShape: [[], [0], [1.5], [1, 1, 1, 1, 1], [65_537]],
      transferSet: [{ digest, rows: 0 }, { rows: 5 }],
      distillation: [{ temperature: 0, alpha: 0, loss: 'kl' }, { temperature: 1, alpha: 1, loss: 'kl' }, { temperature: 1, alpha: 0, loss: 'other' }],
      admission: ['', 'everyone'],
      seed: [-1, 0.5, 2 ** 32],
    },
  },
  'round document': {
    schema: RoundDocumentSchema,
    valid: roundDocument(),
    nullable: ['previous', 'labels'],
    wrong: {
      protocol: ['fdp/2'],
      taskDigest: badDigests,
      round: badRounds,
      previous: badDigests,
      trustMode: ['secure-aggregation', 'open'], // the first one without its parameters
      stages: [[], ['mask'], new Array(9).fill('contribution')],
      secureAggregation: [secureRound], // with the trust mode sealed
      boxKey: ['', text32],
      query: [{ count: 0, indices: '' }, { count: maxQueryRows + 1, indices: 'AAAA' }, { count: 1 }, { count: 1, indices: 'A'.repeat(5_333_337) }],
      labels: [{ digest, kind: 'features', count: 1, indices: 'AAAAAA==' }, { digest, kind: 'logits', count: 1, indices: 'A'.repeat(5_333_337) }, {}],
      release: [{}, { ...roundDocument().release, mechanism: 'gaussian' }, { ...roundDocument().release, noise: { sigmaGrid: 0 } }, { ...roundDocument().release, halved: true }],
      encoding: ['int32', 'float64'],
      cohort: [{ size: 0, quorum: 1 }, { size: 2, quorum: 0 }, { size: 2 }],
      releases: [0, 1.5],
      deadlineMs: [0, -1, Infinity, '1'],
    },
  },
  'round document of secure aggregation': {
    schema: RoundDocumentSchema,
    valid: secureRoundDocument(),
    nullable: ['previous', 'labels'],
    wrong: {
      trustMode: ['sealed', 'clear'],
      secureAggregation: Object.entries({ minCohort: [1, 2.5], minSurvivors: [0, 1, 2.5], maxCorrupt: [-1, 0.5], stageDeadlineMs: [0, -1, Infinity, NaN] }).flatMap(([member, values]) => [undefined, null, '3', ...values].map((value) => ({ ...secureRound, [member]: value }))),
    },
  },
  'finished document': { schema: FinishedDocumentSchema, valid: finishedDocument(), nullable: ['previous', 'labels'], wrong: { reason: ['', 'bored'], rounds: [-1, 0.5], taskDigest: badDigests } },
};

const all = Object.entries({ ...events, ...loose });

describe('every message', () => {
  it.each(all)('%s: the valid one is accepted', (_name, { schema, valid, optional = [], nullable = [] }) => {
    expect(schema.safeParse(valid).success).toBe(true);
    for (const member of optional) expect(schema.safeParse({ ...valid, [member]: undefined }).success).toBe(true);
    for (const member of nullable) expect(schema.safeParse({ ...valid, [member]: null }).success).toBe(true);
  });

  it.each(all)('%s: no member may be missing, null, or of another type', (_name, { schema, valid, optional = [], nullable = [] }) => {
    for (const [member, value] of Object.entries(valid)) {
      const { [member]: _removed, ...rest } = valid;
      if (!optional.includes(member)) expect.soft(schema.safeParse(rest).success, `${member} absent`).toBe(false);
      if (!nullable.includes(member)) expect.soft(schema.safeParse({ ...valid, [member]: null }).success, `${member} null`).toBe(false);
      for (const other of [true, 7, 'text', {}, [], new Uint8Array(3)].filter((candidate) => typeof candidate !== typeof value)) {
        expect.soft(schema.safeParse({ ...valid, [member]: other }).success, `${member} = ${JSON.stringify(other)}`).toBe(false);
      }
    }
  });

  it.each(all)('%s: values out of range are refused', (_name, { schema, valid, wrong = {} }) => {
    for (const [member, values] of Object.entries(wrong)) {
      for (const value of values) expect.soft(schema.safeParse({ ...valid, [member]: value }).success, `${member} = ${value instanceof Uint8Array ? `${value.length} bytes` : String(JSON.stringify(value)).slice(0, 80)}`).toBe(false);
    }
  });

  it.each(all)('%s: what is not an object is refused', (_name, { schema }) => {
    for (const value of [undefined, null, true, 7, 'text', [], [{}], Symbol('s')]) expect.soft(schema.safeParse(value).success).toBe(false);
  });
});

describe('unknown members', () => {
  it.each(Object.entries(events))('are refused in the event %s', (_name, { schema, valid }) => {
    expect(schema.safeParse({ ...valid, extra: 1 }).success).toBe(false);
    const polluted = Object.defineProperty({ ...valid }, '__proto__', { value: { admin: true }, enumerable: true }); // as JSON.parse makes it
    expect(schema.safeParse(polluted).success).toBe(false);
  });

  it.each(Object.entries(loose))('are ignored in the %s', (_name, { schema, valid }) => {
    const parsed = schema.safeParse({ ...valid, extra: 1 });
    expect(parsed.success).toBe(true);
    expect(parsed.data).not.toHaveProperty('extra');
  });
});

describe('an announcement of what only predictions without noise can be', () => {
  const sharing = { minConfidence: 0.5, maxEntropy: 1 };
  const noised = { ...roundDocument().release, mechanism: 'gaussian', noise: { sigmaGrid: 900 } };
  const trained = { ...roundDocument().release, mechanism: 'dpSgd', noise: { clippingNorm: 1, noiseMultiplier: 1, samplingRate: 0.1, steps: 5 } };
  const logits = { ...roundDocument().release, outputKind: 'logits', rowClippingNorm: 5 };
  it.each<[string, object, boolean]>([
    ['rows to be left out', { sharing }, true],
    ['rows to be left out after private training', { release: trained, sharing }, true],
    ['rows to be left out under noise', { release: noised, sharing }, false],
    ['rows to be left out under masks', { ...secureRoundDocument(), sharing }, false],
    ['few bits', { encoding: 'bits1' }, true],
    ['few bits after private training', { release: trained, encoding: 'bits8' }, true],
    ['few bits of noised integers', { release: noised, encoding: 'bits8' }, false],
    ['few bits of masked integers', { ...secureRoundDocument(), encoding: 'bits8' }, false],
    ['few bits of logits', { release: logits, encoding: 'bits4' }, false],
    ['a bitmap of what is asked for', { query: { count: 1, bitmap: 'AQ==' } }, true],
    ['both forms of what is asked for', { query: { count: 1, bitmap: 'AQ==', indices: 'AAAAAA==' } }, false],
  ])('%s', (_, changes, isValid) => {
    expect(RoundDocumentSchema.safeParse({ ...roundDocument(), ...changes }).success).toBe(isValid);
  });
});

describe('what a schema hands on', () => {
  it('is bytes where the wire has base64', () => {
    expect(clientEventSchemas.hello.parse(events['hello']!.valid).clientKey).toEqual(client.publicKey);
    expect(RoundDocumentSchema.parse(roundDocument()).boxKey).toEqual(roundBox.publicKey);
  });
});

describe('an acknowledgement', () => {
  it('is ok with members, or a problem', () => {
    expect(AckSchema.parse({ ok: true, offset: 5 })).toEqual({ ok: true, offset: 5 });
    expect(AckSchema.parse({ ok: false, problem })).toEqual({ ok: false, problem });
  });

  it.each([{}, { ok: 'true' }, { ok: 1 }, { ok: false }, { ok: false, problem: 'no' }, { ok: false, problem: {} }, null, [], 'ok'])('is not %j', (value) => {
    expect(AckSchema.safeParse(value).success).toBe(false);
  });
});

describe('the schemas', () => {
  it('answer any JSON without throwing', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        for (const [, { schema }] of all) schema.safeParse(value);
        AckSchema.safeParse(value);
      }),
      { numRuns: 200 },
    );
  });

  it('let every message that they allow fit the limits of section 14', () => {
    const chunk = JSON.stringify(['upload-chunk', { upload: 'x'.repeat(64), offset: 0xffff_ffff, data: { _placeholder: true, num: 0 } }]);
    expect(maxChunkBytes + chunk.length).toBeLessThan(maxMessageBytes);
    const indices = 4 * Math.ceil((4 * maxQueryRows) / 3);
    expect(2 * indices + 65_536).toBeLessThan(maxDocumentLength);
  });
});
