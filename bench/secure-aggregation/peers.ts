/**
 * The same round of secure aggregation by this project and by Flower's SecAgg+, taking turns: `npx tsx bench/secure-aggregation/peers.ts PYTHON [CLIENTS DIMENSION DROPRATE SAMPLE]`. PYTHON has flwr
 * (bench/peers/flower_secaggplus.py). CPU time, one thread each; docs/benchmarks/secure-aggregation.md says what is comparable and what is not.
 */
import { spawn } from 'node:child_process';
import { cpus, loadavg } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { graphShape } from '../../shared/secure-aggregation/share-graph.ts';
import { sampledRound } from './sampled-round.ts';

interface FlowerTimes {
  readonly client: number;
  readonly masked: number;
  readonly active: number;
  readonly dropped: number;
  readonly upload: number;
}

const [python = 'python3', ...numbers] = process.argv.slice(2);
const [clients = 1000, dimension = 10_000, dropRate = 0.1, sample = 8] = numbers.map(Number);
const dropped = Math.floor(clients * dropRate);
const spare = Math.max(dropped, Math.floor(clients / 10));
const shape = graphShape({ clients, minSurvivors: clients - spare, maxCorrupt: Math.floor(clients / 10) });
// Flower counts a client among its own holders, and wants an odd number.
const shares = shape.kind === 'ring' ? shape.degree + 1 : clients;

const flower = spawn(python, [fileURLToPath(new URL('../peers/flower_secaggplus.py', import.meta.url)), ...[clients, dimension, dropped, shares, shape.threshold].map(String)], {
  stdio: ['pipe', 'pipe', 'inherit'],
  env: { ...process.env, OMP_NUM_THREADS: '1', OPENBLAS_NUM_THREADS: '1' },
});
const answers = createInterface({ input: flower.stdout })[Symbol.asyncIterator]();
async function measureFlower(): Promise<FlowerTimes> {
  flower.stdin.write('\n');
  const { value, done } = await answers.next();
  if (done === true) throw new Error('the Flower side ended');
  return JSON.parse(value) as FlowerTimes;
}

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;
const theirs: FlowerTimes[] = [];
const own: { readonly client: number; readonly slowest: number; readonly server: number; readonly upload: number }[] = [];
const load = loadavg()[0]!;
// The first of both warms up.
for (let turn = -1; turn < sample; turn++) {
  const round = sampledRound({ clients, dimension, dropRate, sample: 8 });
  const times = await measureFlower();
  if (turn < 0) continue;
  own.push({ client: median(round.clientSeconds), slowest: round.clientSeconds.at(-1)!, server: round.serverSeconds, upload: round.uploadBytes });
  theirs.push(times);
}
flower.stdin.end();

const serverOf = ({ masked, active, dropped: gone }: FlowerTimes) => (clients - dropped) * (masked + active) + dropped * gone;
const rows: [string, number, number][] = [
  ['client, median, s', median(own.map(({ client }) => client)), median(theirs.map(({ client }) => client))],
  ['client, slowest, s', Math.max(...own.map(({ slowest }) => slowest)), Math.max(...theirs.map(({ client }) => client))],
  ['coordinator, s', median(own.map(({ server }) => server)), median(theirs.map(serverOf))],
  ['upload of a client, KiB', median(own.map(({ upload }) => upload)) / 1024, median(theirs.map(({ upload }) => upload)) / 1024],
];
console.log(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, load ${load.toFixed(1)} to ${loadavg()[0]!.toFixed(1)}`);
console.log(`${clients} clients, ${dimension} coordinates, ${dropped} dropped after sharing keys; ${shape.kind}, ${shares - (shape.kind === 'ring' ? 1 : 0)} holders, threshold ${shape.threshold}; ${sample} turns of 8 clients and of 1\n`);
console.log('| | fedstill | Flower SecAgg+ | ratio |\n| --- | ---: | ---: | ---: |');
for (const [name, ours, other] of rows) console.log(`| ${name} | ${ours.toPrecision(3)} | ${other.toPrecision(3)} | ${(other / ours).toPrecision(2)} |`);
