/** One record, one vote, end to end: the real coordinator, real participants, a real engine. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { secureCohortOf } from '../../shared/config/secure-cohort.ts';
import { deriveSeed, SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { chargedRelease } from '../../shared/privacy/ledger.ts';
import { buildStatement } from '../../shared/privacy/statement.ts';
import type { LabelledExamples } from '../../shared/types/matrix.ts';
import type { Delta } from '../../shared/types/units.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { runSimulation } from '../../simulations/run-simulation.ts';
import { parseScenario } from '../../simulations/scenario.ts';

let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
});
afterAll(() => engine.dispose());

/** Three clouds in four dimensions: one a class. Those of the `synthetic` source lie across each other. */
function clouds(count: number, seed: number): LabelledExamples {
  const generator = new SeededGenerator(seed);
  const labels = Int32Array.from({ length: count }, (_, i) => i % 3);
  const values = Float32Array.from({ length: 4 * count }, (_, at) => (labels[Math.floor(at / 4)] === at % 4 ? 4 : 0) + generator.gaussian());
  return { examples: { count, shape: [4], values }, labels, numClasses: 3 };
}

async function simulate(privacy: string, rounds = 1) {
  const scenario = parseScenario(
    `
scenario: record-votes
task:
  task: record-votes
  data: { numClasses: 3, exampleShape: [4] }
  transferSet: { source: synthetic, size: 600 }
  evaluationSet: { source: synthetic, size: 200 }
  student: { model: softmax-regression, pretrainEpochs: 1, digestEpochs: 1, optimizer: { kind: adam, learningRate: 0.05 } }
  teacher: { kind: semiSupervised, model: mlp-small }
  privacy: { ${privacy}, unit: record, gridStep: 0.015625, recordVotes: { maxRecords: 90 } }
  aggregation: { aggregator: meanVotes }
  schedule: { rounds: ${rounds}, transferBatch: 12, querySelection: clusterMiddles, minClients: 5, quorum: 4, cohortSize: 5 }
clients:
  groups: [{ count: 5, model: softmax-regression }]
  data: { source: synthetic, size: 500 }
  baseline: false
`,
    'record-votes.yaml',
  );
  const events: RunEvent[] = [];
  const result = await runSimulation({
    scenario,
    data: { pool: clouds(500, 1), transferSet: clouds(600, 2).examples, evaluationSet: clouds(200, 3), testSet: undefined },
    engine,
    random: (party) => new InsecureSeededRandom(deriveSeed(11, 'insecure', party)),
    events: { emit: (event) => events.push(event) },
  });
  return { task: scenario.task, result, events };
}

describe('a federation in which every record votes once', () => {
  it('teaches from noised counts of a secure sum, within a small epsilon for records', async () => {
    const { task, result, events } = await simulate('trustMode: secure-aggregation, mechanism: discreteGaussian, epsilon: 1, secureAggregation: { maxCorrupt: 1 }', 2);
    expect(result.clients.flatMap(({ error }) => error ?? [])).toEqual([]);
    expect(result).toMatchObject({ reason: 'rounds-done', release: { mechanism: 'discreteGaussian', recordVotes: 90, rows: 12, noise: { shares: 3 } } });
    expect(result.release.shards).toBeUndefined();
    // 100 records each, of which 90 vote: told to the owner alone.
    expect(events.filter(({ event }) => event === 'records-vote')).toMatchObject(Array(5).fill({ voting: 90, silent: 10, maxRecords: 90 }));
    for (const { summary } of result.clients) {
      expect(summary).toMatchObject({ contributedRounds: 2 });
      expect(summary!.epsilonSpent).toBeLessThanOrEqual(1);
      expect(summary!.epsilonSpent).toBeGreaterThan(0.9);
    }
    // Three classes: a third by chance.
    expect(result.rounds.at(-1)!.teacherAccuracy).toBeGreaterThan(0.9);
    const statement = buildStatement({ trustMode: task.privacy.trustMode, parameters: result.release, secureAggregation: secureCohortOf(task), delta: task.privacy.delta as Delta, ledger: [1, 2].map(() => chargedRelease(result.release)) });
    expect(statement).toMatchObject({ claim: 'differentialPrivacy', unit: 'record', recordVotes: 90, noise: { shares: 3 } });
  });

  it('works with local noise too', async () => {
    const { result } = await simulate('mechanism: gaussian, epsilon: 4');
    expect(result).toMatchObject({ reason: 'rounds-done', release: { mechanism: 'gaussian', recordVotes: 90 } });
    expect(result.rounds.at(-1)!.teacherAccuracy).toBeGreaterThan(0.9);
  });
});
