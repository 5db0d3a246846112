/**
 * How long an engine takes for a training step, a prediction, or a step with private gradients, as a caller sees it: shuffling, cutting batches and the
 * optimizer count. Contestants take turns in short rounds, so that a machine that slows down for a while slows down all of them.
 */
import type { ComputeEngine, DistillationLoss, FitOptions, OpenModel, PrivateFitOptions, TrainingData } from '../../shared/compute/engine.ts';
import { systemRandom } from '../../shared/node/system-random.ts';
import { type Examples, exampleSize } from '../../shared/types/matrix.ts';
import { type BenchModel, exampleShape, gaussianExamples, numClasses } from './models.ts';
import { type Spread, spread } from './statistics.ts';

/**
 * - `train`: a step of Adam on cross-entropy, `batch` of 2048 examples.
 * - `predict`: logits of `batch` examples.
 * - `private`: a step of DP-SGD with Adam on a Poisson batch of `batch` examples expected.
 */
export type WorkKind = 'train' | 'predict' | 'private';

export interface Work {
  readonly kind: WorkKind;
  readonly model: BenchModel;
  readonly batch: number;
}

/** Milliseconds of one step or prediction. */
export interface Time {
  readonly elapsed: number;
  /** Of all threads of the process. */
  readonly processor: number;
}

/** Takes part in every round of the works that it has. */
export interface Contestant {
  readonly name: string;
  /** Warm, and ready to be timed for about `budgetMs` at a time. Undefined when this contestant does no such work. */
  prepare(work: Work, budgetMs: number): Promise<Timed | undefined>;
  dispose(): Promise<void>;
}

export interface Timed {
  run(): Promise<Time>;
  dispose(): Promise<void>;
}

export interface Result {
  readonly work: Work;
  readonly contestant: string;
  readonly elapsed: Spread;
  readonly processor: Spread;
  /** This contestant's time over the first one's, round by round. */
  readonly elapsedRatio: Spread;
  readonly processorRatio: Spread;
}

const trainingExamples = 2048;
const loss: DistillationLoss = { distance: 'kl', temperature: 2, alpha: 0 };
const optimizer = { kind: 'adam', learningRate: 0.001 } as const;

/** An engine in this thread. */
export function engineContestant(engine: ComputeEngine, name = engine.name): Contestant {
  const inputs = new Map<number, Examples>();
  const examples = (count: number) => {
    const known = inputs.get(count) ?? gaussianExamples(count);
    inputs.set(count, known);
    return known;
  };
  return {
    name,
    async prepare({ kind, model: { source }, batch }, budgetMs) {
      const model = await engine.open(source, 1);
      const once = timedWork(kind, model, batch, examples(kind === 'predict' ? batch : trainingExamples));
      if (once === undefined) return undefined;
      // Three times, longer each time: the first steps compile the graph, later ones the JavaScript around it.
      let repetitions = 2;
      for (let i = 0; i < 3; i++) {
        const warm = await once(repetitions);
        repetitions = Math.max(1, Math.min(Math.round(budgetMs / Math.max(warm.elapsed, 0.01)), 20_000));
      }
      return { run: () => once(repetitions), dispose: () => model.dispose() };
    },
    dispose: () => engine.dispose(),
  };
}

/** Undefined when the engine does no such work. */
function timedWork(kind: WorkKind, model: OpenModel, batch: number, examples: Examples): ((repetitions: number) => Promise<Time>) | undefined {
  const data: TrainingData = { hard: { examples, labels: Int32Array.from({ length: examples.count }, (_, i) => i % numClasses) } };
  switch (kind) {
    case 'predict':
      return (repetitions) =>
        timed(async () => {
          for (let i = 0; i < repetitions; i++) await model.predict(examples);
          return repetitions;
        });
    case 'train':
      return (repetitions) => timed(() => trainSteps(model, data, batch, repetitions));
    case 'private': {
      if (model.fitPrivately === undefined) return undefined;
      const options: Omit<PrivateFitOptions, 'steps'> = { samplingRate: batch / examples.count, clippingNorm: 1, noiseMultiplier: 1, loss, optimizer, seed: 1, random: systemRandom };
      return (repetitions) => timed(async () => (await model.fitPrivately!(data, { ...options, steps: repetitions })).steps);
    }
  }
}

/** About this many steps, in one fit; gives how many they were. */
async function trainSteps(model: OpenModel, data: TrainingData, batchSize: number, steps: number): Promise<number> {
  const stepsInPass = trainingExamples / batchSize;
  const options: FitOptions = { epochs: Math.max(1, Math.round(steps / stepsInPass)), batchSize, seed: 1, loss, optimizer };
  const report = await model.fit(steps < stepsInPass ? firstExamples(data, steps * batchSize) : data, options);
  return report.steps;
}

function firstExamples({ hard }: TrainingData, count: number): TrainingData {
  const { examples, labels } = hard!;
  return { hard: { examples: { ...examples, count, values: examples.values.subarray(0, count * exampleSize(exampleShape)) }, labels: labels.subarray(0, count) } };
}

async function timed(work: () => Promise<number>): Promise<Time> {
  const [start, processorStart] = [performance.now(), process.cpuUsage()];
  const repetitions = await work();
  const { user, system } = process.cpuUsage(processorStart);
  return { elapsed: (performance.now() - start) / repetitions, processor: (user + system) / 1000 / repetitions };
}

export interface BenchOptions {
  readonly rounds: number;
  /** Milliseconds of one contestant in one round, about. */
  readonly budgetMs: number;
}

/** One work, all contestants in turns; those that do no such work are left out. */
export async function compare(work: Work, contestants: readonly Contestant[], { rounds, budgetMs }: BenchOptions): Promise<Result[]> {
  const ready: { readonly name: string; readonly timed: Timed; readonly times: Time[] }[] = [];
  for (const contestant of contestants) {
    const prepared = await contestant.prepare(work, budgetMs);
    if (prepared !== undefined) ready.push({ name: contestant.name, timed: prepared, times: [] });
  }
  for (let round = 0; round < rounds; round++) {
    for (const { timed: one, times } of ready) times.push(await one.run());
  }
  for (const { timed: one } of ready) await one.dispose();
  return ready.map(({ name, times }) => ({
    work,
    contestant: name,
    elapsed: spread(times.map(({ elapsed }) => elapsed)),
    processor: spread(times.map(({ processor }) => processor)),
    // The ratio of each round, then the median: a round that was slow as a whole counts as much as any.
    elapsedRatio: spread(times.map(({ elapsed }, round) => elapsed / ready[0]!.times[round]!.elapsed)),
    processorRatio: spread(times.map(({ processor }, round) => processor / ready[0]!.times[round]!.processor)),
  }));
}

/** Three digits that matter: `0.27`, `3.02`, `26.7`, `118`. */
export function threeDigits(value: number): string {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}
