/** What a trust report says, as plain data: `trust.json`. Docs: docs/trust.md. */
import type { AttackResult, InputRange } from '../../shared/evaluation/adversarial.ts';
import type { ReliabilityBin, Uncertainty } from '../../shared/evaluation/calibration.ts';
import type { Fidelity } from '../../shared/evaluation/fidelity.ts';
import type { ClassQuality, RecallGap } from '../../shared/evaluation/per-class.ts';
import type { SaliencyAgreement } from '../../shared/evaluation/saliency.ts';

export interface TrustReport {
  readonly format: 'fedstill-trust/1';
  /** ISO 8601. */
  readonly createdAt: string;
  readonly version: string;
  /** Command line that repeats it. */
  readonly command: string;
  readonly machine: { readonly cpu: string; readonly cores: number; readonly node: string; readonly platform: string; /** What computed gradients and predictions. */ readonly gradients: string; /** What the latencies are of. */ readonly engine: string };
  readonly data: {
    readonly source: string;
    /** Examples that everything is measured on, drawn from those available. */
    readonly examples: number;
    readonly available: number;
    readonly exampleShape: readonly number[];
    readonly numClasses: number;
    /** What an epsilon is a share of, and where attacks end. */
    readonly inputRange: InputRange;
  };
  readonly settings: {
    readonly seed: number;
    readonly bins: number;
    readonly epsilons: readonly number[];
    readonly pgdSteps: number;
    /** Share of the places of a map that count as its top. */
    readonly topShare: number;
  };
  /** The teacher first, where there is one. */
  readonly models: readonly TrustModel[];
  /** Examples with the maps of every model; empty where they cannot be drawn or are not wanted. */
  readonly pictures: readonly Picture[];
}

export interface TrustModel {
  readonly name: string;
  readonly role: 'teacher' | 'student' | 'baseline';
  /** The name in the model's own file, e.g. `mlp-small`. */
  readonly architecture: string;
  readonly path: string;
  readonly accuracy: number;
  /** Wilson's 95 % interval. */
  readonly interval: readonly [low: number, high: number];
  readonly calibration: {
    readonly error: number;
    /** What a perfectly calibrated model with the same confidences shows on as many examples. */
    readonly errorOfCalibrated: { readonly mean: number; readonly percentile95: number };
    readonly adaptiveError: number;
    readonly maximumError: number;
    readonly negativeLogLikelihood: number;
    readonly brier: number;
    readonly bins: readonly ReliabilityBin[];
  };
  readonly uncertainty: Uncertainty;
  readonly classes: readonly ClassQuality[];
  readonly recallGap: RecallGap | null;
  /** Against the teacher; null for the teacher, and without one. */
  readonly largestChange: { readonly class: number; readonly change: number } | null;
  readonly fidelity: Fidelity | null;
  readonly saliency: SaliencyAgreement | null;
  readonly attack: AttackResult;
  readonly cost: {
    readonly parameters: number;
    readonly bytes: number;
    /** For one example; null for layers that are not counted. */
    readonly multiplications: number | null;
    /** Milliseconds, median and quartiles. */
    readonly single: Latency;
    readonly batch: Latency & { readonly size: number };
  };
}

export interface Latency {
  readonly median: number;
  readonly quartiles: readonly [number, number];
}

export interface Picture {
  /** Position in the source. */
  readonly position: number;
  readonly label: number;
  /** Shape [height, width] of every map; the example has one or three channels. */
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  /** Values scaled to [0, 255] by the input range. */
  readonly example: readonly number[];
  /** In the order of the models. */
  readonly models: readonly { readonly predicted: number; readonly confidence: number; /** With the teacher's map. */ readonly rankCorrelation: number | null; /** Scaled to [0, 255] by the largest value of the map. */ readonly map: readonly number[] }[];
}
