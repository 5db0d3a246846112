/** Rounds of secure aggregation against a real coordinator: the sum, dropouts in every stage, and everything that a client may send instead of its message. */
import { describe, expect, it, vi } from 'vitest';
import { secureStageNames, type RoundDocument, type SecureStageName } from '../../../shared/protocol/messages.ts';
import { expectedConsensus, largestDifference } from './predictions.ts';
import { refusal, TestFederation, type FederationOptions } from './protocol-client.ts';
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

describe('a client that', () => {
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
      await Promise.all(
        parts.map(async (member, i) => {
          if (i > 0) await member.send(stage, opened[i]);
          for (const next of secureStageNames.slice(secureStageNames.indexOf(stage) + 1)) await member.send(next, await member.opening(next));
        }),
      );
      expect(largestDifference(await finalConsensus(part), consensusOf(federation, [1, 2, 3, 4, 5], part.round.document))).toBeLessThan(1e-6);
    });
  });
});
