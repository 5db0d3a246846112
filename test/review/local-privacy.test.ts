/** Ways around a client's own limits that a review found (docs/reviews/0001-local-privacy.md). Each failed before its fix. */
import { describe, expect, it } from 'vitest';
import { FederationError } from '../../shared/errors.ts';
import { digestOf } from '../../shared/crypto/digest.ts';
import { formatEpsilon } from '../../shared/node/terminal.ts';
import type { Epsilon } from '../../shared/types/units.ts';
import { rejection, Scene } from '../client/harness.ts';

/** A participant that waits for what the coordinator does. */
async function waiting(scene: Scene): Promise<{ stop(): Promise<void> }> {
  scene.coordinator.autopilot = false;
  const controller = new AbortController();
  const ended = rejection(scene.participant().run(controller.signal));
  await scene.pass(10);
  return {
    async stop() {
      controller.abort(new Error('the test is over'));
      await scene.clock.runUntil(ended);
    },
  };
}

describe('a coordinator that takes contributions and says that they came too late', () => {
  it('gets no more of them than maxRounds', async () => {
    const scene = new Scene({ mechanism: 'none', epsilon: null, outputKind: 'probabilities', labelKind: 'probabilities', rounds: 9 }, { allowedMechanisms: ['none'], maxEpsilon: Infinity as Epsilon, maxRounds: 2 });
    scene.coordinator.onRequest = (event) => {
      if (event === 'upload-end') throw new FederationError('round-closed', 'Too late.');
    };
    const { stop } = await waiting(scene);
    const codes = [];
    for (let round = 1; round <= 4; round++) {
      const ack = await scene.coordinator.openRound();
      codes.push(ack?.ok === false ? ack.problem.code : 'ok');
      await scene.pass(100);
    }
    await stop();
    expect(codes).toEqual(['ok', 'ok', 'policy-refused', 'policy-refused']);
    expect(scene.coordinator.offered.size).toBe(2);
  });
});

describe('an announcement with less noise than the signed task promises', () => {
  it('is refused, also when the owner\'s own limit would allow it', async () => {
    const scene = new Scene({ rounds: 3, epsilon: 1 });
    const { stop } = await waiting(scene);
    const { release } = scene.coordinator;
    if (release.mechanism !== 'gaussian') throw new Error('the task has Gaussian noise');
    const weaker = { ...release, noise: { sigmaGrid: Math.floor(release.noise.sigmaGrid / 4) } };
    expect(await scene.coordinator.send('round', scene.coordinator.sign(1, { release: weaker as never }))).toMatchObject({ ok: false, problem: { code: 'context-mismatch' } });
    await scene.pass(100);
    expect(scene.ledger.entries()).toHaveLength(0);
    expect(await scene.coordinator.send('round', scene.coordinator.sign(1))).toEqual({ ok: true });
    await stop();
  });
});

describe('a refusal', () => {
  it('tells the coordinator its code, and neither the ledger nor the limits of its owner', async () => {
    const scene = new Scene({ rounds: 1, epsilon: 8 }, { maxEpsilon: 9.123 as Epsilon });
    const { stop } = await waiting(scene);
    await scene.ledger.charge({ task: 'other-task' as never, round: 1 as never, contribution: digestOf(new Uint8Array(2)), parameters: scene.coordinator.release, at: scene.clock.now() });
    const ack = await scene.coordinator.openRound();
    await stop();
    if (ack?.ok !== false) throw new Error('the round is accepted');
    expect(ack.problem.code).toBe('budget-exhausted');
    expect(JSON.stringify(ack.problem)).not.toMatch(/9\.123|epsilon|limit of|[0-9]\.[0-9]/);
    // The owner still learns why.
    expect(scene.named('round-refused')[0]?.['reason']).toMatch(/9\.123/);
  });
});

describe('an epsilon on a screen', () => {
  it('is never below the bound, however small', () => {
    expect(Number(formatEpsilon(1e-12))).toBeGreaterThanOrEqual(1e-12);
    expect(Number(formatEpsilon(0.001 + 5e-13))).toBeGreaterThanOrEqual(0.001 + 5e-13);
    expect(formatEpsilon(0.3)).toBe('0.3');
    expect(formatEpsilon(0)).toBe('0');
  });
});
