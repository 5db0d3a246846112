/** Clients that go away while others wait for them, and two that want to be the same. */
import { expect, it } from 'vitest';
import { clientNames, Federation } from './support/federation.ts';

it('a client that disconnects after its contribution is counted, and need not come back', { timeout: 120_000 }, async () => {
  const federation = await Federation.make({ rounds: 1, reconnectGraceSeconds: 1 });
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  // The slow ones keep the round open until the quick one is gone.
  const slow = (['two', 'three'] as const).map((name) => federation.client(name, joinUrl, { extra: ['--revisit-epochs', '300'] }));
  const quick = federation.client('one', joinUrl);
  await quick.event('contributed');
  await quick.kill();
  expect(await coordinator.ended).toBe(0);
  expect(await Promise.all(slow.map((client) => client.ended))).toEqual([0, 0]);
  expect(coordinator.events.filter(({ event }) => event === 'contribution')[0]).toMatchObject({ client: await federation.clientId('one') });
  expect(await coordinator.event('round-released')).toMatchObject({ contributions: 3, cohort: 3 });
  await federation.check({ rounds: 1 });
});

it('a client that is killed for good is waited for until the grace time is over, and the others go on', { timeout: 120_000 }, async () => {
  const federation = await Federation.make({ rounds: 2, reconnectGraceSeconds: 1 });
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  const others = (['two', 'three'] as const).map((name) => federation.client(name, joinUrl));
  const lost = federation.client('one', joinUrl, { extra: ['--revisit-epochs', '10000'] });
  await lost.event('round-announced');
  await lost.kill();
  expect(await coordinator.ended).toBe(0);
  expect(await Promise.all(others.map((client) => client.ended))).toEqual([0, 0]);
  const released = coordinator.events.filter(({ event }) => event === 'round-released');
  expect(released).toMatchObject([
    { round: 1, contributions: 2, cohort: 3 },
    { round: 2, contributions: 2, cohort: 2 },
  ]);
  expect(await federation.ledger('one')).toEqual([]);
  await federation.check({ rounds: 2 });
});

it('without a quorum, rounds are aborted at their deadlines, and the task ends with exit status 4 for everyone', { timeout: 120_000 }, async () => {
  const federation = await Federation.make({ rounds: 2, quorum: 3, roundDeadlineSeconds: 2, reconnectGraceSeconds: 1, maxFailedRounds: 0 });
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  const others = (['two', 'three'] as const).map((name) => federation.client(name, joinUrl));
  const lost = federation.client('one', joinUrl, { extra: ['--revisit-epochs', '10000'] });
  await lost.event('round-announced');
  await lost.kill();
  expect(await coordinator.ended).toBe(4);
  expect(await Promise.all(others.map((client) => client.ended))).toEqual([4, 4]);
  expect(coordinator.events.filter(({ event }) => event === 'round-aborted')).toHaveLength(1);
  expect(await coordinator.event('finished')).toMatchObject({ reason: 'quorum-missed', released: 0 });
});

it('a second process on the same state folder is refused with exit status 2, and does no harm', { timeout: 120_000 }, async () => {
  const federation = await Federation.make({ rounds: 1 });
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  const first = federation.client('one', joinUrl);
  await first.event('joined');
  const second = federation.client('one', joinUrl);
  expect(await second.ended).toBe(2);
  expect(second.err).toContain('state-locked');
  const rival = federation.coordinator();
  expect(await rival.ended).toBe(2);
  expect(rival.err).toContain('state-locked');
  const others = clientNames.slice(1).map((name) => federation.client(name, joinUrl));
  expect(await Promise.all([coordinator, first, ...others].map((process) => process.ended))).toEqual([0, 0, 0, 0]);
  await federation.check({ rounds: 1 });
});
