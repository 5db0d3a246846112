/**
 * What a round of secure aggregation costs a client and the coordinator, by clients, coordinates and dropouts: `npx tsx bench/secure-aggregation/costs.ts [CLIENTS,... [DIMENSIONS,... [DROPRATES,...]]]`.
 * CPU seconds of one thread. Few clients run every stage, and the coordinator's work on the others is multiplied from theirs (`sampled-round.ts`); `protocol.ts` runs everybody.
 */
import { cpus, loadavg } from 'node:os';
import { FederationError } from '../../shared/errors.ts';
import { nodeCrypto } from '../../shared/node/node-crypto.ts';
import { sampledRound } from './sampled-round.ts';

const SAMPLE = 6;
const list = (text: string | undefined, fallback: readonly number[]) => text?.split(',').map(Number) ?? fallback;
const [clientCounts, dimensions, dropRates] = process.argv.slice(2, 5);

/** The code runs hot before anything counts. */
sampledRound({ clients: 60, dimension: 1000, dropRate: 0.1, sample: 60 });
console.log(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, one thread, ${nodeCrypto.name}, load ${loadavg()[0]!.toFixed(1)}; CPU seconds, ${SAMPLE} clients sampled\n`);
console.log('| clients | coordinates | dropped after sharing keys | graph | client, median | client, slowest | coordinator | upload of a client, KiB |');
console.log('| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |');
for (const clients of list(clientCounts, [10, 100, 1000, 10_000])) {
  for (const dimension of list(dimensions, [1000, 10_000, 100_000, 1_000_000])) {
    for (const dropRate of list(dropRates, [0, 0.1, 0.3])) {
      try {
        const { shape, dropped, clientSeconds, serverSeconds, uploadBytes } = sampledRound({ clients, dimension, dropRate, sample: Math.min(SAMPLE, Math.ceil(clients * (1 - dropRate))) });
        const graph = shape.kind === 'complete' ? `complete, t = ${shape.threshold}` : `k = ${shape.degree}, t = ${shape.threshold}`;
        const cells = [clients, dimension, dropped, graph, clientSeconds[clientSeconds.length >> 1]!.toFixed(3), clientSeconds.at(-1)!.toFixed(3), serverSeconds.toFixed(2), (uploadBytes / 1024).toFixed(0)];
        console.log(`| ${cells.join(' | ')} |`);
      } catch (error) {
        if (!(error instanceof FederationError)) throw error;
        console.log(`| ${clients} | ${dimension} | ${Math.floor(clients * dropRate)} | refused: ${error.message} | | | | |`);
      }
    }
  }
}
