/** Votes of shards in secure sums, end to end: the real coordinator, real participants, a real engine. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { secureCohortOf } from '../../shared/config/secure-cohort.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { chargedRelease } from '../../shared/privacy/ledger.ts';
import { buildStatement } from '../../shared/privacy/statement.ts';
import type { Delta } from '../../shared/types/units.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../simulations/load-scenario.ts';
import { runSimulation } from '../../simulations/run-simulation.ts';
import { parseScenario } from '../../simulations/scenario.ts';

let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
});
afterAll(() => engine.dispose());

async function simulate(privacy: string) {
  const scenario = parseScenario(
    `
scenario: votes
task:
  task: votes
  data: { numClasses: 3, exampleShape: [4] }
  transferSet: { source: synthetic, size: 40, seed: 1, centerSeed: 3 }
  evaluationSet: { source: synthetic, size: 200, seed: 2, centerSeed: 3 }
  student: { model: softmax-regression, pretrainEpochs: 1, digestEpochs: 1, optimizer: { kind: adam, learningRate: 0.05 } }
  teacher: { kind: learner, model: mlp-small, epochs: 100 }
  privacy: { trustMode: secure-aggregation, ${privacy}, unit: record, secureAggregation: { maxCorrupt: 1 }, sampleAndAggregate: { shards: 4, epochs: 40 } }
  schedule: { rounds: 2, minClients: 5, quorum: 4, cohortSize: 5 }
clients:
  groups: [{ count: 5, model: softmax-regression }]
  data: { source: synthetic, size: 500, seed: 5, centerSeed: 3 }
  baseline: false
`,
    'votes.yaml',
  );
  const events: RunEvent[] = [];
  const result = await runSimulation({
    scenario,
    data: await loadScenarioData(scenario, '.'),
    engine,
    random: (party) => new InsecureSeededRandom(deriveSeed(11, 'insecure', party)),
    events: { emit: (event) => events.push(event) },
  });
  return { task: scenario.task, result, events };
}

describe('a federation on votes of records', () => {
  it('teaches from noised counts, within the epsilon that the task promised for records', async () => {
    const { task, result, events } = await simulate('mechanism: discreteGaussian, epsilon: 200');
    expect(result.clients.flatMap(({ error }) => error ?? [])).toEqual([]);
    expect(result).toMatchObject({ reason: 'rounds-done', release: { mechanism: 'discreteGaussian', shards: 4, votes: true, noise: { shares: 3 } } });
    expect(events.filter(({ event }) => event === 'shards-trained')).toHaveLength(5);
    for (const { summary } of result.clients) {
      expect(summary).toMatchObject({ contributedRounds: 2 });
      expect(summary!.epsilonSpent).toBeLessThanOrEqual(200);
      expect(summary!.epsilonSpent).toBeGreaterThan(150);
    }
    // Three classes: a third by chance. With so much epsilon the votes get through.
    expect(result.rounds.at(-1)!.teacherAccuracy).toBeGreaterThan(0.6);
    const statement = buildStatement({ trustMode: task.privacy.trustMode, parameters: result.release, secureAggregation: secureCohortOf(task), delta: task.privacy.delta as Delta, ledger: [1, 2].map(() => chargedRelease(result.release)) });
    expect(statement).toMatchObject({ claim: 'differentialPrivacy', unit: 'record', shards: 4, votes: true, rowsPerRelease: 40, rowsPerClient: 80, noise: { shares: 3 } });
  });
});
