/** Ways around a client's own limits that a review found (docs/reviews/0001-local-privacy.md). Each failed before its fix. */
import { describe, expect, it } from 'vitest';
import { FederationError } from '../../shared/errors.ts';
import { digestOf } from '../../shared/crypto/digest.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { planRelease, releaseEvents } from '../../shared/privacy/release.ts';
import { buildStatement, renderStatement } from '../../shared/privacy/statement.ts';
import { formatEpsilon } from '../../shared/node/terminal.ts';
import type { Delta, Epsilon } from '../../shared/types/units.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../simulations/load-scenario.ts';
import { runSimulation } from '../../simulations/run-simulation.ts';
import { parseScenario } from '../../simulations/scenario.ts';
import { rejection, Scene } from '../client/harness.ts';

/** A participant that waits for what the coordinator does. */
async function waiting(scene: Scene): Promise<{ readonly stop: () => Promise<void> }> {
  scene.coordinator.autopilot = false;
  const controller = new AbortController();
  const ended = rejection(scene.participant().run(controller.signal));
  await scene.pass(10);
  return {
    stop: async () => {
      controller.abort(new Error('the test is over'));
      await scene.clock.runUntil(ended);
    },
  };
}

describe('a coordinator that takes contributions and says that they came too late', () => {
  it('gets no more of them than maxRounds', async () => {
    const scene = new Scene({ mechanism: 'none', epsilon: null, outputKind: 'probabilities', labelKind: 'probabilities', rounds: 9 }, { allowedMechanisms: ['none'], maxEpsilon: Infinity as Epsilon, maxRounds: 2 });
    scene.coordinator.onRequest = (event) => {
      if (event === 'upload-end') throw new FederationError('round-closed', 'Too late.');
    };
    const { stop } = await waiting(scene);
    const codes = [];
    for (let round = 1; round <= 4; round++) {
      const ack = await scene.coordinator.openRound();
      codes.push(ack?.ok === false ? ack.problem.code : 'ok');
      await scene.pass(100);
    }
    await stop();
    expect(codes).toEqual(['ok', 'ok', 'policy-refused', 'policy-refused']);
    expect(scene.coordinator.offered.size).toBe(2);
  });
});

describe('an announcement with less noise than the signed task promises', () => {
  it('is refused, also when the owner\'s own limit would allow it', async () => {
    const scene = new Scene({ rounds: 3, epsilon: 1 });
    const { stop } = await waiting(scene);
    const { release } = scene.coordinator;
    if (release.mechanism !== 'gaussian') throw new Error('the task has Gaussian noise');
    const weaker = { ...release, noise: { sigmaGrid: Math.floor(release.noise.sigmaGrid / 4) } };
    expect(await scene.coordinator.send('round', scene.coordinator.sign(1, { release: weaker as never }))).toMatchObject({ ok: false, problem: { code: 'context-mismatch' } });
    await scene.pass(100);
    expect(scene.ledger.entries()).toHaveLength(0);
    expect(await scene.coordinator.send('round', scene.coordinator.sign(1))).toEqual({ ok: true });
    await stop();
  });
});

describe('a refusal', () => {
  it('tells the coordinator its code, and neither the ledger nor the limits of its owner', async () => {
    const scene = new Scene({ rounds: 1, epsilon: 8 }, { maxEpsilon: 9.123 as Epsilon });
    const { stop } = await waiting(scene);
    await scene.ledger.charge({ task: 'other-task' as never, round: 1 as never, contribution: digestOf(new Uint8Array(2)), parameters: scene.coordinator.release, at: scene.clock.now() });
    const ack = await scene.coordinator.openRound();
    await stop();
    if (ack?.ok !== false) throw new Error('the round is accepted');
    expect(ack.problem.code).toBe('budget-exhausted');
    expect(JSON.stringify(ack.problem)).not.toMatch(/9\.123|epsilon|limit of|[0-9]\.[0-9]/);
    // The owner still learns why.
    expect(scene.named('round-refused')[0]?.['reason']).toMatch(/9\.123/);
  });
});

describe('an epsilon on a screen', () => {
  it('is never below the bound, however small', () => {
    expect(Number(formatEpsilon(1e-12))).toBeGreaterThanOrEqual(1e-12);
    expect(Number(formatEpsilon(0.001 + 5e-13))).toBeGreaterThanOrEqual(0.001 + 5e-13);
    expect(formatEpsilon(0.3)).toBe('0.3');
    expect(formatEpsilon(0)).toBe('0');
  });
});

describe('a statement', () => {
  it('counts rounds that were opened and given up: their clients were charged', async () => {
    const scenario = parseScenario(
      `
scenario: test
task:
  task: test
  data: { numClasses: 3, exampleShape: [8] }
  transferSet: { source: synthetic, size: 60, seed: 7 }
  teacher: { kind: learner, model: softmax-regression, epochs: 1 }
  student: { model: softmax-regression, pretrainEpochs: 1, digestEpochs: 1, revisitEpochs: 1 }
  schedule: { rounds: 3, minClients: 2, quorum: 2, roundDeadlineSeconds: 0.001, maxFailedRounds: 2 }
clients:
  groups: [{ count: 2, model: softmax-regression }]
  data: { source: synthetic, size: 40, seed: 9 }
`,
      'test.yaml',
    );
    const engine = await selectEngine('tfjs');
    const { rounds, opened } = await runSimulation({ scenario, data: await loadScenarioData(scenario, '.'), engine, random: (party) => new InsecureSeededRandom(deriveSeed(1, party)), events: { emit: () => undefined } });
    await engine.dispose();
    expect(rounds).toHaveLength(0);
    expect(opened).toBe(3);
  });

  it('claims nothing for noise from a seed', () => {
    const parameters = planRelease({ mechanism: 'gaussian', outputKind: 'probabilities', rows: 10, columns: 3, gridStep: 2 ** -10, epsilon: 4, delta: 1e-5, releases: 1 });
    const statement = buildStatement({ trustMode: 'sealed', parameters, delta: 1e-5 as Delta, ledger: [{ parameters, events: releaseEvents(parameters) }], isNoiseSeeded: true });
    expect(statement.claim).toBe('none');
    expect(renderStatement(statement)).toMatch(/NO DIFFERENTIAL PRIVACY[^]*seed/);
  });
});
