/** What a report shows: plain data, gathered by the demo or a simulation. Accuracies are shares in [0, 1], sizes are bytes. */

export interface RoundAccuracy {
  /** 0 is before the first round (after pretraining). */
  readonly round: number;
  readonly accuracy: number;
}

export interface ClientResult {
  readonly name: string;
  readonly model: string;
  readonly parameterCount: number;
  readonly privateRecords: number;
  /** Private records of each class; shown only where the report's reader owns all data, as in the demo. */
  readonly classHistogram: readonly number[];
  /** The same student, trained as long on the private records alone. */
  readonly localOnly: number;
  readonly federated: number;
  readonly byRound: readonly RoundAccuracy[];
  readonly localOnlyByRound: readonly RoundAccuracy[];
  readonly bytesUp: number;
  readonly bytesDown: number;
  /** What sharing this student's weights every round would have moved, up and down together. */
  readonly weightSharingBytes: number;
}

/** The same federation with noise, once per target epsilon. */
export interface NoisyResult {
  readonly mechanism: string;
  readonly epsilon: number;
  readonly delta: number;
  /** Standard deviation of the noise on one value of the mean over all clients, in units of a probability. */
  readonly meanNoiseStddev: number;
  readonly federated: readonly number[];
  readonly localOnly: readonly number[];
  readonly teacher: number | null;
  /** One plain sentence: what this row teaches. */
  readonly lesson: string;
  /** The privacy statement of this run in full: what its epsilon means and for whom. */
  readonly guarantee: string;
}

export interface RunReport {
  readonly title: string;
  /** ISO 8601. */
  readonly createdAt: string;
  /** The command that made this report. */
  readonly command: string;
  readonly next: string;
  readonly machine: { readonly cpu: string; readonly cores: number; readonly node: string; readonly platform: string; readonly engine: string };
  readonly task: { readonly name: string; readonly seed: number; readonly rounds: number; readonly transferExamples: number; readonly testExamples: number; readonly numClasses: number; readonly dataset: string; readonly split: string };
  readonly clients: readonly ClientResult[];
  readonly teacher: { readonly model: string; readonly byRound: readonly RoundAccuracy[]; readonly final: number | null };
  /** One model on all private records together: what no federation may do, shown as a bound. */
  readonly centralized: { readonly model: string; readonly accuracy: number };
  readonly noisy: readonly NoisyResult[];
  /** The privacy statement in full, as text. */
  readonly statement: string;
  /** Wall-clock seconds of the parts, in order. */
  readonly timings: readonly { readonly part: string; readonly seconds: number }[];
}
