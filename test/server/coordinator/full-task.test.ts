import { describe, expect, it } from 'vitest';
import { expectedConsensus, frameOf, largestDifference } from './predictions.ts';
import { ProtocolClient, takePart, TestFederation, type FederationOptions } from './protocol-client.ts';

const clients = [1, 2, 3];
const aggregators = ['meanLogits', 'meanProbabilities', 'entropyReduction', 'enhancedEra'] as const;
const cases: readonly (FederationOptions & { readonly tolerance: number })[] = [
  ...aggregators.flatMap((aggregator) => [
    { aggregation: { aggregator }, tolerance: 1e-6 },
    { aggregation: { aggregator, encoding: 'float16' as const }, tolerance: 4e-3 },
    { aggregation: { aggregator, encoding: 'uint8' as const }, tolerance: aggregator === 'meanLogits' ? 0.02 : 0.02 },
    { aggregation: { aggregator }, privacy: { mechanism: 'gaussian' as const, epsilon: 40 }, tolerance: 1e-6 },
    { aggregation: { aggregator }, privacy: { mechanism: 'laplace' as const, epsilon: 400 }, tolerance: 1e-6 },
  ]),
  { aggregation: { aggregator: 'meanProbabilities' as const, encoding: 'bits4' as const }, tolerance: 1 / 15 },
  { aggregation: { aggregator: 'meanProbabilities' as const, encoding: 'bits8' as const }, tolerance: 1 / 255 },
  // Clients that share all: a whole frame is as good as one of some rows.
  { aggregation: { aggregator: 'meanProbabilities' as const }, distillation: { sharing: { minConfidence: 0.9 } }, tolerance: 1e-6 },
];

describe('a task of three rounds with three clients', () => {
  it.each(cases)('publishes the mean that can be computed by hand ($aggregation $privacy)', async ({ tolerance, ...options }) => {
    const federation = new TestFederation(options);
    await federation.run(async () => {
      await federation.start();
      const seen: number[][] = [];
      const members = clients.map((number) => ({ number, client: new ProtocolClient(federation, number) }));
      const finished = await Promise.all(
        members.map(({ number, client }) =>
          takePart(client, (document) => {
            if (number === 1) seen.push([document.round, document.labels === null ? 0 : 1, document.cohort.size]);
            return frameOf(number, document);
          }),
        ),
      );
      expect(seen).toEqual([[1, 0, 3], [2, 1, 3], [3, 1, 3]]);
      expect(await federation.coordinator.finished).toBe('rounds-done');
      for (const { reason, rounds } of finished) expect([reason, rounds]).toEqual(['rounds-done', 3]);

      const { client } = members[0]!;
      const last = client.openRound(client.notices.filter(({ event }) => event === 'round').at(-1)!.payload as never).document;
      const { matrix, indices } = await client.labels('/finished/soft-labels', finished[0]!.labels!);
      expect(indices).toHaveLength(5);
      expect(largestDifference(matrix.values, expectedConsensus(clients, last, federation.config.aggregation))).toBeLessThan(tolerance);

      // What is announced in a round is the consensus of the one before.
      const before = client.openRound(client.notices.filter(({ event }) => event === 'round').at(-2)!.payload as never).document;
      const announced = await client.labels(`/rounds/3/soft-labels`, last.labels!);
      expect(largestDifference(announced.matrix.values, expectedConsensus(clients, before, federation.config.aggregation))).toBeLessThan(tolerance);
    });
  });
});
