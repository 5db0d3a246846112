/** Rounds of secure aggregation against a real coordinator: the sum, dropouts in every stage, and everything that a client may send instead of its message. */
import { describe, expect, it, vi } from 'vitest';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import { secureStageNames, type RoundDocument, type SecureStageName } from '../../../shared/protocol/messages.ts';
import type { SignedDocument } from '../../../shared/protocol/signed-document.ts';
import { secureContextOf } from '../../../shared/protocol/secure-round.ts';
import { decodeAdvert, decodeUnmask, encodeAdvert, encodeUnmask } from '../../../shared/secure-aggregation/messages.ts';
import { planTaskRelease } from '../../../server/coordinator/coordinator.ts';
import { expectedConsensus, largestDifference } from './predictions.ts';
import { problemAck, ProtocolClient, refusal, testTask, TestFederation, type FederationOptions } from './protocol-client.ts';
import { openSecureRound, type SecurePart } from './secure-client.ts';

vi.mock(import('../../../shared/crypto/signature.ts'), async (original) => (await import('./fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../../shared/crypto/sealed-box.ts'), async (original) => (await import('./fast-crypto.ts')).fastBoxes(await original()));

/** Five clients, of which four must survive and one may be corrupt: t = 4 shares open a secret. */
const secureTask = ({ schedule, privacy }: FederationOptions = {}): FederationOptions => ({
  schedule: { rounds: 1, minClients: 5, quorum: 4, roundDeadlineSeconds: 60, reconnectGraceSeconds: 10, maxFailedRounds: 0, ...schedule },
  privacy: { trustMode: 'secure-aggregation', mechanism: 'none', secureAggregation: { maxCorrupt: 1, stageDeadlineSeconds: 5 }, ...privacy },
});

const federationOf = (options?: FederationOptions) => new TestFederation(secureTask(options));
const events = (federation: TestFederation, name: string) => federation.events.filter(({ event }) => event === name);

/** The soft labels that the task ended with. */
async function finalConsensus({ client }: SecurePart): Promise<Float32Array> {
  const finished = await client.nextFinished();
  return (await client.labels('/finished/soft-labels', finished.labels!)).matrix.values;
}

function consensusOf(federation: TestFederation, clients: readonly number[], document: RoundDocument): number[] {
  // Integers of a secure sum are projected, as noised ones are.
  return expectedConsensus(clients, { ...document, release: { ...document.release, mechanism: 'gaussian', noise: { sigmaGrid: 1 } } }, federation.config.aggregation);
}

describe('a round of secure aggregation', () => {
  it('releases the mean of the survivors, and nothing of any one of them', async () => {
    const federation = federationOf();
    await federation.run(async () => {
      const parts = await openSecureRound(federation, 5);
      const { document } = parts[0]!.round;
      expect(document).toMatchObject({ trustMode: 'secure-aggregation', stages: secureStageNames, secureAggregation: { minCohort: 4, minSurvivors: 4, maxCorrupt: 1, stageDeadlineMs: 5_000 } });
      const stored = (stage: number) => Promise.all(parts.map(({ client }) => federation.store.getBlob(`rounds/1/stage-${stage}/${client.id}`)));
      await Promise.all(parts.map((part) => part.play('consistencyCheck')));
      expect((await stored(4)).every((blob) => blob !== undefined)).toBe(true);
      await Promise.all(parts.map(async (part) => part.send('unmask', await part.opening('unmask'))));
      expect(largestDifference(await finalConsensus(parts[0]!), consensusOf(federation, [1, 2, 3, 4, 5], document))).toBeLessThan(1e-6);
      for (const stage of [2, 3, 4, 5, 6]) expect((await stored(stage)).filter((blob) => blob !== undefined)).toEqual([]);
    });
    expect(events(federation, 'stage-opened').map(({ stage, clients, needed }) => [stage, clients, needed])).toEqual([['shareKeys', 5, 4], ['maskedInput', 5, 4], ['consistencyCheck', 5, 4], ['unmask', 5, 4]]);
    expect(events(federation, 'share-suspects')).toEqual([]);
    expect(await federation.store.readLog('metrics.jsonl')).toMatchObject([{ round: 1, contributions: 5 }]);
  });

  it.each(secureStageNames)('loses one client before %s and still has the right sum', async (stage) => {
    const federation = federationOf();
    await federation.run(async () => {
      const parts = await openSecureRound(federation, 5);
      const before = secureStageNames[secureStageNames.indexOf(stage) - 1];
      await Promise.all(
        parts.map(async (part, i) => {
          if (i > 0) return part.play();
          if (before !== undefined) await part.play(before);
          await part.client.close();
        }),
      );
      const counted = secureStageNames.indexOf(stage) <= 2 ? [2, 3, 4, 5] : [1, 2, 3, 4, 5];
      expect(largestDifference(await finalConsensus(parts[1]!), consensusOf(federation, counted, parts[1]!.round.document))).toBeLessThan(1e-6);
      expect(events(federation, 'round-aggregated')).toMatchObject([{ contributions: counted.length }]);
    });
  });

  it.each(secureStageNames)('ends without a sum when two clients are lost before %s, and says where and how many it needed', async (stage) => {
    const federation = federationOf();
    await federation.run(async () => {
      const parts = await openSecureRound(federation, 5);
      const before = secureStageNames[secureStageNames.indexOf(stage) - 1];
      for (const [i, part] of parts.entries()) {
        void (async () => {
          if (i > 1) return part.play();
          if (before !== undefined) await part.play(before);
          await part.client.close();
        })();
      }
      expect(await federation.coordinator.finished).toBe('quorum-missed');
      const { client } = parts[2]!;
      expect(client.notices.filter(({ event }) => event === 'round-closed')).toMatchObject([{ payload: { outcome: 'aborted', code: 'quorum-missed', contributions: 3 } }]);
    });
    expect(events(federation, 'round-aborted')).toMatchObject([{ code: 'quorum-missed', stage, needed: 4, contributions: 3 }]);
    expect(events(federation, 'round-aggregated')).toEqual([]);
  });
});

/** A round in which everybody has answered the stages before `stage`, which is open for all. */
async function until(federation: TestFederation, stage: SecureStageName): Promise<{ readonly parts: readonly SecurePart[]; readonly opened: readonly (Uint8Array | undefined)[] }> {
  const parts = await openSecureRound(federation, 5);
  let opened: (Uint8Array | undefined)[] = parts.map(() => undefined);
  for (const name of secureStageNames.slice(0, secureStageNames.indexOf(stage))) {
    await Promise.all(parts.map((part, i) => part.send(name, opened[i])));
    opened = await Promise.all(parts.map((part) => part.opening(secureStageNames[secureStageNames.indexOf(name) + 1]!)));
  }
  return { parts, opened };
}

/** Everybody answers `stage`, which is open, and all that follow. */
async function finish(parts: readonly SecurePart[], stage: SecureStageName, opened: readonly (Uint8Array | undefined)[]): Promise<void> {
  await Promise.all(
    parts.map(async (part, i) => {
      await part.send(stage, opened[i]);
      for (const next of secureStageNames.slice(secureStageNames.indexOf(stage) + 1)) await part.send(next, await part.opening(next));
    }),
  );
}

describe('a coordinator that is started again', () => {
  it.each(secureStageNames.slice(1))('opens %s with the same bytes for everybody, and goes on to the same sum', async (stage) => {
    const federation = federationOf();
    await federation.run(async () => {
      const { parts, opened } = await until(federation, stage);
      await federation.restart();
      const acks = await Promise.all(parts.map(({ client }) => client.arrive()));
      expect(acks.every(({ round, nextRound }) => round !== null && nextRound === 1)).toBe(true);
      const again = await Promise.all(parts.map((part) => part.opening(stage)));
      again.forEach((data, i) => expect(Buffer.compare(data, opened[i]!)).toBe(0));
      await finish(parts, stage, again);
      expect(largestDifference(await finalConsensus(parts[0]!), consensusOf(federation, [1, 2, 3, 4, 5], parts[0]!.round.document))).toBeLessThan(1e-6);
    });
  });
});

describe('a client that', () => {
  it.each(secureStageNames)('sends garbage in %s is refused, and can still send its message', async (stage) => {
    const federation = federationOf();
    await federation.run(async () => {
      const { parts, opened } = await until(federation, stage);
      const [part, other] = [parts[0]!, parts[1]!];
      const frame = part.frame(stage, opened[0]);
      const send = (bytes: Uint8Array) => refusal(part.client.upload(1, part.seal(stage, bytes), 50_000, stage));
      const changed = (at: number) => Uint8Array.from(frame, (byte, i) => (i === at ? byte ^ 1 : byte));
      // Lengths: refused before the first byte.
      expect(await send(frame.subarray(1))).toBe('shape-mismatch');
      expect(await send(Uint8Array.of(...frame.subarray(0, 200), 0))).toBe('shape-mismatch');
      // Magic, kind, round, manifest, the end of the signature.
      expect(await send(changed(0))).toBe('message-malformed');
      expect(await send(changed(5))).toBe('message-malformed');
      expect(await send(changed(8))).toBe('context-mismatch');
      expect(await send(changed(12))).toBe('context-mismatch');
      expect(await send(changed(frame.length - 1))).toBe('signature-invalid');
      // Another client's message, in an own envelope.
      const foreign = other.frame(stage, opened[1]);
      if (foreign.length === frame.length) expect(['context-mismatch', 'stage-mismatch']).toContain(await send(foreign));
      // A message of another stage in an envelope of this one, and the other way round.
      expect(await refusal(part.client.upload(1, part.envelope(stage, opened[0]), 50_000, stage === 'unmask' ? 'maskedInput' : 'unmask'))).toBe(stage === 'unmask' ? 'contribution-conflict' : 'stage-mismatch');
      // Of all that, nothing was kept.
      expect(await part.send(stage)).toMatchObject({ accepted: true, duplicate: false });
      expect(await part.send(stage)).toMatchObject({ accepted: true, duplicate: true });
      expect(await refusal(part.client.upload(1, part.seal(stage, frame), 50_000, stage))).toBe('contribution-conflict');
      await finish(parts, stage, opened);
      expect(largestDifference(await finalConsensus(part), consensusOf(federation, [1, 2, 3, 4, 5], part.round.document))).toBeLessThan(1e-6);
    });
  });

  it('comes back in a later stage is asked again, and answers as if nothing had been', async () => {
    const federation = federationOf();
    await federation.run(async () => {
      const { parts, opened } = await until(federation, 'maskedInput');
      const [part] = parts as [SecurePart];
      await part.client.close();
      expect(await part.client.arrive()).toMatchObject({ nextRound: 1 });
      expect(Buffer.compare(await part.opening('maskedInput'), opened[0]!)).toBe(0);
      expect(await part.send('shareKeys')).toEqual({ ok: true, accepted: true, duplicate: true }); // the acknowledgement was lost
      await part.send('maskedInput', opened[0]);
      // It waits for the next stage: nothing is asked of it, and the round is still its own.
      await part.client.close();
      expect(await part.client.arrive()).toMatchObject({ nextRound: 1, round: null });
      await Promise.all(parts.slice(1).map((other, i) => other.send('maskedInput', opened[i + 1])));
      await finish(parts, 'consistencyCheck', await Promise.all(parts.map((other) => other.opening('consistencyCheck'))));
      expect(largestDifference(await finalConsensus(part), consensusOf(federation, [1, 2, 3, 4, 5], part.round.document))).toBeLessThan(1e-6);
    });
  });

  it('refuses a stage is out of the round, and the others go on', async () => {
    const federation = federationOf();
    await federation.run(async () => {
      const parts = await openSecureRound(federation, 5);
      parts[0]!.client.answer = async ({ event }) => (event === 'stage' ? problemAck('context-mismatch') : { ok: true });
      await Promise.all(parts.map((part, i) => (i === 0 ? part.play('advertiseKeys') : part.play())));
      expect(events(federation, 'client-declined')).toMatchObject([{ client: parts[0]!.client.id, code: 'context-mismatch' }]);
      expect(largestDifference(await finalConsensus(parts[1]!), consensusOf(federation, [2, 3, 4, 5], parts[1]!.round.document))).toBeLessThan(1e-6);
    });
  });

  it('advertises a key of another client is refused: it would end the round for all', async () => {
    const federation = federationOf();
    await federation.run(async () => {
      const parts = await openSecureRound(federation, 5);
      const [part, thief] = parts as [SecurePart, SecurePart];
      const { context } = part.round;
      await part.send('advertiseKeys');
      const own = secureContextOf(part.round.document, context.transcript);
      const { channelKey, maskKey, commitment } = decodeAdvert(part.frame('advertiseKeys'), own);
      const tryKeys = (keys: { channelKey: Uint8Array; maskKey: Uint8Array }) =>
        refusal(thief.client.upload(1, thief.seal('advertiseKeys', encodeAdvert(own, { ...keys, commitment }, thief.client.identity, nodeCrypto)), 50_000, 'advertiseKeys'));
      const fresh = nodeCrypto.x25519PublicKey(new Uint8Array(32).fill(9));
      expect(await tryKeys({ channelKey, maskKey: fresh })).toBe('value-out-of-range');
      expect(await tryKeys({ channelKey: fresh, maskKey: channelKey })).toBe('value-out-of-range');
      expect(await tryKeys({ channelKey: fresh, maskKey: fresh })).toBe('value-out-of-range');
      expect(await tryKeys({ channelKey: fresh, maskKey: new Uint8Array(32) })).toBe('value-out-of-range');
      await federation.restart(); // what the stage has so far is read again
      await Promise.all(parts.map(({ client }) => client.arrive()));
      expect(await tryKeys({ channelKey: fresh, maskKey })).toBe('value-out-of-range');
      await Promise.all(parts.slice(1).map((other) => other.play()).concat((async () => {
        for (const next of secureStageNames.slice(1)) await part.send(next, await part.opening(next));
      })()));
      expect(largestDifference(await finalConsensus(part), consensusOf(federation, [1, 2, 3, 4, 5], part.round.document))).toBeLessThan(1e-6);
    });
  });

  it('gives a share that does not fit is named, and the sum is right all the same', async () => {
    const federation = federationOf();
    await federation.run(async () => {
      const { parts, opened } = await until(federation, 'unmask');
      const [liar] = parts as [SecurePart];
      const honest = liar.frame('unmask', opened[0]);
      const own = secureContextOf(liar.round.document, liar.round.context.transcript);
      const [rosterRoot, digest] = [honest.subarray(76, 108), honest.subarray(108, 140)];
      const { shares } = decodeUnmask(honest, own, rosterRoot, digest, 5);
      const lies = shares.map((share) => ({ ...share, share: share.share.map((byte) => byte ^ 1) }));
      await liar.client.upload(1, liar.seal('unmask', encodeUnmask(own, rosterRoot, digest, lies, liar.client.identity, nodeCrypto)), 50_000, 'unmask');
      await Promise.all(parts.slice(1).map((part, i) => part.send('unmask', opened[i + 1])));
      expect(largestDifference(await finalConsensus(liar), consensusOf(federation, [1, 2, 3, 4, 5], liar.round.document))).toBeLessThan(1e-6);
      expect(events(federation, 'share-suspects')).toMatchObject([{ round: 1, clients: [liar.client.id] }]);
    });
  });
});

describe('a task of secure aggregation', () => {
  it('whose sums could wrap is refused before anybody trains', () => {
    const task = (gridStep: number) => testTask(secureTask({ schedule: { quorum: 4000 }, privacy: { gridStep } }));
    expect(planTaskRelease(task(2 ** -10), 8)).toMatchObject({ gridStep: 2 ** -10 });
    expect(() => planTaskRelease(task(2 ** -20), 8)).toThrowError(expect.objectContaining({ code: 'config-invalid', field: 'gridStep' })); // 7,999 clients at 2^20 steps each
  });

  it('takes no more clients into a round than its quorum can agree for', async () => {
    const federation = federationOf({ schedule: { minClients: 5, quorum: 3 } }); // 2 * 3 - 1 - 1
    await federation.run(async () => {
      await federation.start();
      const members = Array.from({ length: 5 }, (_, i) => new ProtocolClient(federation, i + 1));
      for (const member of members) await member.arrive();
      await federation.sleep(100);
      expect(members.flatMap((member) => member.notices.filter(({ event }) => event === 'round').map(({ payload }) => member.openRound(payload as SignedDocument).document.cohort))).toEqual(new Array(4).fill({ size: 4, quorum: 3 }));
    });
  });
});
