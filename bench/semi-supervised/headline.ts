/**
 * A student from few noised votes, on MNIST: 50,000 private records at 10 clients (IID), 10,000 public unlabelled images (the end of the training
 * set), one release of votes on public queries under secure aggregation's noise, labels spread over the public images, a small CNN trained on
 * them by rounds. Measured on the 10,000 test images, which nothing else looks at.
 *
 *     npx tsx bench/semi-supervised/headline.ts [--seeds 1,2,3] [--rows shards:2:200,shards:1:100,nearest:0.1:100] [--max-corrupt 2] [--model cnn-medium]
 *
 * A row is VOTES:EPSILON:QUERIES. `shards`: 25 models a client, of 200 records each, vote on every query. `nearest`: every record votes on the query
 * nearest to it. Epsilon: record level, replace-one, delta 1e-5, against the server, with at least 10 clients in the sum.
 */
import { parseArgs } from 'node:util';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { partition } from '../../shared/datasets/partition.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { accuracy } from '../../shared/distillation/evaluation.ts';
import { plurality } from '../../shared/distillation/plurality.ts';
import { neighborGraph, spreadVotes } from '../../shared/distillation/pseudo-labels.ts';
import { embed, fitPublicEmbedding } from '../../shared/distillation/public-embedding.ts';
import { selectQueries } from '../../shared/distillation/query-selection.ts';
import { trainSemiSupervised } from '../../shared/distillation/semi-supervised.ts';
import { selectRows } from '../../shared/types/matrix.ts';
import { exampleShape, machineLine, mnist, noisedSum, numClasses, percent, recordVotes, shareRight, shardVotes, type VoteKind, type Votes } from './federation.ts';

const { values: flags } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1,2,3' },
    rows: { type: 'string', default: 'shards:2:200,shards:1:100,nearest:0.1:100' },
    'max-corrupt': { type: 'string', default: '2' },
    model: { type: 'string', default: 'cnn-medium' },
  },
});
const clients = 10;
const shardsEach = 25;
const maxCorrupt = Number(flags['max-corrupt']);
const seeds = flags.seeds.split(',').map(Number);

const engine = await selectEngine('auto');
const [pool, transferSet, testSet] = await Promise.all([mnist('train', 0, 50_000), mnist('train', 50_000, 10_000), mnist('test', 0, 10_000)]);
const embedding = fitPublicEmbedding(transferSet.examples, { seed: 0 });
const [records, points] = [embed(embedding, pool.examples), embed(embedding, transferSet.examples)];
const graph = neighborGraph(points);

console.log('| votes | ε asked | ε counted | queries | noise, votes (counted, there) | seed | queries right, % | public labels right, % | test accuracy, % | minutes |');
console.log('| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
const means: string[] = [];
for (const row of flags.rows.split(',')) {
  const [kind, epsilon, queries] = ((parts) => [parts[0] as VoteKind, Number(parts[1]), Number(parts[2])] as const)(row.split(':'));
  const results: number[] = [];
  for (const seed of seeds) {
    const startedAt = performance.now();
    const plan = selectQueries(points, queries, seed);
    const owned = partition(pool.labels, numClasses, { kind: 'iid' }, clients, deriveSeed(seed, 'partition'));
    const votes: Votes[] = [];
    for (const [client, positions] of owned.entries()) {
      const [mine, labels] = [selectRows(records, positions), Int32Array.from(positions, (position) => pool.labels[position]!)];
      votes.push(kind === 'shards' ? await shardVotes(engine, mine, labels, { shards: shardsEach, minConfidence: 0 }, plan.points, deriveSeed(seed, 'client', client)) : recordVotes(mine, labels, plan.points));
    }
    const noised = noisedSum(votes, { kind, queries, epsilon, minSurvivors: clients, maxCorrupt }, deriveSeed(seed, 'noise'));
    const labels = spreadVotes({ graph, plan, votes: noised.votes, votesOf: kind === 'shards' ? 'query' : 'cluster' });
    const { model } = await trainSemiSupervised({ engine, source: { kind: 'zoo', name: flags.model, exampleShape, numClasses }, examples: transferSet.examples, labels, seed });
    const result = accuracy(await model.predict(testSet.examples), testSet.labels);
    await model.dispose();
    results.push(result);
    const columns = [kind, epsilon, noised.epsilon.toFixed(3), queries, `${noised.countedSigma.toFixed(1)}, ${noised.actualSigma.toFixed(1)}`, seed, percent(shareRight(plurality(noised.votes).labels, transferSet.labels, plan.rows)), percent(shareRight(labels.labels, transferSet.labels)), percent(result), ((performance.now() - startedAt) / 60_000).toFixed(1)];
    console.log(`| ${columns.join(' | ')} |`);
  }
  means.push(`${kind}, ε ${epsilon}, ${queries} queries: ${percent(results.reduce((sum, result) => sum + result, 0) / results.length)} % (mean of ${results.length} seeds, least ${percent(Math.min(...results))} %)`);
}
console.log(`\n${means.join('\n')}\n\nAt least ${clients} clients in the sum, of which ${maxCorrupt} may add no noise; delta 1e-5, replace-one record. Student: ${flags.model}. ${machineLine(engine)}`);
await engine.dispose();
