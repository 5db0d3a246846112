/** Clients that are killed at every durable operation of their lives, or while they train, and started again each time with the same command. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { clientNames, Federation, readLines, restarted } from './support/federation.ts';
import type { Fedstill } from './support/processes.ts';

it('clients die once at every durable operation, and contribute to every round once', { timeout: 400_000 }, async () => {
  const federation = await Federation.make();
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  // Each takes the next place where nobody has died yet. Who has said goodbye is not needed any more.
  const lives = await Promise.all(clientNames.map((name) => restarted(() => federation.client(name, joinUrl, { dying: '' }), { until: hasLeft })));
  for (const { end, last } of lives) if (!hasLeft(last)) expect(end).toBe(0);
  expect(await coordinator.ended).toBe(0);
  await federation.check();
  for (const name of clientNames) {
    const ledger = await federation.ledger(name);
    expect(ledger.map(({ round }) => round)).toEqual([1, 2, 3]);
    const lines = await readLines<{ phase: string; contributed: boolean }>(join(await federation.taskFolder(name), 'metrics.jsonl'));
    expect(lines.filter(({ phase }) => phase === 'pretrain')).toHaveLength(1);
  }
  const deaths = await federation.deaths();
  expect(deaths).toHaveLength(lives.reduce((sum, { kills }) => sum + kills, 0));
  expect(deaths).toEqual(expect.arrayContaining(milestones));
});

const hasLeft = (client: Fedstill) => client.events.some(({ event }) => event === 'left');

const milestones = [
  'link client/identity',
  'put client/ledger.jsonl.anchor',
  'put client/tasks/small-ID/student pretrain',
  'put client/tasks/small-ID/transfer-set',
  'put client/tasks/small-ID/progress.json announced',
  'done: put client/tasks/small-ID/progress.json announced',
  'put client/tasks/small-ID/student digest',
  'put client/tasks/small-ID/student revisit',
  'done: put client/tasks/small-ID/student revisit', // trained, nothing sealed
  'put client/tasks/small-ID/outbox/round-N',
  'done: put client/tasks/small-ID/outbox/round-N', // sealed, not charged
  'append client/ledger.jsonl',
  'appended client/ledger.jsonl', // charged, not sent
  'done: put client/ledger.jsonl.anchor',
  'put client/tasks/small-ID/progress.json accepted', // sent
  'append client/tasks/small-ID/metrics.jsonl round',
  'put client/tasks/small-ID/progress.json closed',
  'delete client/tasks/small-ID/outbox/round-N',
  'put client/tasks/small-ID/student final',
  'append client/tasks/small-ID/metrics.jsonl final',
];

it('a client that is killed while it trains begins that training again, and loses nothing else', { timeout: 120_000 }, async () => {
  const federation = await Federation.make({ rounds: 2 });
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  const others = (['two', 'three'] as const).map((name) => federation.client(name, joinUrl));
  const slow = { extra: ['--revisit-epochs', '300'] };
  const first = federation.client('one', joinUrl, slow);
  await first.event('round-announced');
  await first.kill();
  const folder = await federation.taskFolder('one');
  expect(await studentStep(folder)).toEqual({ round: 0, step: 'pretrain' });
  const second = federation.client('one', joinUrl, slow);
  expect(await second.ended).toBe(0);
  expect(second.events.filter(({ event }) => event === 'pretrained')).toEqual([]);
  expect(await Promise.all(others.map((client) => client.ended))).toEqual([0, 0]);
  expect(await coordinator.ended).toBe(0);
  await federation.check({ rounds: 2 });
  expect((await federation.ledger('one')).map(({ round }) => round)).toEqual([1, 2]);
});

/** The step after which the student was saved. */
async function studentStep(folder: string): Promise<unknown> {
  const bytes = await readFile(join(folder, 'student'));
  const { round, step } = JSON.parse(bytes.toString('utf8', 4, 4 + bytes.readUInt32LE(0))) as { round: number; step: string };
  return { round, step };
}
