/** Experiments to report: local noise, records' votes and private training at three epsilons, beside ways of learning without a guarantee. Made up, but consistent. */
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { chargedRelease } from '../../../shared/privacy/ledger.ts';
import { planRelease, type ReleasePlanRequest } from '../../../shared/privacy/release.ts';
import { buildStatement, type PrivacyStatement } from '../../../shared/privacy/statement.ts';
import type { Delta } from '../../../shared/types/units.ts';
import type { PointResult } from '../../../simulations/experiment/result.ts';
import type { ModelQuality, Outcome } from '../../../simulations/outcome.ts';
import type { Experiment } from '../../../simulations/report/experiment-data.ts';

const delta = 1e-5 as Delta;
const rounds = 4;
const clients = 8;
const testExamples = 1000;

type Request = Pick<ReleasePlanRequest, 'mechanism'> & Partial<ReleasePlanRequest>;

function statement(request: Request, trustMode: 'sealed' | 'secure-aggregation' = 'sealed'): PrivacyStatement {
  const parameters = planRelease({ outputKind: 'probabilities', rows: 200, columns: 10, gridStep: 1 / 4096, delta, releases: rounds, ...request });
  const secureAggregation = trustMode === 'sealed' ? null : { minSurvivors: 7, maxCorrupt: 1 };
  return buildStatement({ trustMode, parameters, secureAggregation, delta, ledger: Array.from({ length: rounds }, () => chargedRelease(parameters)) });
}

function quality(accuracy: number, generator: SeededGenerator): ModelQuality {
  const counts = Array.from({ length: 15 }, (_, bin) => (bin < 2 ? 0 : Math.round(6 + 0.35 * (bin - 2) ** 2.1 + 8 * generator.uniform())));
  counts[14]! += testExamples - counts.reduce((sum, count) => sum + count, 0);
  const reliability = counts.map((count, bin) => {
    const meanConfidence = (bin + 0.5) / 15;
    return { low: bin / 15, high: (bin + 1) / 15, count, meanConfidence: count === 0 ? null : meanConfidence, accuracy: count === 0 ? null : Math.max(0, Math.min(1, meanConfidence - 0.12 * (1 - accuracy) * 4 * meanConfidence + 0.03 * generator.gaussian())) };
  });
  const calibrationError = reliability.reduce((sum, { count, meanConfidence, accuracy: right }) => sum + (count / testExamples) * Math.abs((right ?? 0) - (meanConfidence ?? 0)), 0);
  return { accuracy, nll: 1.2 - accuracy, calibrationError, reliability };
}

interface Kind {
  readonly accuracy: number;
  readonly statement: PrivacyStatement | null;
  readonly hasModel?: boolean;
  readonly hasClients?: boolean;
  readonly bytes: number;
}

export function sampleOutcome({ accuracy, statement: stated, hasModel = true, hasClients = true, bytes }: Kind, seed: number): Outcome {
  const generator = new SeededGenerator(seed * 1000 + Math.round(accuracy * 100));
  const near = (value: number, spread: number) => Math.max(0.05, Math.min(0.999, Math.round((value + spread * generator.gaussian()) * 1000) / 1000));
  const final = near(accuracy, 0.012);
  return {
    reason: 'rounds-done',
    final: hasModel ? quality(final, generator) : null,
    clients: hasClients ? Array.from({ length: clients }, (_, i) => ({ name: `client-${i + 1}`, model: i % 2 === 0 ? 'mlp-small' : 'cnn-small', privateRecords: 250, accuracy: near(accuracy - 0.03, 0.03), nll: 0.6, localOnlyAccuracy: hasModel ? near(0.68, 0.05) : null, error: null })) : [],
    rounds: hasClients ? Array.from({ length: rounds + 1 }, (_, round) => ({ round, contributions: round === 0 ? 0 : clients, accuracy: hasModel && round > 0 ? near(final - 0.25 / round + 0.25 / rounds, 0.008) : null, meanClientAccuracy: near(accuracy - 0.03 - 0.2 / (round + 1) + 0.2 / (rounds + 1), 0.008), bytesUp: (bytes * round) / rounds, bytesDown: (bytes * round) / rounds })) : [],
    bytesUp: bytes,
    bytesDown: bytes,
    statement: stated,
  };
}

const epsilons = [1, 4, 16];
const record = { votes: true, shards: 25 };
const kinds: readonly (readonly [label: string, epsilon: number | null, mechanism: string, kind: Kind])[] = [
  ['no noise', null, 'none', { accuracy: 0.89, statement: statement({ mechanism: 'none' }), bytes: 1.3e7 }],
  ...epsilons.map((epsilon, i) => ['local noise', epsilon, 'gaussian', { accuracy: [0.12, 0.31, 0.62][i]!, statement: statement({ mechanism: 'gaussian', epsilon }), bytes: 6.4e6 }] as const),
  ...epsilons.map((epsilon, i) => ['votes of records', epsilon, 'discreteGaussian', { accuracy: [0.58, 0.78, 0.84][i]!, statement: statement({ mechanism: 'discreteGaussian', epsilon, shares: 6, clients: 8, ...record }, 'secure-aggregation'), bytes: 9.1e6 }] as const),
  ...epsilons.map((epsilon, i) => ['private training', epsilon, 'dpSgd', { accuracy: [0.7, 0.8, 0.83][i]!, statement: statement({ mechanism: 'dpSgd', epsilon, privateTraining: { clippingNorm: 1, samplingRate: 0.05, steps: 50 } }), bytes: 6.4e6 }] as const),
  ['centralized', null, 'none', { accuracy: 0.95, statement: null, hasClients: false, bytes: 0 }],
  ['local only', null, 'none', { accuracy: 0.71, statement: null, hasModel: false, bytes: 0 }],
];

function results(seeds: readonly number[]): PointResult[] {
  return kinds.flatMap(([label, epsilon, mechanism, kind], position) =>
    seeds.map((seed, i): PointResult => {
      const index = position * seeds.length + i;
      const line = { format: 'fedstill-result/1' as const, point: (index + 256).toString(16).padStart(16, '0'), index, seed, case: label, settings: { 'task.privacy.mechanism': mechanism, 'task.privacy.epsilon': epsilon } };
      return label === 'local noise' && epsilon === 1 && seed === 3 ? { ...line, error: { code: 'quorum-missed', message: 'Round 2 had 3 of 5 contributions.' } } : { ...line, outcome: sampleOutcome(kind, seed) };
    }),
  );
}

export const sampleExperiment: Experiment = {
  name: 'privacy-accuracy',
  directory: 'runs/privacy-accuracy',
  results: results([1, 2, 3]),
  isRunning: false,
  sweep: 'experiment: privacy-accuracy\nseeds: [1, 2, 3]\n',
  command: 'fedstill experiment simulations/experiments/privacy-accuracy.yaml --run runs/privacy-accuracy',
  environment: [['Machine', 'a processor, 2 cores, linux x64'], ['Software', 'fedstill 0.1.0, Node 20.19.0, compute engine onnx']],
};

/** A grid without cases, without privacy: many settings, one of which failed in a client. */
export const gridExperiment: Experiment = {
  name: 'temperature',
  directory: 'runs/temperature',
  command: null,
  isRunning: false,
  sweep: null,
  environment: [],
  results: [1, 2, 4, 8].flatMap((temperature, t) =>
    [0.1, 1].flatMap((alpha, a) =>
      [1, 2].map((seed, s): PointResult => {
        const outcome = sampleOutcome({ accuracy: 0.7 + 0.04 * t - 0.02 * t * t + 0.05 * a, statement: null, bytes: 2e6 }, seed);
        const failed = t === 0 && a === 0 && s === 0;
        return {
          format: 'fedstill-result/1', point: (t * 4 + a * 2 + s).toString(16).padStart(16, '0'), index: t * 4 + a * 2 + s, seed, case: null,
          settings: { 'task.distillation.temperature': temperature, 'clients.partition': { kind: 'dirichlet', alpha }, 'task.student.model': 'mlp-small' },
          outcome: failed ? { ...outcome, clients: outcome.clients.map((client, i) => (i === 2 ? { ...client, accuracy: null, nll: null, error: { code: 'disconnected', message: 'The connection broke.' } } : client)) } : outcome,
        };
      }),
    ),
  ),
};

/** One setting, one seed, hostile names, nothing measured. */
export const bareExperiment: Experiment = {
  name: '<script>alert(1)</script>\u001b[31m\u202e',
  directory: 'runs/bare',
  command: `fedstill experiment '"><img src=x onerror=alert(2)>'`,
  isRunning: false,
  sweep: '</pre><script>',
  environment: [['Machine', '</style><b>']],
  results: [{ format: 'fedstill-result/1', point: '0'.repeat(16), index: 0, seed: 7, case: '</title>&"\'<!--', settings: { 'task.task': '<i>' }, outcome: { reason: 'rounds-done', final: null, clients: [], rounds: [], bytesUp: 0, bytesDown: 0, statement: null } }],
};
