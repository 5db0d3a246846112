import { afterEach, describe, expect, it } from 'vitest';
import { socketConnector } from '../../client/connection/socket-connector.ts';
import { Participant } from '../../client/participant/participant.ts';
import { Coordinator } from '../../server/coordinator/coordinator.ts';
import { openTeacher } from '../../server/coordinator/teacher.ts';
import { createServer, type FederationServer } from '../../server/create-server.ts';
import { TaskConfigSchema, type TaskConfig } from '../../shared/config/task-config.ts';
import { generateIdentity } from '../../shared/crypto/signature.ts';
import { syntheticExamples } from '../../shared/datasets/synthetic.ts';
import { systemClock } from '../../shared/node/system-clock.ts';
import { systemRandom } from '../../shared/node/system-random.ts';
import { noEvents, type RunEvent } from '../../shared/ports/event-sink.ts';
import { silentLogger } from '../../shared/ports/logger.ts';
import type { ClientPolicy } from '../../shared/privacy/client-policy.ts';
import { MemoryLedger } from '../../shared/privacy/memory-ledger.ts';
import type { Delta, Epsilon } from '../../shared/types/units.ts';
import { MemoryStore } from '../../simulations/memory-store.ts';
import { FakeEngine } from '../support/fake-engine.ts';

const policy: ClientPolicy = { maxEpsilon: Infinity as Epsilon, delta: 1e-5 as Delta, minCohort: 1, allowedMechanisms: ['none', 'gaussian'], allowClear: true, maxRounds: 100, minHonest: 5 };
const rows = 262_144;
const numClasses = 10;

let server: FederationServer | undefined;
let coordinator: Coordinator | undefined;
afterEach(async () => {
  await server?.close();
  await coordinator?.close();
});

describe('a matrix of 10 MB over real sockets', () => {
  it('arrives from two clients in chunks, without a dropped connection', async () => {
    const config = TaskConfigSchema.parse({
      task: 'large',
      data: { numClasses, exampleShape: [1] },
      transferSet: { source: 'synthetic', size: rows },
      teacher: { kind: 'consensus' },
      student: { pretrainEpochs: 1, digestEpochs: 0, revisitEpochs: 1 },
      schedule: { rounds: 1, minClients: 2, quorum: 2 },
    }) as TaskConfig;
    const transferSet = syntheticExamples({ size: rows, seed: 1, centerSeed: 1, exampleShape: [1], numClasses }).examples;
    const store = new MemoryStore();
    const engine = new FakeEngine();
    const events: RunEvent[] = [];
    const teacher = await openTeacher({ config, engine, store, transferSet, evaluationSet: undefined, pretrained: undefined });
    coordinator = new Coordinator({ config, identity: generateIdentity(systemRandom), admission: { mode: 'open' }, transferSet, teacher, store, clock: systemClock, random: systemRandom, logger: silentLogger, events: { emit: (event) => events.push(event) } });
    const endpoint = coordinator;
    server = createServer({ endpoint, status: () => endpoint.status(), clock: systemClock, logger: silentLogger });
    const { origin } = await server.listen({ host: '127.0.0.1', port: 0 });
    await coordinator.start();

    const privateDataset = syntheticExamples({ size: 20, seed: 2, centerSeed: 1, exampleShape: [1], numClasses });
    const clients = [1, 2].map((seed) => {
      const traffic = { bytesUp: 0, bytesDown: 0 };
      const participant = new Participant({
        connector: socketConnector({ origin, traffic }),
        coordinatorFingerprint: endpoint.fingerprint,
        identity: generateIdentity(systemRandom),
        clock: systemClock,
        random: systemRandom,
        ledger: new MemoryLedger(),
        policy,
        engine,
        prepare: () => Promise.resolve({ store: new MemoryStore(), model: { kind: 'zoo', name: 'fake', exampleShape: [1], numClasses }, privateDataset }),
        logger: silentLogger,
        events: noEvents,
        seed,
        traffic,
      });
      return participant.run();
    });
    const [reason, ...summaries] = await Promise.all([coordinator.finished, ...clients]);

    expect(reason).toBe('rounds-done');
    const frame = 4 * rows * numClasses;
    expect(frame).toBeGreaterThan(10_000_000);
    for (const summary of summaries) {
      expect(summary.contributedRounds).toBe(1);
      expect(summary.bytesUp).toBeGreaterThan(frame);
      // Sent once: a dropped connection would have cost part of it again.
      expect(summary.bytesUp).toBeLessThan(1.05 * frame);
    }
    expect(events.filter((event) => event.event === 'client-lost')).toEqual([]);
    expect(events.filter((event) => event.event === 'contribution')).toHaveLength(2);
  });
});
