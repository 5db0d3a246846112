/** The participant in rounds of secure aggregation, against a coordinator that does as it should. */
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../shared/crypto/digest.ts';
import { decodeMaskedInput } from '../../shared/secure-aggregation/messages.ts';
import { secureStageNames } from '../../shared/protocol/messages.ts';
import { SecureScene } from './secure-harness.ts';

describe('a round of secure aggregation', () => {
  it('ends with the sum of all inputs, and tells the coordinator nothing else', async () => {
    const scene = new SecureScene({ task: { rounds: 2 } });
    const summaries = await scene.run();
    const { coordinator, clients } = scene;
    expect(coordinator.aborted).toEqual([]);
    expect(coordinator.sums.map(({ round, survivors }) => [round, survivors.length])).toEqual([[1, 5], [2, 5]]);
    expect(summaries.map(({ contributedRounds, rounds }) => [contributedRounds, rounds])).toEqual(Array(5).fill([2, 2]));
    // Probabilities: every row of every client sums to 1 on the grid, but for rounding toward zero.
    const [first] = coordinator.sums;
    for (let row = 0; row < 12; row++) {
      const sum = [0, 1, 2].reduce((total, column) => total + first!.sum[3 * row + column]!, 0) * 2 ** -12;
      expect(sum).toBeLessThanOrEqual(5);
      expect(sum).toBeGreaterThan(5 - 5 * 3 * 2 ** -12);
    }
    for (const client of clients) {
      expect(scene.sentBy(client).map(({ stage }) => stage)).toEqual([...secureStageNames, ...secureStageNames]);
      expect(client.ledger.entries().map(({ round }) => round)).toEqual([1, 2]);
      // Charged is what was sent: the digest of the masked input's frame.
      expect(client.ledger.entries().map(({ contribution }) => contribution)).toEqual(scene.sentBy(client, 'maskedInput').map(({ message }) => digestOf(message)));
    }
    expect(scene.violations()).toEqual([]);
    // What one client's message holds looks like noise of 32 bits.
    const { rosterState, context } = coordinator.history[0]!;
    const { elements } = decodeMaskedInput(scene.sentBy(clients[0]!, 'maskedInput')[0]!.message, context, rosterState!.roster.keyContext.rosterRoot);
    expect(elements.filter((element) => element > 2 ** 24 && element < 2 ** 32 - 2 ** 24).length).toBeGreaterThan(30);
  });
});
