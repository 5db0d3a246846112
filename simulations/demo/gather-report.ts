/** From the folders of a finished demo to its report. */
import { cpus } from 'node:os';
import type { ClientMetrics } from '../../client/participant/metrics.ts';
import { FederationError } from '../../shared/errors.ts';
import type { ClientResult, NoisyResult, RoundAccuracy, RunReport } from '../report/report-data.ts';
import { mean } from '../spread.ts';
import { readClientMetrics, readNoise, readRoundMetrics, readStatement, recordRunDirectory } from './federation.ts';
import type { DemoProgress } from './progress.ts';
import { demoTask, noisyRounds, recordLevel, testExamples, transferExamples } from './settings.ts';

export async function gatherReport(runDirectory: string, progress: DemoProgress, createdAt: string): Promise<RunReport> {
  const { seed, clients, centralized, noisy, federation, records } = progress;
  if (clients === undefined || centralized === undefined || noisy === undefined || federation === undefined || records === undefined) {
    throw new FederationError('state-mismatch', 'The demo is not finished, so there is nothing to report.', { field: 'demo.json', next: `Run: fedstill resume ${runDirectory}` });
  }
  const task = demoTask(seed);
  const results: ClientResult[] = [];
  for (const client of clients) {
    const model = centralized.models.find(({ name }) => name === client.model)!;
    results.push(clientResult(client, model, await readClientMetrics(runDirectory, client.name), task.schedule.rounds));
  }
  const rounds = await readRoundMetrics(runDirectory);
  const teacherByRound = rounds.flatMap(({ round, teacherAccuracy }) => (teacherAccuracy === null ? [] : [{ round, accuracy: teacherAccuracy }]));
  const localOnly = results.map((client) => client.localOnly);
  return {
    title: 'fedstill demo: five data owners, three kinds of model, MNIST',
    createdAt,
    command: 'npm start',
    next: 'npx fedstill serve --help',
    machine: { cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length, node: process.version, platform: `${process.platform} ${process.arch}`, engine: centralized.engine },
    task: { name: task.task, seed, rounds: task.schedule.rounds, transferExamples, testExamples, numClasses: task.data.numClasses, dataset: 'MNIST', split: 'Dirichlet, alpha 0.5' },
    clients: results,
    teacher: { model: task.teacher.kind === 'learner' ? task.teacher.model : 'consensus', byRound: teacherByRound, final: teacherByRound.at(-1)?.accuracy ?? null },
    centralized: { model: task.teacher.kind === 'learner' ? task.teacher.model : task.student.model, accuracy: centralized.accuracy },
    noisy: [await recordResult(recordRunDirectory(runDirectory), clients, results), ...noisy.map((result): NoisyResult => ({
      mechanism: 'gaussian',
      epsilon: result.epsilon,
      delta: 1e-5,
      meanNoiseStddev: result.meanNoiseStddev,
      federated: result.federated,
      localOnly,
      teacher: result.teacher,
      lesson: lessonOf(result, localOnly),
      guarantee: result.guarantee,
    }))],
    statement: await readStatement(runDirectory),
    timings: [
      { part: 'federation (coordinator and 5 client processes)', seconds: federation.seconds },
      { part: 'federation with a guarantee for every record (coordinator and 5 client processes)', seconds: records.seconds },
      { part: 'centralized bound', seconds: centralized.seconds },
      ...noisy.map(({ epsilon, seconds }) => ({ part: `federation with local noise, epsilon ${epsilon} (simulated)`, seconds })),
    ],
  };
}

function clientResult(client: NonNullable<DemoProgress['clients']>[number], model: { readonly parameterCount: number; readonly weightBytes: number }, metrics: readonly ClientMetrics[], rounds: number): ClientResult {
  const last = metrics.find((line) => line.phase === 'final');
  if (last === undefined || last.testAccuracy === null || last.localOnlyTestAccuracy === null) {
    throw new FederationError('state-mismatch', `${client.name} has not measured its student at the end.`, { field: 'metrics.jsonl', next: 'Look at its log in the run folder.' });
  }
  const byRound = (pick: (line: ClientMetrics) => number | null): RoundAccuracy[] =>
    metrics.flatMap((line) => {
      const accuracy = pick(line);
      // The last soft labels are distilled after the last round.
      const round = line.phase === 'final' ? line.round + 1 : line.round;
      return accuracy === null ? [] : [{ round, accuracy }];
    });
  return {
    name: client.name,
    model: client.model,
    parameterCount: model.parameterCount,
    privateRecords: client.examples,
    classHistogram: client.classHistogram,
    localOnly: last.localOnlyTestAccuracy,
    federated: last.testAccuracy,
    byRound: byRound((line) => line.testAccuracy),
    localOnlyByRound: byRound((line) => line.localOnlyTestAccuracy),
    bytesUp: overRestarts(metrics.map((line) => line.bytesUp)),
    bytesDown: overRestarts(metrics.map((line) => line.bytesDown)),
    weightSharingBytes: 2 * rounds * model.weightBytes,
  };
}

/** The federation whose guarantee is for every record: real processes, as the first one. */
async function recordResult(directory: string, clients: NonNullable<DemoProgress['clients']>, plain: readonly ClientResult[]): Promise<NoisyResult> {
  const federated: number[] = [];
  for (const { name } of clients) {
    const final = (await readClientMetrics(directory, name)).find((line) => line.phase === 'final');
    if (final === undefined || final.testAccuracy === null) throw new FederationError('state-mismatch', `${name} has not measured its student at the end.`, { field: 'metrics.jsonl', next: 'Look at its log in the run folder.' });
    federated.push(final.testAccuracy);
  }
  const { epsilon, delta, queries, shards, maxCorrupt } = recordLevel;
  const { sigmaGrid, gridStep } = await readNoise(directory);
  const votesStddev = sigmaGrid * gridStep * Math.sqrt(clients.length);
  const difference = 100 * (mean(federated) - mean(plain.map((client) => client.federated)));
  return {
    mechanism: 'votes',
    epsilon,
    delta,
    meanNoiseStddev: votesStddev / (clients.length * shards),
    federated,
    localOnly: plain.map((client) => client.localOnly),
    teacher: (await readRoundMetrics(directory)).at(-1)?.teacherAccuracy ?? null,
    lesson:
      `Unit record, replace-one, against the coordinator and up to ${maxCorrupt} client that works with it, Renyi accounting of 1 release of ${queries} rows: ${shards} models a client vote, and only the sum of all votes is ever seen, with noise of standard deviation ${votesStddev.toFixed(1)} votes of ${clients.length * shards}. ` +
      `${difference >= 0 ? `${difference.toFixed(1)} points above` : `${(-difference).toFixed(1)} points below`} the federation without a guarantee, whose teacher learns nothing from how the public images lie together${difference >= 0 ? ': that gives more here than the noise takes' : ''}.`,
    guarantee: await readStatement(directory),
  };
}

/** Each process counts from 0, so a fall is a restart; what moved after a process's last measurement is not known, and not counted. */
function overRestarts(counts: readonly number[]): number {
  return counts.reduce((sum, count, i) => sum + (i > 0 && count < counts[i - 1]! ? counts[i - 1]! : 0), 0) + (counts.at(-1) ?? 0);
}

/** Says plainly what a noisy row shows, with what its epsilon means; the numbers decide which sentence is true. */
function lessonOf({ epsilon, federated, meanNoiseStddev }: NonNullable<DemoProgress['noisy']>[number], localOnly: readonly number[]): string {
  const gain = mean(federated) - mean(localOnly);
  const meaning = `Unit client, replace-one, against everyone who sees the noised matrices, exact Gaussian accounting over ${noisyRounds} releases of ${transferExamples} rows.`;
  const noise = `It takes noise of standard deviation ${meanNoiseStddev.toPrecision(2)} on the mean of ${federated.length} probabilities.`;
  const verdict =
    gain < 0.02
      ? `Local Gaussian noise at ${federated.length} clients leaves nothing to learn from: do not use it like this.`
      : epsilon > 10
        ? 'So little noise leaves the labels useful and the guarantee empty: such an epsilon protects nobody.'
        : 'The labels stay useful.';
  return `${meaning} ${noise} ${verdict}`;
}
