/** Private training at the clients, end to end: the real coordinator, real participants, a real engine. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
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

describe('a federation on students that train privately', () => {
  it('teaches from predictions without noise, within the epsilon that the task promised for records', async () => {
    const scenario = parseScenario(
      `
scenario: private-training
task:
  task: private-training
  data: { numClasses: 3, exampleShape: [4] }
  transferSet: { source: synthetic, size: 100, seed: 1, centerSeed: 3 }
  evaluationSet: { source: synthetic, size: 200, seed: 2, centerSeed: 3 }
  student: { model: softmax-regression, digestEpochs: 1, optimizer: { kind: adam, learningRate: 0.05 } }
  teacher: { kind: learner, model: mlp-small, epochs: 40 }
  privacy: { mechanism: dpSgd, epsilon: 20, unit: record, dpSgd: { samplingRate: 0.2, stepsPerRound: 20, learningRate: 0.1 } }
  schedule: { rounds: 2, minClients: 3, quorum: 3 }
clients:
  groups: [{ count: 3, model: softmax-regression }]
  data: { source: synthetic, size: 300, seed: 5, centerSeed: 3 }
  baseline: false
`,
      'private-training.yaml',
    );
    const { task } = scenario;
    const result = await runSimulation({ scenario, data: await loadScenarioData(scenario, '.'), engine, random: (party) => new InsecureSeededRandom(deriveSeed(11, 'insecure', party)), events: { emit: () => undefined } });
    expect(result.clients.flatMap(({ error }) => error ?? [])).toEqual([]);
    expect(result).toMatchObject({ reason: 'rounds-done', release: { mechanism: 'dpSgd', rows: 100, noise: { clippingNorm: 1, samplingRate: 0.2, steps: 20 } } });
    for (const { summary } of result.clients) {
      expect(summary).toMatchObject({ contributedRounds: 2 });
      expect(summary!.epsilonSpent).toBeLessThanOrEqual(20);
      expect(summary!.epsilonSpent).toBeGreaterThan(19);
    }
    // Three classes: a third by chance.
    expect(result.rounds.at(-1)!.teacherAccuracy).toBeGreaterThan(0.6);
    const statement = buildStatement({ trustMode: 'sealed', parameters: result.release, delta: task.privacy.delta as Delta, ledger: [1, 2].map(() => chargedRelease(result.release)) });
    expect(statement).toMatchObject({ claim: 'privateTraining', unit: 'record', stepsSoFar: 40, rowsPerRelease: 100 });
  });
});
