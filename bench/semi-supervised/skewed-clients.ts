/**
 * Few and unlike owners: the demo's five clients (Dirichlet 0.5 over 5,000 MNIST records, so that some have no record of some classes), 3,000 public
 * images, five small students. What each kind of votes leaves of the students at record-level privacy, beside local training alone and beside
 * the same students with the true labels of the public images.
 *
 *     npx tsx bench/semi-supervised/skewed-clients.ts [--seeds 1,2,3] [--rows nearest:1:100,nearest:0.5:50,nearest:0.25:50,shards:4:60]
 *
 * A row is VOTES:EPSILON:QUERIES, as in `headline.ts`; `shards`: 40 a client, which abstain below a confidence of 0.8. At least 4 of 5 clients are in the
 * sum and at most 1 of them adds no noise; all 5 are. A student trains on its own records (6 passes), then four times on the labels (2 passes) and on its
 * records again (1 pass), at last on the labels (2 passes). Measured on the first 2,000 test images.
 */
import { parseArgs } from 'node:util';
import type { FitOptions } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { partition } from '../../shared/datasets/partition.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { accuracy } from '../../shared/distillation/evaluation.ts';
import { neighborGraph, pseudoLabelsOf, spreadVotes, type PseudoLabels } from '../../shared/distillation/pseudo-labels.ts';
import { embed, fitPublicEmbedding } from '../../shared/distillation/public-embedding.ts';
import { selectQueries } from '../../shared/distillation/query-selection.ts';
import { selectLabelled, selectRows } from '../../shared/types/matrix.ts';
import { exampleShape, machineLine, mnist, noisedSum, numClasses, percent, recordVotes, shareRight, shardVotes, type VoteKind, type Votes } from './federation.ts';

const { values: flags } = parseArgs({
  options: { seeds: { type: 'string', default: '1,2,3' }, rows: { type: 'string', default: 'nearest:1:100,nearest:0.5:50,nearest:0.25:50,shards:4:60' } },
});
const students = ['mlp-small', 'mlp-medium', 'cnn-small', 'mlp-medium', 'cnn-wide'] as const;
const shardsEach = 40;
const minConfidence = 0.8;
const [minSurvivors, maxCorrupt] = [4, 1];
const seeds = flags.seeds.split(',').map(Number);

const engine = await selectEngine('auto');
const [pool, transferSet, testSet] = await Promise.all([mnist('train', 0, 5000), mnist('train', 50_000, 3000), mnist('test', 0, 2000)]);
const ownedBy = (seed: number) => partition(pool.labels, numClasses, { kind: 'dirichlet', alpha: 0.5, minPerClient: 100 }, students.length, deriveSeed(seed, 'partition'));

/** Mean accuracy of the students; without labels they train on their own records alone. */
async function meanAccuracy(seed: number, labels: PseudoLabels | undefined): Promise<number> {
  let sum = 0;
  for (const [client, positions] of ownedBy(seed).entries()) {
    const mine = selectLabelled(pool, positions);
    const model = await engine.open({ kind: 'zoo', name: students[client]!, exampleShape, numClasses }, deriveSeed(seed, 'student', client));
    const options = (epochs: number, step: number): FitOptions => ({ epochs, batchSize: 32, loss: { distance: 'kl', temperature: 1, alpha: 0 }, optimizer: { kind: 'adam', learningRate: 0.001 }, seed: deriveSeed(seed, 'fit', client, step) });
    const revisit = (epochs: number, step: number) => model.fit({ hard: { examples: mine.examples, labels: mine.labels } }, options(epochs, step));
    const digest = async (step: number) => {
      if (labels !== undefined) await model.fit({ soft: { examples: transferSet.examples, targets: labels.probabilities, targetKind: 'probabilities' } }, options(2, step));
    };
    await revisit(6, 0);
    for (let round = 1; round <= 4; round++) {
      await digest(2 * round);
      await revisit(1, 2 * round + 1);
    }
    await digest(100);
    sum += accuracy(await model.predict(testSet.examples), testSet.labels);
    await model.dispose();
  }
  return sum / students.length;
}

/** The labels that the federation releases, what they were released with, and the seconds that it took in one thread. */
async function release(seed: number, kind: VoteKind, epsilon: number, queries: number) {
  const startedAt = performance.now();
  const embedding = fitPublicEmbedding(transferSet.examples, { seed });
  const [points, records] = [embed(embedding, transferSet.examples), embed(embedding, pool.examples)];
  const plan = selectQueries(points, queries, seed);
  const votes: Votes[] = [];
  for (const [client, positions] of ownedBy(seed).entries()) {
    const [mine, labels] = [selectRows(records, positions), Int32Array.from(positions, (position) => pool.labels[position]!)];
    votes.push(kind === 'shards' ? await shardVotes(engine, mine, labels, { shards: shardsEach, minConfidence }, plan.points, deriveSeed(seed, 'client', client)) : recordVotes(mine, labels, plan.points));
  }
  const noised = noisedSum(votes, { kind, queries, epsilon, minSurvivors, maxCorrupt }, deriveSeed(seed, 'noise'));
  const labels = spreadVotes({ graph: neighborGraph(points), plan, votes: noised.votes, votesOf: kind === 'shards' ? 'query' : 'cluster' });
  return { noised, labels, seconds: (performance.now() - startedAt) / 1000 };
}

console.log(`| test accuracy, mean of ${students.length} students, % | noise, votes (counted, there) | ${seeds.map((seed) => `seed ${seed}`).join(' | ')} | public labels right, % | seconds to the labels |`);
console.log(`| --- | ---: | ${seeds.map(() => '---:').join(' | ')} | ---: | ---: |`);
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
const line = (name: string, noise: string, accuracies: readonly number[], labels: string, seconds: string) => console.log(`| ${[name, noise, ...accuracies.map(percent), labels, seconds].join(' | ')} |`);

const alone: number[] = [];
const known: number[] = [];
const truth = pseudoLabelsOf({ rows: transferSet.labels.length, columns: numClasses, values: Float32Array.from({ length: transferSet.labels.length * numClasses }, (_, at) => (transferSet.labels[Math.floor(at / numClasses)] === at % numClasses ? 1 : 0)) });
for (const seed of seeds) {
  alone.push(await meanAccuracy(seed, undefined));
  known.push(await meanAccuracy(seed, truth));
}
line('local training alone', '', alone, '', '');
for (const row of flags.rows.split(',')) {
  const [kind, epsilon, queries] = ((parts) => [parts[0] as VoteKind, Number(parts[1]), Number(parts[2])] as const)(row.split(':'));
  const [accuracies, right, seconds]: [number[], number[], number[]] = [[], [], []];
  let noise = '';
  for (const seed of seeds) {
    const released = await release(seed, kind, epsilon, queries);
    noise = `${released.noised.countedSigma.toFixed(2)}, ${released.noised.actualSigma.toFixed(2)}`;
    right.push(shareRight(released.labels.labels, transferSet.labels));
    seconds.push(released.seconds);
    accuracies.push(await meanAccuracy(seed, released.labels));
  }
  line(`${kind}, ε ${epsilon}, ${queries} queries`, noise, accuracies, right.map(percent).join(' '), mean(seconds).toFixed(1));
}
line('true labels of the public images (bound)', '', known, '100', '');
console.log(`\nδ 1e-5, replace-one record, against the server; ${students.length} clients. ${machineLine(engine)}`);
await engine.dispose();
