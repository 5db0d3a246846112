/** Reports to draw: a realistic run, and the same pulled to its edges. All numbers are made up. */
import type { ClientResult, NoisyResult, RunReport } from '../../../simulations/report/report-data.ts';

const ROUNDS = 8;

function curve(start: number, end: number, speed: number): { round: number; accuracy: number }[] {
  return Array.from({ length: ROUNDS + 1 }, (_, round) => ({ round, accuracy: Number((end - (end - start) * Math.exp(-speed * round) * (1 - 0.04 * (round % 2))).toFixed(4)) })).map((point) =>
    point.round === ROUNDS ? { ...point, accuracy: end } : point,
  );
}

export function sampleClient(name: string, model: string, parameterCount: number, classHistogram: readonly number[], localOnly: number, federated: number): ClientResult {
  return {
    name,
    model,
    parameterCount,
    privateRecords: classHistogram.reduce((sum, count) => sum + count, 0),
    classHistogram,
    localOnly,
    federated,
    byRound: curve(localOnly - 0.04, federated, 0.7),
    localOnlyByRound: curve(localOnly - 0.05, localOnly, 1.1),
    bytesUp: 320_000 + 1_812,
    bytesDown: 640_000 + 90_211,
    weightSharingBytes: parameterCount * 4 * 2 * ROUNDS,
  };
}

export const sampleNoisy: readonly NoisyResult[] = [
  {
    mechanism: 'gaussian',
    epsilon: 64,
    delta: 1e-5,
    meanNoiseStddev: 0.1713,
    federated: [0.7712, 0.6981, 0.8123, 0.6634],
    localOnly: [0.7421, 0.6612, 0.8034, 0.5903],
    teacher: 0.742,
    lesson: 'A weak promise still pays here: every client gains a little, and an epsilon of 64 promises hardly anything.',
    guarantee: 'PRIVACY STATEMENT\nUnit: client.',
  },
  {
    mechanism: 'gaussian',
    epsilon: 8,
    delta: 1e-5,
    meanNoiseStddev: 1.127,
    federated: [0.6312, 0.5512, 0.7221, 0.4633],
    localOnly: [0.7421, 0.6612, 0.8034, 0.5903],
    teacher: 0.314,
    lesson: 'With four clients the noise on the mean is larger than any probability: the teacher learns noise, and students that follow it lose.',
    guarantee: 'PRIVACY STATEMENT\nUnit: client.',
  },
  {
    mechanism: 'gaussian',
    epsilon: 1,
    delta: 1e-5,
    meanNoiseStddev: 8.402,
    federated: [0.5222, 0.4717, 0.6012, 0.3914],
    localOnly: [0.7421, 0.6612, 0.8034, 0.5903],
    teacher: 0.108,
    lesson: 'At epsilon 1 four clients cannot help each other; it takes thousands of them, or noise shared under secure aggregation.',
    guarantee: 'PRIVACY STATEMENT\nUnit: client.',
  },
];

export const sampleReport: RunReport = {
  title: 'Four clinics, one teacher',
  createdAt: '2026-03-14T09:26:53.589Z',
  command: 'npx fedstill demo --clients 4 --rounds 8 --seed 7',
  next: 'npx fedstill experiment examples/epsilon-sweep.yaml',
  machine: { cpu: 'Example CPU at 2.4 GHz', cores: 8, node: 'v20.19.0', platform: 'linux x64', engine: 'onnx' },
  task: { name: 'mnist-demo', seed: 7, rounds: ROUNDS, transferExamples: 1000, testExamples: 2000, numClasses: 10, dataset: 'MNIST', split: 'Dirichlet label skew, alpha 0.3' },
  clients: [
    sampleClient('north', 'small-cnn', 56_714, [212, 4, 31, 0, 88, 120, 2, 0, 41, 102], 0.7421, 0.8934),
    sampleClient('east', 'mlp-128', 101_770, [0, 301, 12, 44, 0, 9, 71, 160, 3, 0], 0.6612, 0.8713),
    sampleClient('south', 'small-cnn', 56_714, [58, 62, 90, 71, 49, 0, 83, 66, 77, 44], 0.8034, 0.9011),
    sampleClient('west', 'logistic', 7_850, [0, 0, 187, 260, 2, 31, 0, 0, 120, 0], 0.5903, 0.8245),
  ],
  teacher: { model: 'small-cnn', byRound: curve(0.31, 0.9123, 0.6), final: 0.9123 },
  centralized: { model: 'small-cnn', accuracy: 0.9581 },
  noisy: sampleNoisy,
  statement: [
    'PRIVACY STATEMENT: NO DIFFERENTIAL PRIVACY',
    'There is no differential privacy here: epsilon is infinite, because predictions are sent without noise.',
    'Whoever sees the predictions of a client may learn about its private records.',
    'Releases: 8 (probabilities, 1000 transfer rows x 10 classes per release, trust mode sealed; mechanism none).',
    'Not protected:',
    '  - that a client takes part, when, how often, how fast, and when it fails',
    '  - which model architecture it uses, if it tells',
    '  - metrics, sample counts or anything else that is sent beside the noised matrices',
    '  - what the teacher was trained on before the federation: its soft labels go to every client',
    '  - a person whose records are at several clients: each client counts on its own',
    '  - integrity: a malicious client can send any matrix',
    '  - the machine itself: swap, core dumps, and how long sampling the noise takes',
    '',
  ].join('\n'),
  timings: [
    { part: 'load data', seconds: 1.31 },
    { part: 'local only', seconds: 6.72 },
    { part: 'federation', seconds: 21.4 },
    { part: 'with noise, three times', seconds: 131 },
  ],
};

export const oneClient: RunReport = { ...sampleReport, title: 'One client', clients: sampleReport.clients.slice(0, 1), noisy: [] };
export const withoutTeacher: RunReport = {
  ...sampleReport,
  title: 'No teacher of its own',
  teacher: { model: 'none', byRound: [], final: null },
  noisy: sampleNoisy.map((result) => ({ ...result, teacher: null })),
};
export const twelveLongNames: RunReport = {
  ...sampleReport,
  title: 'Twelve hospitals with long names',
  clients: Array.from({ length: 12 }, (_, index) =>
    sampleClient(
      `Klinikum der Universität Nr. ${index + 1}, Abteilung für Radiologie und Nuklearmedizin`,
      'a-model-with-a-rather-long-name',
      56_714 * (index + 1),
      Array.from({ length: 10 }, (_label, label) => ((label * 7 + index * 3) % 10 < 4 ? 3 + ((label * 37 + index * 91) % 240) : 0)),
      0.48 + 0.03 * index,
      0.86 - 0.02 * ((index * 5) % 7),
    ),
  ),
  noisy: [64, 8, 1].flatMap((epsilon, order) =>
    ['gaussian', 'laplace'].map((mechanism, which) => ({
      mechanism,
      epsilon,
      delta: mechanism === 'laplace' ? 0 : 1e-6,
      meanNoiseStddev: 0.1 * 7 ** order + which,
      federated: Array.from({ length: 12 }, (_, index) => 0.8 - 0.2 * order - 0.1 * which - 0.01 * index),
      localOnly: Array.from({ length: 12 }, (_, index) => 0.48 + 0.03 * index),
      teacher: 0.8 - 0.3 * order,
      lesson: 'Twelve clients are still few.',
      guarantee: 'PRIVACY STATEMENT\nUnit: client.',
    })),
  ),
};
export const allEqual: RunReport = {
  ...sampleReport,
  title: 'Nothing changed',
  clients: sampleReport.clients.map((client) => ({
    ...client,
    localOnly: 0.5,
    federated: 0.5,
    byRound: client.byRound.map(({ round }) => ({ round, accuracy: 0.5 })),
    localOnlyByRound: client.localOnlyByRound.map(({ round }) => ({ round, accuracy: 0.5 })),
    bytesUp: 1000,
    bytesDown: 1000,
    weightSharingBytes: 2000,
  })),
  teacher: { model: 'small-cnn', byRound: [{ round: 0, accuracy: 0.5 }], final: 0.5 },
  centralized: { model: 'small-cnn', accuracy: 0.5 },
  noisy: [],
};
export const broken: RunReport = {
  ...sampleReport,
  title: 'Numbers that are none',
  clients: sampleReport.clients.map((client, index) => ({
    ...client,
    localOnly: index === 0 ? NaN : client.localOnly,
    federated: index === 1 ? NaN : client.federated,
    classHistogram: index === 2 ? [] : client.classHistogram,
    byRound: index === 1 ? [] : client.byRound,
    bytesUp: index === 3 ? 0 : client.bytesUp,
    bytesDown: index === 3 ? 0 : client.bytesDown,
    weightSharingBytes: index === 0 ? NaN : client.weightSharingBytes,
  })),
  centralized: { model: 'small-cnn', accuracy: NaN },
  noisy: [{ ...sampleNoisy[0]!, federated: [], localOnly: [NaN], teacher: NaN }, { ...sampleNoisy[1]!, epsilon: Infinity, delta: NaN }, { ...sampleNoisy[2]!, epsilon: 0 }],
};
export const nothing: RunReport = { ...sampleReport, title: 'No client at all', clients: [], noisy: [], teacher: { model: 'none', byRound: [], final: null }, timings: [], statement: '' };
export const hundredClients: RunReport = {
  ...sampleReport,
  title: 'A hundred clients',
  clients: Array.from({ length: 100 }, (_, index) => ({ ...sampleReport.clients[index % 4]!, name: `client-${index + 1}` })),
};
export const edgeCases: readonly RunReport[] = [oneClient, withoutTeacher, twelveLongNames, allEqual, broken, nothing, hundredClients];
