/**
 * What privacy costs a training step: a plain step and private ones, in turns within one run, on the same examples. Prints medians of elapsed and of
 * processor time with quartiles, and the median over the rounds of each one's time over the plain step's of the same round.
 *
 *     npx tsx bench/compute/private.ts [--engine onnx] [--models MLP,CNN] [--batch 256] [--rows 4096] [--rounds 15] [--steps 16]
 *
 * `private` is all of it: Poisson batches (so that sizes vary about `--batch`), clipped gradients, noise, optimizer. `without noise` leaves the noise out. `one by
 * one` computes the gradient of each example by itself, as an engine without rules for batches would (fewer rounds).
 */
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type { OpenModel } from '../../shared/compute/engine.ts';
import { type EnginePreference, selectEngine } from '../../shared/compute/select-engine.ts';
import { systemRandom } from '../../shared/node/system-random.ts';
import { benchModels, gaussianExamples, numClasses } from '../../simulations/measure/models.ts';
import { spread } from '../../simulations/measure/statistics.ts';

const { values: flags } = parseArgs({
  options: {
    engine: { type: 'string', default: 'onnx' },
    models: { type: 'string', default: 'MLP,CNN' },
    batch: { type: 'string', default: '256' },
    rows: { type: 'string', default: '4096' },
    rounds: { type: 'string', default: '15' },
    steps: { type: 'string', default: '16' },
  },
});
const [batch, rows, rounds, steps] = [Number(flags.batch), Number(flags.rows), Number(flags.rounds), Number(flags.steps)];
const examples = gaussianExamples(rows);
const hard = { examples, labels: Int32Array.from({ length: rows }, (_, i) => i % numClasses) };
const common = { loss: { distance: 'kl', temperature: 1, alpha: 1 }, optimizer: { kind: 'adam', learningRate: 0.001 }, seed: 1 } as const;

/** Milliseconds of one step. */
interface Time {
  readonly elapsed: number;
  readonly processor: number;
}

async function timed(work: () => Promise<{ readonly steps: number }>): Promise<Time> {
  const [start, used] = [performance.now(), process.cpuUsage()];
  const done = await work();
  const { user, system } = process.cpuUsage(used);
  return { elapsed: (performance.now() - start) / done.steps, processor: (user + system) / 1000 / done.steps };
}

function privately(model: OpenModel, noiseMultiplier: number, microBatchSize?: number) {
  return () => model.fitPrivately!({ hard }, { ...common, steps: microBatchSize === 1 ? 2 : steps, samplingRate: batch / rows, clippingNorm: 1, noiseMultiplier, random: systemRandom, ...(microBatchSize === undefined ? {} : { microBatchSize }) });
}

const engine = await selectEngine(flags.engine as EnginePreference);
console.log(`${engine.name}, batches of ${batch} of ${rows} records; ${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores with a load of ${loadavg()[0]!.toFixed(1)}, Node ${process.versions.node}`);
console.log('| model | step | ms (quartiles) | processor ms (quartiles) | elapsed / plain | processor / plain |');
console.log('| --- | --- | ---: | ---: | ---: | ---: |');
for (const { name, source } of benchModels().filter((model) => flags.models.split(',').includes(model.name))) {
  const model = await engine.open(source, 1);
  const works: Record<string, () => Promise<{ readonly steps: number }>> = {
    plain: () => model.fit({ hard }, { ...common, epochs: Math.max(1, Math.round((steps * batch) / rows)), batchSize: batch }),
    private: privately(model, 1),
    'private, without noise': privately(model, 0),
    'private, one by one': privately(model, 1, 1),
  };
  const times = new Map<string, Time[]>(Object.keys(works).map((work) => [work, []]));
  for (let round = -1; round < rounds; round++) {
    for (const [work, run] of Object.entries(works)) {
      if (work === 'private, one by one' && round % 5 !== 0) continue;
      const time = await timed(run);
      // The first round compiles.
      if (round >= 0) times.get(work)!.push(time);
    }
  }
  const plain = times.get('plain')!;
  for (const [work, measured] of times) {
    const cell = (part: keyof Time) => {
      const { median, quartiles } = spread(measured.map((time) => time[part]));
      return `${median.toPrecision(3)} (${quartiles.map((value) => value.toPrecision(3)).join(' to ')})`;
    };
    const ratio = (part: keyof Time) => {
      const every = measured.length === plain.length ? 1 : 5;
      return spread(measured.map((time, i) => time[part] / plain[i * every]![part])).median.toFixed(2);
    };
    console.log(`| ${name} | ${work} | ${cell('elapsed')} | ${cell('processor')} | ${ratio('elapsed')} | ${ratio('processor')} |`);
  }
  await model.dispose();
}
await engine.dispose();
