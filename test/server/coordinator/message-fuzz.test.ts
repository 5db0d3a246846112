/**
 * Ten thousand messages that nobody should send, from connections that have joined and that have not, while a round waits for its last
 * contributions. `FUZZ_MESSAGES` makes it longer, `FUZZ_SEED` another one.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { problemCodes } from '../../../shared/errors.ts';
import { envelopeBytes } from '../../../shared/protocol/envelope.ts';
import { ProblemSchema } from '../../../shared/protocol/problems.ts';
import { toBase64, toHex } from '../../../shared/types/bytes.ts';
import type { MemoryStore } from '../../../simulations/memory-store.ts';
import { expectedConsensus, frameOf, largestDifference } from './predictions.ts';
import { beginMessage, connectDirectly, coordinatorIdentity, ProtocolClient, TestFederation, type DirectConnection } from './protocol-client.ts';

const messages = Number(process.env['FUZZ_MESSAGES'] ?? 10_000);
const seed = Number(process.env['FUZZ_SEED'] ?? 1);
const token = 'correct-horse-battery';
const events = ['hello', 'join', 'upload-begin', 'upload-chunk', 'upload-end', 'decline', 'leave'];
/** The event that each valid message belongs to. */
const eventOf = ['hello', 'join', 'upload-begin', 'upload-begin', 'upload-begin', 'upload-chunk', 'upload-chunk', 'upload-end', 'decline', 'upload-chunk'];
const oddEvents = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '', 'round', 'finished', 'problem', 'disconnect', 'HELLO', 'hello ', 'x'.repeat(100_000)];

const anything = fc.anything({ withBigInt: true, withBoxedValues: true, withDate: true, withMap: true, withNullPrototype: true, withObjectString: true, withSet: true, withSparseArray: true, withTypedArray: true, withUnicodeString: true });
const oddValue = fc.oneof(
  anything,
  fc.constantFrom<unknown>(NaN, Infinity, -1, 0, 0.5, 2 ** 32, 2 ** 53, -0, '', null, undefined, [], {}, true, 1n, '\ud800', 'x'.repeat(300_000), new Uint8Array(0), new Uint8Array(256 * 1024 + 1), new Uint8Array(40), new Float64Array(3), Symbol('x')),
  fc.base64String({ minLength: 44, maxLength: 88 }),
);

interface Mutation {
  readonly kind: 'none' | 'replace' | 'remove' | 'add' | 'wrap' | 'proto' | 'text';
  readonly at: number;
  readonly value: unknown;
}
const mutation: fc.Arbitrary<Mutation> = fc.record({ kind: fc.constantFrom('none', 'none', 'none', 'replace', 'replace', 'replace', 'remove', 'add', 'wrap', 'proto', 'text'), at: fc.nat({ max: 7 }), value: oddValue });
const message = fc.record({
  /** 0, 1: joined and in the cohort; 2: joined, not in the cohort; 3, 4: not joined. */
  sender: fc.nat({ max: 4 }),
  event: fc.oneof({ weight: 12, arbitrary: fc.constantFrom(...events) }, { weight: 1, arbitrary: fc.constantFrom(...oddEvents) }, { weight: 1, arbitrary: fc.string() }),
  /** Which valid message is mutated; undefined: the value of the mutation is the payload. */
  base: fc.option(fc.nat({ max: 9 }), { freq: 4 }),
  /** The mutated message goes to its own event. */
  isFitting: fc.nat({ max: 3 }).map((n) => n > 0),
  mutation,
});

function mutate(payload: Record<string, unknown>, { kind, at, value }: Mutation): unknown {
  const keys = Object.keys(payload);
  const key = keys[at % Math.max(1, keys.length)] ?? 'x';
  switch (kind) {
    case 'none':
      return payload;
    case 'replace':
      return { ...payload, [key]: value };
    case 'remove':
      return Object.fromEntries(Object.entries(payload).filter(([name]) => name !== key));
    case 'add':
      return { ...payload, [['constructor', 'extra', 'toJSON', 'ok', 'then', 'length', 'prototype', '0'][at]!]: value };
    case 'wrap':
      return at % 2 === 0 ? [payload] : { ok: true, payload };
    case 'proto':
      return Object.assign(JSON.parse('{"__proto__": {"isJoined": true, "offset": 0}}') as object, at % 2 === 0 ? payload : {});
    case 'text':
      return JSON.stringify(payload);
  }
}

const show = (value: unknown) => JSON.stringify(value, (_key, member: unknown) => (typeof member === 'bigint' ? String(member) : member instanceof Uint8Array ? `${toBase64(member)} ${toHex(member)}` : member)) ?? '';

describe('a coordinator under a storm of wrong messages', () => {
  it('answers each with a known code, tells no secret, holds no more memory than it may, and ends the round well', { timeout: 120_000 }, async () => {
    const size = envelopeBytes(16 + 8 + 5 * 3 * 4 + 4);
    // Room for the three honest clients and one upload for each of the three that misbehave.
    const federation = new TestFederation({ admission: { mode: 'token', token }, schedule: { rounds: 1, minClients: 5, quorum: 3 }, maxUploadBytes: 6 * size });
    await federation.run(async () => {
      const coordinator = await federation.start();
      const honest = [1, 2, 3].map((number) => new ProtocolClient(federation, number));
      for (const client of honest) await client.arrive(token);
      const joinDirectly = async (number: number): Promise<[ProtocolClient, DirectConnection]> => {
        const client = new ProtocolClient(federation, number);
        const connection = connectDirectly(client);
        await (await client.hello()).join(token);
        return [client, connection];
      };
      const bad = [await joinDirectly(4), await joinDirectly(5)];
      const [round] = await Promise.all(honest.map((client) => client.nextRound()));
      bad.push(await joinDirectly(6));
      const stranger = new ProtocolClient(federation, 7);
      const newcomer = () => connectDirectly(stranger);
      const connections: DirectConnection[] = [...bad.map(([, connection]) => connection), newcomer(), newcomer()];

      const { document, context } = round!;
      const victim = honest[0]!.seal(frameOf(1, document), round!);
      const begun = (await honest[0]!.request('upload-begin', beginMessage(1, victim))) as { upload: string };
      const secrets = [
        Buffer.from((await (federation.store as MemoryStore).getBlob('rounds/1/box-secret'))!),
        Buffer.from(coordinatorIdentity.secretKey.subarray(0, 32)),
        Buffer.from(coordinatorIdentity.secretKey),
        Buffer.from(token),
      ].flatMap((bytes) => [bytes.toString('base64').replace(/=+$/, ''), bytes.toString('hex'), bytes.toString('latin1')]);
      const tokens = [...honest, ...bad.map(([client]) => client)].map(({ sessionToken }) => sessionToken);

      /** Valid messages of others, of other rounds, or with contents that will be refused. */
      const ownUploads = new Map<number, string>();
      const valid = (sender: number, base: number): Record<string, unknown> => {
        const own = bad[sender]?.[0] ?? stranger;
        const upload = ownUploads.get(sender) ?? begun.upload;
        const nonce = toBase64(own.random.bytes(32));
        switch (base) {
          case 0:
            return { protocols: ['fdp/1'], clientKey: toBase64(honest[0]!.identity.publicKey), clientNonce: nonce };
          case 1:
            return honest[1]!.joinMessage(token); // recorded elsewhere
          case 2:
            return beginMessage(1, victim); // another client's digest
          case 3:
            return { ...beginMessage(1, victim), bytes: size + [0, 0, 0, 1][own.random.bytes(1)[0]! % 4]!, digest: `sha256:${toHex(own.random.bytes(32))}` };
          case 4:
            return beginMessage([0, 2, 3, 2 ** 32 - 1][own.random.bytes(1)[0]! % 4]!, victim);
          case 5:
            return { upload, offset: [0, 0, 1, size][own.random.bytes(1)[0]! % 4]!, data: own.random.bytes(size) };
          case 6:
            return { upload: begun.upload, offset: 0, data: victim };
          case 7:
            return { upload };
          case 8:
            return { round: 2, code: 'declined' };
          default:
            return { upload, offset: 0, data: victim };
        }
      };

      const journalBefore = (await federation.store.readLog('journal')).length;
      const counts = new Map<string, number>();
      const answers: string[] = [];
      for (const { sender, event: anyEvent, base, isFitting, mutation: change } of fc.sample(message, { numRuns: messages, seed })) {
        const event = base !== null && isFitting ? eventOf[base]! : anyEvent;
        // The two in the cohort do not leave or decline: then the round would be over too soon to say anything.
        const payload = base === null ? change.value : mutate(valid(sender, base), change);
        if (event === 'leave' && sender < 3 && Object.keys((payload ?? { x: 1 })).length === 0) continue;
        if (event === 'decline' && sender < 2 && (payload as { round?: unknown } | null)?.round === 1) continue;
        const connection = connections[sender]!;
        const answer = (await coordinator.receive(connection, event, payload)) as { ok: boolean; problem?: { code: string }; upload?: string };
        const code = answer.ok ? `ok ${event}` : answer.problem!.code;
        counts.set(code, (counts.get(code) ?? 0) + 1);
        if (!answer.ok) {
          expect(ProblemSchema.safeParse(answer.problem).success).toBe(true);
          expect(Object.keys(problemCodes)).toContain(code);
        } else if (answer.upload !== undefined) {
          ownUploads.set(sender, answer.upload);
        }
        answers.push(show(answer));
        if (sender >= 3 && (code === 'signature-invalid' || (sender === 4 && answer.ok))) {
          coordinator.disconnected(connection); // a greeting, or its one attempt to join: the next message comes from a new connection
          connections[sender] = newcomer();
        }
      }

      if (process.env['FUZZ_MESSAGES'] !== undefined) console.log(Object.fromEntries(counts));
      expect(counts.get('internal')).toBeUndefined();
      for (const code of ['not-authenticated', 'event-unknown', 'message-malformed', 'round-unknown', 'shape-mismatch', 'not-in-cohort', 'upload-unknown', 'upload-offset', 'upload-digest', 'signature-invalid', 'ok hello', 'ok upload-begin', 'ok upload-chunk']) {
        expect([code, counts.get(code) ?? 0]).not.toEqual([code, 0]); // the storm reaches them all
      }
      expect([...counts.keys()].filter((code) => code === 'ok join' || code === 'ok upload-end')).toEqual([]);
      const told = answers.join('\n') + show(federation.events) + connections.map(({ sent }) => show(sent)).join('');
      for (const secret of [...secrets, ...tokens]) expect(told.includes(secret)).toBe(false);
      expect((await federation.store.readLog('journal')).length - journalBefore).toBeLessThan(10);
      expect(federation.events.length).toBeLessThan(300);
      expect(Object.keys({})).toEqual([]);
      expect(({} as { isJoined?: boolean }).isJoined).toBeUndefined();

      // There is still room for those who behave, and the consensus is theirs.
      await honest[0]!.upload(1, victim);
      for (const [i, client] of [...honest.entries()].slice(1)) await client.upload(1, client.seal(frameOf(i + 1, document), { signed: round!.signed, document, context }));
      const finished = await honest[0]!.nextFinished();
      expect(finished).toMatchObject({ reason: 'rounds-done', rounds: 1 });
      const { matrix } = await honest[0]!.labels('/finished/soft-labels', finished.labels!);
      expect(largestDifference(matrix.values, expectedConsensus([1, 2, 3], document, federation.config.aggregation))).toBeLessThan(1e-6);
    });
  });
});
