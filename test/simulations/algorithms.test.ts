/** Published algorithms by the protocol: what they save on the wire, and that clients who missed something still follow. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../simulations/load-scenario.ts';
import { runSimulation } from '../../simulations/run-simulation.ts';
import { parseScenario } from '../../simulations/scenario.ts';

let engine: ComputeEngine;
/** What the others are held against: float32 both ways, everything each time. */
let plain: Awaited<ReturnType<typeof run>>;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
  plain = await run({});
}, 60_000);
afterAll(() => engine.dispose());

async function run({ distillation = '', aggregation = '', teacher = 'kind: consensus', schedule = '', network = '', privacy = '', quorum = 2 }) {
  const scenario = parseScenario(
    `
scenario: algorithms
task:
  task: algorithms
  data: { numClasses: 10, exampleShape: [8] }
  transferSet: { source: synthetic, size: 400, seed: 7 }
  teacher: { ${teacher} }
  student: { model: softmax-regression, pretrainEpochs: 20, digestEpochs: 1, revisitEpochs: 1, batchSize: 20, optimizer: { kind: adam, learningRate: 0.05 } }
  distillation: { ${distillation} }
  privacy: { ${privacy} }
  aggregation: { ${aggregation} }
  schedule: { rounds: 4, transferBatch: 200, minClients: 3, quorum: ${quorum} ${schedule} }
clients:
  groups: [{ count: 3, model: softmax-regression }]
  data: { source: synthetic, size: 240, seed: 9 }
  testSet: { source: synthetic, size: 300, seed: 10 }
  baseline: false
${network}
`,
    'algorithms.yaml',
  );
  const events: RunEvent[] = [];
  const result = await runSimulation({ scenario, data: await loadScenarioData(scenario, '.'), engine, random: (party) => new InsecureSeededRandom(deriveSeed(1, 'insecure', party)), events: { emit: (event) => events.push(event) } });
  expect(result.reason).toBe('rounds-done');
  for (const { error, summary } of result.clients) {
    expect(error).toBeUndefined();
    expect(summary!.reason).toBe('rounds-done');
  }
  const sum = (of: (client: (typeof result.clients)[number]) => number) => result.clients.reduce((total, client) => total + of(client), 0);
  return { up: sum(({ summary }) => summary!.bytesUp), down: sum(({ summary }) => summary!.bytesDown), accuracy: sum(({ summary }) => summary!.finalAccuracy!) / 3, queried: result.rounds.map(({ queried }) => queried) };
}

describe('by the protocol', () => {
  it('few bits take a fraction of the bytes, up and down', { timeout: 60_000 }, async () => {
    const bits = await run({ aggregation: 'encoding: bits1, aggregator: majorityVote', distillation: 'labelEncoding: bits1' });
    // 12 contributions of 200 x 10 values, 4 bytes each before, half a byte a row now.
    expect(plain.up - bits.up).toBeGreaterThan(12 * (8000 - 100 - 40));
    expect(bits.down).toBeLessThan(plain.down - 9 * 7000);
    expect(bits.accuracy).toBeGreaterThan(0.5);
  });

  it('a cache asks for, and sends, what is new alone, and changes no label on the way', { timeout: 60_000 }, async () => {
    const cached = await run({ distillation: 'cache: { rounds: 3 }' });
    expect(cached.queried[0]).toBe(200);
    for (const rows of cached.queried.slice(1)) expect(rows).toBeLessThan(200);
    expect(cached.up).toBeLessThan(0.8 * plain.up);
    expect(cached.down).toBeLessThan(0.9 * plain.down);
    expect(cached.accuracy).toBeGreaterThan(0.5);
  });

  it('clients that miss rounds, and connections that break, change nothing but bytes', { timeout: 60_000 }, async () => {
    const cached = await run({ distillation: 'cache: { rounds: 5 }, labelEncoding: bits8', schedule: ', cohortSize: 2', network: 'network: { breakRate: 0.05 }' });
    expect(cached.queried).toHaveLength(4);
    expect(cached.accuracy).toBeGreaterThan(0.5);
  });

  it('a model that teaches does so in few bits as well', { timeout: 60_000 }, async () => {
    const taught = await run({ teacher: 'kind: learner, model: softmax-regression, epochs: 3', distillation: 'labelEncoding: bits4', aggregation: 'encoding: bits4' });
    expect(taught.accuracy).toBeGreaterThan(0.5);
  });

  it('private training goes with all of it: what leaves is a function of the student', { timeout: 60_000 }, async () => {
    const trained = await run({
      privacy: 'mechanism: dpSgd, unit: record, epsilon: 50, dpSgd: { samplingRate: 0.2, stepsPerRound: 20, learningRate: 0.05 }',
      distillation: 'cache: { rounds: 3 }, labelEncoding: bits8, sharing: { minConfidence: 0.2, minClients: 1 }',
      aggregation: 'aggregator: entropyWeighted, encoding: bits8',
    });
    expect(trained.up).toBeLessThan(0.6 * plain.up);
    expect(trained.queried.slice(1).every((rows) => rows < 200)).toBe(true);
  });

  it('a secure sum of votes has a majority, whose labels take few bits', { timeout: 60_000 }, async () => {
    const voted = await run({
      privacy: 'trustMode: secure-aggregation, mechanism: discreteGaussian, epsilon: 20, unit: record, sampleAndAggregate: { shards: 4, epochs: 5 }',
      distillation: 'labelEncoding: bits1',
      aggregation: 'aggregator: majorityVote',
      quorum: 3,
    });
    expect(voted.queried).toEqual([200, 200, 200, 200]);
  });

  it('clients leave out what they are unsure of', { timeout: 60_000 }, async () => {
    const selective = await run({ distillation: 'sharing: { minConfidence: 0.6 }', aggregation: 'maxEntropy: 0.8' });
    expect(selective.up).toBeLessThan(plain.up);
    expect(selective.accuracy).toBeGreaterThan(0.4);
    // Nobody is ever that sure: rounds still end, and there is nothing to distil.
    const silent = await run({ distillation: 'sharing: { maxEntropy: 0 }' });
    expect(silent.up).toBeLessThan(selective.up);
  });
});
