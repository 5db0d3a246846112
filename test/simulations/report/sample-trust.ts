/** Trust reports to render: a teacher with two students, and one model alone with nothing to compare. Made up, but consistent. */
import { calibrationError, confidences, equalWidthBins, maximumCalibrationError, uncertainty, wilsonInterval } from '../../../shared/evaluation/calibration.ts';
import { fidelity } from '../../../shared/evaluation/fidelity.ts';
import { largestChange, perClass, recallGap } from '../../../shared/evaluation/per-class.ts';
import { saliencyAgreement, saliencyMaps } from '../../../shared/evaluation/saliency.ts';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { softmax } from '../../../shared/distillation/temperature.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';
import type { TrustModel, TrustReport } from '../../../simulations/report/trust-data.ts';

const count = 40;
const classes = 3;
const labels = Int32Array.from({ length: count }, (_, i) => i % classes);

function logits(seed: number, skill: number): Matrix {
  const generator = new SeededGenerator(seed);
  return { rows: count, columns: classes, values: Float32Array.from({ length: count * classes }, (_, k) => generator.gaussian() + (labels[Math.floor(k / classes)] === k % classes ? skill : 0)) };
}
function maps(seed: number): Matrix {
  const generator = new SeededGenerator(seed);
  return saliencyMaps(Float32Array.from({ length: count * 12 }, () => generator.gaussian()), [4, 3, 1]);
}

function model(name: string, role: TrustModel['role'], seed: number, skill: number, teacher?: { readonly logits: Matrix; readonly maps: Matrix }): TrustModel {
  const own = logits(seed, skill);
  const probabilities = softmax(own);
  const known = confidences(probabilities, labels);
  const bins = equalWidthBins(known, 10);
  const right = known.correct.reduce((sum, one) => sum + one, 0);
  const quality = perClass(own, labels);
  return {
    name,
    role,
    architecture: `mlp-${seed}`,
    path: `models/${seed}`,
    accuracy: right / count,
    interval: wilsonInterval(right, count),
    calibration: { error: calibrationError(bins), errorOfCalibrated: { mean: 0.05, percentile95: 0.09 }, adaptiveError: 0.08, maximumError: maximumCalibrationError(bins), negativeLogLikelihood: 0.6, brier: 0.3, bins },
    uncertainty: uncertainty(probabilities, known),
    classes: quality,
    recallGap: recallGap(quality),
    largestChange: teacher === undefined ? null : largestChange(quality, perClass(teacher.logits, labels)),
    fidelity: teacher === undefined ? null : fidelity(teacher.logits, own, labels),
    saliency: teacher === undefined ? null : saliencyAgreement(teacher.maps, maps(seed)),
    attack: { fgsm: [right / count / 2, 0], pgd: [right / count / 3, 0], zeroGradients: role === 'student' ? 1 : 0 },
    cost: { parameters: 1000 * seed, bytes: 4000 * seed, multiplications: role === 'teacher' ? null : 990 * seed, single: { median: 0.05 * seed, quartiles: [0.04, 0.5] }, batch: { size: 256, median: 12 * seed, quartiles: [11, 130] } },
  };
}

const teacher = { logits: logits(9, 2), maps: maps(9) };
export const sampleTrust: TrustReport = {
  format: 'fedstill-trust/1',
  createdAt: '2026-01-02T03:04:05.000Z',
  version: '0.1.0',
  command: 'fedstill trust student --teacher teacher --data mnist',
  machine: { cpu: 'a processor', cores: 2, node: '20.19.0', platform: 'linux x64', gradients: 'tfjs-wasm', engine: 'onnx' },
  data: { source: 'mnist:test', examples: count, available: 10_000, exampleShape: [4, 3, 1], numClasses: classes, inputRange: { low: 0, high: 1 } },
  settings: { seed: 1, bins: 10, epsilons: [0.05, 0.2], pgdSteps: 10, topShare: 0.1 },
  models: [model('teacher', 'teacher', 9, 2), model('client-1', 'student', 2, 1.5, teacher), model('client-1, alone', 'baseline', 3, 0.5, teacher)],
  pictures: [
    {
      position: 1234, label: 2, height: 4, width: 3, channels: 1, example: Array.from({ length: 12 }, (_, i) => i * 20),
      models: [null, 0.5, null].map((rankCorrelation, m) => ({ predicted: m, confidence: 0.9, rankCorrelation, map: Array.from({ length: 12 }, (_, i) => (i * 23 * (m + 1)) % 256) })),
    },
  ],
};

/** Hostile names, one model, one class that nobody has, no picture. */
export const lonelyTrust: TrustReport = {
  ...sampleTrust,
  data: { ...sampleTrust.data, source: '<b>&"\u202e' },
  models: [{ ...model('<script>alert(1)</script>\u001b[31m', 'student', 1, 1), classes: [{ support: count, recall: 1, interval: [0.9, 1], predicted: count, precision: 1 }, { support: 0, recall: null, interval: null, predicted: 0, precision: null }, { support: 0, recall: null, interval: null, predicted: 0, precision: null }], recallGap: null, uncertainty: { meanConfidence: 1, meanEntropy: 0, entropyWhenRight: 0, entropyWhenWrong: null, auroc: null } }],
  pictures: [],
};
