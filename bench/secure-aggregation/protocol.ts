/**
 * What one client and the coordinator compute in a round of secure aggregation: `npx tsx bench/secure-aggregation/protocol.ts [CLIENTS DIMENSION DROPRATE]`. CPU time of this process,
 * so other work on the machine does not count. Those that vanish do so after they shared keys, the expensive case.
 *
 * Every client runs, one after the other. Identities are made outside the timing.
 */
import { cpus } from 'node:os';
import { nodeCrypto } from '../../shared/node/node-crypto.ts';
import { systemRandom } from '../../shared/node/system-random.ts';
import * as aggregator from '../../shared/secure-aggregation/aggregator.ts';
import { graphShape } from '../../shared/secure-aggregation/share-graph.ts';
import * as participant from '../../shared/secure-aggregation/participant.ts';
import { identityFromSeed } from '../../shared/crypto/signature.ts';
import type { RoundContext } from '../../shared/secure-aggregation/parameters.ts';
import { cpuSeconds } from '../cpu-time.ts';

const crypto = nodeCrypto;

function measure(clients: number, dimension: number, dropRate: number): string {
  const dropped = Math.floor(clients * dropRate);
  // The graph must be safe for a tenth that drops out, whether it does or not.
  const maxCorrupt = Math.floor(clients / 10);
  const minSurvivors = clients - Math.floor(clients / 10);
  const shape = graphShape({ clients, minSurvivors, maxCorrupt });
  const context: RoundContext = { round: 1, manifestHash: systemRandom.bytes(32), parameters: { dimension, minCohort: clients, minSurvivors, maxCorrupt } };
  const policy = { minHonest: 1, lastRound: 0 };
  const tools = Array.from({ length: clients }, () => ({ identity: identityFromSeed(systemRandom.bytes(32)), random: systemRandom, crypto }));
  const spent = new Float64Array(clients);
  let server = 0;
  let uploaded = 0;
  const asClient = <T extends { readonly message: Uint8Array }>(i: number, run: () => T): T => {
    const { seconds, value } = cpuSeconds(run);
    spent[i]! += seconds;
    uploaded += value.message.length;
    return value;
  };
  const asServer = <T>(run: () => T): T => {
    const { seconds, value } = cpuSeconds(run);
    server += seconds;
    return value;
  };

  const advertised = tools.map((tool, i) => asClient(i, () => participant.advertiseKeys(context, policy, tool)));
  const opened = asServer(() => aggregator.closeAdvertiseKeys(context, advertised.map(({ message }) => aggregator.acceptAdvert(context, message, crypto)), crypto));
  const shared = advertised.map(({ state }, i) => asClient(i, () => participant.shareKeys(state, opened.message, tools[i]!)));
  const sharing = asServer(() => aggregator.closeShareKeys(opened.state, shared.map(({ message }) => aggregator.acceptShares(opened.state, message, crypto))));
  const alive = shared.slice(dropped).map(({ state }, i) => ({ state, i: i + dropped }));
  const masked = alive.map(({ state, i }) => ({ i, own: state.own, ...asClient(i, () => participant.maskInput(state, sharing.deliveries.get(state.own)!, new Int32Array(dimension).fill(i), tools[i]!)) }));
  const surviving = asServer(() => aggregator.closeMaskedInput(sharing.state, masked.map(({ message }) => aggregator.acceptMaskedInput(sharing.state, message, crypto)), crypto));
  const signed = masked.map(({ i, own, state }) => ({ i, own, ...asClient(i, () => participant.signSurvivors(state, surviving.message, tools[i]!)) }));
  const consistent = asServer(() => aggregator.closeConsistency(surviving.state, signed.map(({ message }) => aggregator.acceptConsistency(surviving.state, message, crypto))));
  const answers = signed.map(({ i, own, state }) => asClient(i, () => participant.unmask(state, consistent.messages.get(own)!, tools[i]!)));
  const result = asServer(() => aggregator.closeUnmask(surviving.state, answers.map(({ message }) => aggregator.acceptUnmask(surviving.state, message, crypto)), crypto));

  const expected = masked.reduce((sum, { i }) => sum + i, 0);
  if (!result.sum.every((value) => value === expected)) throw new Error(`wrong sum: ${result.sum[0]}, not ${expected}`);
  const survivorsSpent = spent.slice(dropped).sort();
  const cell = (value: number, digits = 3) => value.toFixed(digits);
  const graph = shape.kind === 'complete' ? `complete, t = ${shape.threshold}` : `k = ${shape.degree}, t = ${shape.threshold}`;
  return `| ${clients} | ${dimension} | ${dropped} | ${graph} | ${cell(survivorsSpent[survivorsSpent.length >> 1]!)} | ${cell(survivorsSpent.at(-1)!)} | ${cell(server)} | ${cell(uploaded / clients / 1024, 0)} |`;
}

const [onlyClients, onlyDimension, onlyDropRate] = process.argv.slice(2).map(Number);
console.log(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, one thread, ${crypto.name}; CPU seconds\n`);
console.log('| clients | coordinates | dropped after sharing keys | graph | client, median | client, slowest | coordinator | upload of a client, KiB |');
console.log('| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |');
for (const clients of onlyClients === undefined ? [10, 100, 1000] : [onlyClients]) {
  for (const dimension of onlyDimension === undefined ? [1000, 10_000] : [onlyDimension]) {
    for (const dropRate of onlyDropRate === undefined ? [0, 0.1] : [onlyDropRate]) console.log(measure(clients, dimension, dropRate));
  }
}
