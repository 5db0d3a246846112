/** Clients that vanish in the middle of a round, whole simulations: the sums of those who stay are exact, and the run goes on. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type * as contributionModule from '../../client/participant/contribution.ts';
import type * as contributionsModule from '../../server/coordinator/contributions.ts';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../simulations/load-scenario.ts';
import { Faults } from '../../simulations/network/faults.ts';
import { runSimulation, type SimulationResult } from '../../simulations/run-simulation.ts';
import { parseScenario, type Scenario } from '../../simulations/scenario.ts';

/** What every client handed to the masks, and what came out for the teacher, in order. */
const inputs: Int32Array[] = [];
const sums: { readonly sum: Int32Array; readonly survivors: number }[] = [];
vi.mock(import('../../client/participant/contribution.ts'), async (original) => {
  const real: typeof contributionModule = await original();
  return {
    ...real,
    contributionGrid: (request) => {
      const grid = real.contributionGrid(request);
      inputs.push(grid);
      return grid;
    },
  };
});
vi.mock(import('../../server/coordinator/contributions.ts'), async (original) => {
  const real: typeof contributionsModule = await original();
  return {
    ...real,
    consensusOfSum: (sum, survivors, ...rest) => {
      sums.push({ sum, survivors });
      return real.consensusOfSum(sum, survivors, ...rest);
    },
  };
});

let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
});
afterAll(() => engine.dispose());

const clients = 30;
function scenarioOf({ quorum = 22, trustMode = 'secure-aggregation', mechanism = 'discreteGaussian, epsilon: 50', faults = 'dropoutRate: 0.2', schedule = '' } = {}): Scenario {
  return parseScenario(
    `
scenario: test
task:
  task: test
  seed: 3
  data: { numClasses: 3, exampleShape: [8] }
  transferSet: { source: synthetic, size: 20, seed: 7 }
  evaluationSet: { source: synthetic, size: 60, seed: 8 }
  teacher: { kind: learner, model: softmax-regression, epochs: 2 }
  student: { model: softmax-regression, pretrainEpochs: 1, digestEpochs: 1, revisitEpochs: 1 }
  privacy: { trustMode: ${trustMode}, mechanism: ${mechanism} }
  schedule: { rounds: 2, minClients: ${clients}, quorum: ${quorum} ${schedule} }
clients:
  groups: [{ count: ${clients}, model: softmax-regression }]
  data: { source: synthetic, size: 300, seed: 9 }
  baseline: false
faults: { ${faults} }
`,
    'test.yaml',
  );
}

async function simulate(scenario: Scenario, on = engine): Promise<{ result: SimulationResult; events: RunEvent[] }> {
  inputs.length = sums.length = 0;
  const events: RunEvent[] = [];
  const data = await loadScenarioData(scenario, '.');
  const result = await runSimulation({ scenario, data, engine: on, random: (party) => new InsecureSeededRandom(deriveSeed(5, 'insecure', party)), events: { emit: (event) => events.push(event) } });
  return { result, events };
}

let before: RunEvent[] | undefined;

describe('clients that vanish', () => {
  it('do so in several stages, a fifth of them in each round; what is summed up is exact, and they come back', async () => {
    const { result, events } = await simulate(scenarioOf());
    expect(result.reason).toBe('rounds-done');
    expect(result.clients.flatMap(({ error }) => error ?? [])).toEqual([]);
    const vanished = events.filter(({ event }) => event === 'vanished');
    expect(vanished.filter(({ round }) => round === 1)).toHaveLength(6);
    expect(new Set(vanished.map(({ stage }) => stage)).size).toBeGreaterThanOrEqual(4);
    expect(vanished.filter(({ round }) => round === 2).length).toBeGreaterThan(0);
    // Who vanished before its masked input was there is not in the sum; who vanished later is.
    const early = vanished.filter(({ round, stage }) => round === 1 && ['advertiseKeys', 'shareKeys', 'maskedInput'].includes(String(stage)));
    expect(early.length).toBeGreaterThan(0);
    expect(early.length).toBeLessThan(6);
    expect(result.rounds[0]!.contributions).toBe(clients - early.length);
    const names = new Set(vanished.filter(({ round }) => round === 1).map(({ party }) => party));
    for (const { name, summary } of result.clients) if (names.has(name)) expect(summary!.contributedRounds).toBeGreaterThan(0);
    before = events;
  });

  it('leave sums that are exactly those of the inputs that arrived, and the same events again', async () => {
    const { events } = await simulate(scenarioOf());
    expect(events).toEqual(before ?? events);
    const arrived = [1, 2].map((round) => new Set(events.filter((event) => event.event === 'contribution' && event['stage'] === 'maskedInput' && event['round'] === round).map((event) => event['client'])));
    expect(sums.map(({ survivors }) => survivors)).toEqual(arrived.map(({ size }) => size));
    // An input is made when shares have come, in the order of arrival of nobody in particular: those that never arrived are at most the clients that vanished in that stage.
    const lost = events.filter((event) => event.event === 'vanished' && event['stage'] === 'maskedInput').length;
    expect(inputs.length - arrived[0]!.size - arrived[1]!.size).toBe(lost);
    const first = inputs.slice(0, arrived[0]!.size + events.filter((event) => event.event === 'vanished' && event['stage'] === 'maskedInput' && event['round'] === 1).length);
    const missing = first.length - arrived[0]!.size;
    const total = new Int32Array(sums[0]!.sum.length);
    for (const input of first) input.forEach((value, i) => (total[i]! += value));
    // Without the inputs of those who vanished with theirs: at most one in this seed, so it can be found by trying.
    const candidates = missing === 0 ? [new Int32Array(total.length)] : first;
    expect(missing).toBeLessThanOrEqual(1);
    expect(candidates.filter((left) => sums[0]!.sum.every((value, i) => value === total[i]! - left[i]!))).toHaveLength(1);
  });

  it('vanish from sealed rounds as well', async () => {
    const { result, events } = await simulate(scenarioOf({ trustMode: 'sealed', mechanism: 'none' }));
    expect(result.reason).toBe('rounds-done');
    expect(events.filter(({ event, round }) => event === 'vanished' && round === 1)).toHaveLength(6);
    expect(result.rounds[0]!.contributions).toBe(24);
  });

  it('are refused when no round could have its quorum any more', () => {
    expect(() => scenarioOf({ quorum: 25 })).toThrow(expect.objectContaining({ code: 'config-invalid', field: 'faults.dropoutRate' }) as Error);
  });
});

describe('a client that fails', () => {
  it('is named with the cause, and the others go on without it', async () => {
    const broken: ComputeEngine = {
      ...engine,
      open: async (source, seed) => {
        const model = await engine.open(source, seed);
        if (seed !== deriveSeed(deriveSeed(3, 'student', 'client-7'), 'weights')) return model;
        let fits = 0;
        return { summary: model.summary, predict: (examples) => model.predict(examples), save: () => model.save(), load: (saved) => model.load(saved), dispose: () => model.dispose(), fit: (data, options) => (++fits === 1 ? model.fit(data, options) : Promise.reject(new Error('out of memory'))) };
      },
    };
    const { result } = await simulate(scenarioOf({ faults: '' }), broken);
    expect(result.reason).toBe('rounds-done');
    expect(result.rounds.map(({ contributions }) => contributions)).toEqual([29, 29]);
    const failed = result.clients.filter(({ error }) => error !== undefined);
    expect(failed.map(({ name, error }) => [name, error!.message])).toEqual([['client-7', 'out of memory']]);
  });
});

describe('a fault plan', () => {
  const plan = { dropoutRate: 0.1, awayMs: 1, stragglers: { share: 0.25, factor: 4 } };
  it('draws other clients in each round, the same ones again for the same seed, and slow ones for ever', () => {
    const stages = ['a', 'b', 'c'];
    const [faults, again, other] = [new Faults(plan, 100, stages, 1), new Faults(plan, 100, stages, 1), new Faults(plan, 100, stages, 2)];
    expect(faults.dropouts(1).size).toBe(10);
    expect([...faults.dropouts(2)]).not.toEqual([...faults.dropouts(1)]);
    expect([...again.dropouts(2)]).toEqual([...faults.dropouts(2)]);
    expect([...other.dropouts(2)]).not.toEqual([...faults.dropouts(2)]);
    const slow = Array.from({ length: 100 }, (_, client) => faults.slowness(client));
    expect(slow.filter((slowness) => slowness === 4)).toHaveLength(25);
    expect(slow.filter((slowness) => slowness === 1)).toHaveLength(75);
  });

  it('breaks a connection once a round, at the message of its stage, and slows every message of a slow client', () => {
    const faults = new Faults({ ...plan, stragglers: { share: 1, factor: 4 } }, 1, ['a'], 1);
    const always = new Faults({ ...plan, dropoutRate: 1, stragglers: { share: 1, factor: 4 } }, 1, ['a'], 1);
    const message = { direction: 'to-coordinator', kind: 'event', event: 'upload-begin', bytes: 1, begins: { round: 1, stage: 'a' } } as const;
    const steady = () => ({ delayMs: 10 });
    expect(faults.network(0, steady)(message)).toEqual({ delayMs: 40 });
    const network = always.network(0, steady);
    expect(network({ ...message, begins: { round: 1, stage: 'b' } })).toEqual({ delayMs: 40 });
    expect(network(message)).toEqual({ delayMs: 40, breaksConnection: true, awayMs: 1 });
    expect(network(message)).toEqual({ delayMs: 40 });
    expect(network({ ...message, begins: { round: 2, stage: 'a' } })).toMatchObject({ breaksConnection: true });
  });
});
