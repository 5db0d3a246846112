/**
 * The real coordinator and real participants in rounds of secure aggregation without noise: what comes out is the sum of the survivors' integers, whoever vanishes. The integers
 * are computed again here from each client's predictions.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { contributionGrid } from '../../client/participant/contribution.ts';
import { Participant } from '../../client/participant/participant.ts';
import { Coordinator } from '../../server/coordinator/coordinator.ts';
import { SecureAggregation } from '../../server/coordinator/secure-aggregation.ts';
import type { Teacher } from '../../server/coordinator/teacher.ts';
import type { ComputeEngine, OpenModel } from '../../shared/compute/engine.ts';
import { parseTaskConfig } from '../../shared/config/load.ts';
import { generateIdentity } from '../../shared/crypto/signature.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { nodeCrypto } from '../../shared/node/node-crypto.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { silentLogger } from '../../shared/ports/logger.ts';
import type { Connector } from '../../shared/ports/transport.ts';
import { MemoryLedger } from '../../shared/privacy/memory-ledger.ts';
import { RoundDocumentSchema, secureStageNames, type RoundDocument, type SecureStageName } from '../../shared/protocol/messages.ts';
import type { Matrix } from '../../shared/types/matrix.ts';
import type { Delta, Epsilon } from '../../shared/types/units.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { MemoryStore } from '../../simulations/memory-store.ts';
import { memoryConnector, steadyNetwork } from '../../simulations/network/memory-transport.ts';
import { VirtualClock } from '../../simulations/network/virtual-clock.ts';
import { FakeEngine } from '../support/fake-engine.ts';

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original()));

afterEach(() => {
  vi.restoreAllMocks();
});

const realSum = Object.getOwnPropertyDescriptor(SecureAggregation.prototype, 'sum')!.value as (this: SecureAggregation, ...args: Parameters<SecureAggregation['sum']>) => ReturnType<SecureAggregation['sum']>;
const transferSet = { count: 20, shape: [4], values: Float32Array.from({ length: 80 }, (_, i) => Math.cos(i)) };

interface Options {
  readonly clients: number;
  readonly minSurvivors: number;
  readonly maxCorrupt: number;
  /** Before which message each client vanishes, by its number. */
  readonly vanish?: ReadonlyMap<number, SecureStageName>;
}

interface Outcome {
  readonly sum: Int32Array | undefined;
  readonly survivors: number;
  /** Each client's integers. */
  readonly grids: readonly (Int32Array | undefined)[];
  readonly events: readonly RunEvent[];
}

async function runRound({ clients, minSurvivors, maxCorrupt, vanish = new Map() }: Options): Promise<Outcome> {
  const clock = new VirtualClock(1_700_000_000_000);
  const sums: { readonly sum: Int32Array; readonly survivors: readonly number[] }[] = [];
  vi.spyOn(SecureAggregation.prototype, 'sum').mockImplementation(async function (this: SecureAggregation, closed) {
    const result = await realSum.call(this, closed);
    sums.push(result);
    return result;
  });
  const config = parseTaskConfig(
    JSON.stringify({
      task: 'sums',
      data: { numClasses: 3, exampleShape: [4] },
      transferSet: { source: 'synthetic', size: 20 },
      teacher: { kind: 'consensus' },
      student: { model: 'softmax-regression' },
      privacy: { trustMode: 'secure-aggregation', mechanism: 'none', secureAggregation: { maxCorrupt, stageDeadlineSeconds: 60 } },
      schedule: { rounds: 1, minClients: clients, quorum: minSurvivors, reconnectGraceSeconds: 1, maxFailedRounds: 0 },
    }),
    'task.yaml',
  );
  const teacher: Teacher = { labels: () => Promise.resolve(undefined), learn: () => Promise.resolve({ accuracy: null, nll: null }), model: () => undefined, dispose: () => Promise.resolve() };
  const events: RunEvent[] = [];
  const coordinator = new Coordinator({ config, identity: generateIdentity(new InsecureSeededRandom(1)), admission: { mode: 'open' }, transferSet, teacher, store: new MemoryStore(), clock, random: new InsecureSeededRandom(2), logger: silentLogger, events: { emit: (event) => events.push(event) } });
  let document: RoundDocument | undefined;
  const predictions = new Map<number, Matrix>();
  const participants = Array.from({ length: clients }, (_, i) => {
    const stop = new AbortController();
    const connector = memoryConnector({ endpoint: () => coordinator, clock, network: steadyNetwork(5) });
    const participant = new Participant({
      connector: vanishing(connector, (stage) => vanish.get(i) === stage && stop.abort(new Error('vanished')), (signed) => (document = RoundDocumentSchema.parse(JSON.parse(signed.document)))),
      coordinatorFingerprint: coordinator.fingerprint,
      identity: generateIdentity(new InsecureSeededRandom(100 + i)),
      clock,
      random: new InsecureSeededRandom(10_000 + i),
      crypto: nodeCrypto,
      ledger: new MemoryLedger(),
      policy: { maxEpsilon: Infinity as Epsilon, delta: 1e-5 as Delta, minCohort: 1, allowedMechanisms: ['none'], allowClear: false, maxRounds: Infinity, minHonest: 1 },
      engine: recording(new FakeEngine(), (matrix) => predictions.set(i, matrix)),
      prepare: () => Promise.resolve({ store: new MemoryStore(), model: { kind: 'zoo', name: 'softmax-regression', exampleShape: [4], numClasses: 3 }, privateDataset: { examples: { count: 9, shape: [4], values: Float32Array.from({ length: 36 }, (_v, j) => Math.sin(i + j)) }, labels: Int32Array.from({ length: 9 }, (_v, j) => j % 3), numClasses: 3 } }),
      logger: silentLogger,
      events: { emit: () => undefined },
    });
    return participant.run(stop.signal).catch((error: unknown) => {
      if (!stop.signal.aborted) throw error;
    });
  });
  const work = async () => {
    await coordinator.start();
    await Promise.all([coordinator.finished, ...participants]);
  };
  await clock.runUntil(work());
  await coordinator.close();
  const grids = Array.from({ length: clients }, (_, i) => {
    const matrix = predictions.get(i);
    return matrix === undefined ? undefined : contributionGrid({ document: document!, predictions: [matrix], random: new InsecureSeededRandom(3) });
  });
  return { sum: sums[0]?.sum, survivors: sums[0]?.survivors.length ?? 0, grids, events };
}

/** Tells of every stage before its first byte is sent, and of the announcement. */
function vanishing(inner: Connector, onStage: (stage: SecureStageName) => void, onRound: (signed: { readonly document: string }) => void): Connector {
  return {
    connect: async (signal) => {
      const connection = await inner.connect(signal);
      return {
        request: async (event, payload) => {
          if (event === 'upload-begin') onStage((payload as { stage: SecureStageName }).stage);
          await Promise.resolve();
          return connection.request(event, payload);
        },
        fetchFrame: (...args) => connection.fetchFrame(...args),
        onEvent: (handler) =>
          connection.onEvent((event, payload) => {
            if (event === 'round') onRound(payload as { readonly document: string });
            return handler(event, payload);
          }),
        onDisconnect: (handler) => connection.onDisconnect(handler),
        close: () => connection.close(),
      };
    },
  };
}

function recording(inner: FakeEngine, onPrediction: (matrix: Matrix) => void): ComputeEngine {
  return {
    name: inner.name,
    reason: inner.reason,
    open: async (source, seed) => {
      const model: OpenModel = await inner.open(source, seed);
      const predict = model.predict.bind(model);
      model.predict = async (examples) => {
        const matrix = await predict(examples);
        onPrediction(matrix);
        return matrix;
      };
      return model;
    },
    dispose: () => inner.dispose(),
  };
}

function plainSum(grids: readonly (Int32Array | undefined)[], counted: readonly number[]): Int32Array {
  const total = new Int32Array(60);
  for (const i of counted) grids[i]!.forEach((value, j) => (total[j] = (total[j]! + value) | 0));
  return total;
}

/** Clients, fewest survivors and corrupt ones; as many as possible may vanish. */
const sizes = [
  [3, 3, 0],
  [5, 4, 1],
  [10, 6, 1],
  [64, 34, 3],
] as const;

describe('a sum over the real coordinator and real participants', () => {
  it.each(sizes)('of %i clients is that of their integers', async (clients, minSurvivors, maxCorrupt) => {
    const { sum, survivors, grids } = await runRound({ clients, minSurvivors, maxCorrupt });
    expect(survivors).toBe(clients);
    expect(sum).toEqual(plainSum(grids, grids.map((_, i) => i)));
  });

  it.each(sizes)('of %i clients is that of the survivors when as many as %i are left, and the rest vanished in random stages', async (clients, minSurvivors, maxCorrupt) => {
    for (const seed of clients > 20 ? [1] : [1, 2, 3, 4]) {
      const generator = new SeededGenerator(seed);
      const vanish = new Map<number, SecureStageName>([...generator.permutation(clients)].slice(0, clients - minSurvivors).map((client) => [client, secureStageNames[Math.floor(5 * generator.uniform())]!]));
      const { sum, survivors, grids } = await runRound({ clients, minSurvivors, maxCorrupt, vanish });
      const counted = grids.map((_, i) => i).filter((i) => !vanish.has(i) || secureStageNames.indexOf(vanish.get(i)!) > 2);
      expect(survivors).toBe(counted.length);
      expect(sum).toEqual(plainSum(grids, counted));
    }
  });

  it.each(secureStageNames)('does not exist when one client more vanishes before %s', async (stage) => {
    const { sum, events } = await runRound({ clients: 5, minSurvivors: 4, maxCorrupt: 1, vanish: new Map([[0, stage], [3, stage]]) });
    expect(sum).toBeUndefined();
    expect(events.find(({ event }) => event === 'round-aborted')).toMatchObject({ code: 'quorum-missed', stage });
  });
});
