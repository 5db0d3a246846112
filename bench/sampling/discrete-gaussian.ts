/**
 * Samples a second of both discrete Gaussian samplers, and what a table takes: `npx tsx bench/sampling/discrete-gaussian.ts`. CPU time of this process, one thread; random bytes of
 * the operating system. The samplers take turns; medians of five.
 */
import { cpus, loadavg } from 'node:os';
import { systemRandom } from '../../shared/node/system-random.ts';
import { sampleDiscreteGaussians } from '../../shared/privacy/sampling/discrete-gaussian.ts';
import { discreteGaussianTable, hasDiscreteGaussianTable, sampleDiscreteGaussianTable } from '../../shared/privacy/sampling/discrete-gaussian-table.ts';
import { spread } from '../../simulations/measure/statistics.ts';
import { cpuSeconds } from '../cpu-time.ts';

const SAMPLES = 500_000;
const REPETITIONS = 5;

const millions = (seconds: number) => (SAMPLES / seconds / 1e6).toFixed(1);

console.log(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, one thread, load ${loadavg()[0]!.toFixed(1)}; ${SAMPLES} samples a time\n`);
console.log('| sigma | exact, million/s | table, million/s | entries | table, MiB | building it, ms | worth it from, samples | total variation |');
console.log('| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
for (const sigma of [3, 30, 300, 3000, 30_000, 100_000, 1_000_000]) {
  const exact: number[] = [];
  const table: number[] = [];
  const building = hasDiscreteGaussianTable(sigma) ? cpuSeconds(() => discreteGaussianTable(sigma)) : undefined;
  for (let repetition = -1; repetition < REPETITIONS; repetition++) {
    const byRejection = cpuSeconds(() => sampleDiscreteGaussians(SAMPLES, sigma, systemRandom)).seconds;
    const byTable = building && cpuSeconds(() => sampleDiscreteGaussianTable(SAMPLES, building.value, systemRandom)).seconds;
    // The first time warms the code up.
    if (repetition < 0) continue;
    exact.push(byRejection);
    if (byTable !== undefined) table.push(byTable);
  }
  const exactSeconds = spread(exact).median;
  if (building === undefined) {
    console.log(`| ${sigma} | ${millions(exactSeconds)} | none: exact | | | | | |`);
    continue;
  }
  const tableSeconds = spread(table).median;
  const { size, leading, rest, totalVariation } = building.value;
  const worthFrom = building.seconds / ((exactSeconds - tableSeconds) / SAMPLES);
  console.log(`| ${sigma} | ${millions(exactSeconds)} | ${millions(tableSeconds)} | ${size} | ${((leading.byteLength + rest.byteLength) / 2 ** 20).toFixed(2)} | ${(building.seconds * 1000).toFixed(1)} | ${worthFrom > 0 ? worthFrom.toPrecision(2) : 'never'} | ${totalVariation.toExponential(1)} |`);
}
