/**
 * A coordinator that is killed at every durable operation of its life, and started again each time, while its clients come back by themselves.
 * `E2E_ALL=1` adds the moments in which what was just stored is of no consequence yet, and those of `events.jsonl`, on which nothing depends.
 */
import { expect, it } from 'vitest';
import { clientNames, Federation, restarted, type Life } from './support/federation.ts';
import type { Fedstill } from './support/processes.ts';

const points = process.env['E2E_ALL'] === '1' ? '' : '^(?!.*events\\.jsonl|done: link|done: put run/(privacy|task|run\\.|finished-)|half of run/\\.lock)';

it('a coordinator dies once at every durable operation, and its task ends as if it had not', { timeout: 400_000 }, async () => {
  const federation = await Federation.make();
  let clients: Fedstill[] = [];
  const { end, kills } = await new Promise<Life>((resolve, reject) => {
    const startClients = (joinUrl: string) => {
      if (clients.length > 0) return;
      clients = clientNames.map((name) => federation.client(name, joinUrl));
      // Without one of them the coordinator would wait for a long time.
      for (const client of clients) void client.ended.then((end) => end !== 0 && reject(new Error(`A client ended with ${end}.`)));
    };
    const onStart = (coordinator: Fedstill) => void federation.joinUrl(coordinator).then(startClients, () => undefined);
    restarted(() => federation.coordinator({ dying: points }), { onStart }).then(resolve, reject);
  });
  expect(end).toBe(0);
  expect(await Promise.all(clients.map((client) => client.ended))).toEqual([0, 0, 0]);
  await federation.check();
  const deaths = await federation.deaths();
  expect(deaths).toHaveLength(kills);
  expect(deaths).toEqual(expect.arrayContaining(milestones));
});

it('a contribution that a client was told is accepted survives the kill of the coordinator, and is not sent again', { timeout: 120_000 }, async () => {
  const federation = await Federation.make({ rounds: 1 });
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  const slow = (['two', 'three'] as const).map((name) => federation.client(name, joinUrl, { extra: ['--revisit-epochs', '300'] }));
  const quick = federation.client('one', joinUrl);
  await quick.event('contributed');
  await coordinator.kill();
  const resumed = federation.coordinator();
  expect(await Promise.all([resumed, quick, ...slow].map((process) => process.ended))).toEqual([0, 0, 0, 0]);
  const id = await federation.clientId('one');
  expect(resumed.events.filter(({ event, client }) => event === 'contribution' && client === id)).toEqual([]);
  expect(await resumed.event('round-released')).toMatchObject({ contributions: 3, cohort: 3 });
  await federation.check({ rounds: 1 });
});

/** One or two for every stage of a task. */
const milestones = [
  'put run/task.yaml', // before it listens
  'append run/journal client-connected', // gathering
  'put run/rounds/N/box-secret', // opening
  'put run/rounds/N/soft-labels',
  'append run/journal round-opened',
  'appended run/journal round-opened', // collecting, before anybody was told
  'put run/rounds/N/contributions/ID after 0',
  'done: put run/rounds/N/contributions/ID after 0', // stored, not counted
  'appended run/journal contribution-stored 1', // counted, not acknowledged
  'appended run/journal contribution-stored 2',
  'append run/journal contribution-stored 3',
  'appended run/journal contribution-stored 3', // aggregating
  'put run/teacher/model',
  'append run/metrics.jsonl',
  'append run/journal round-aggregated',
  'appended run/journal round-aggregated', // not closed
  'delete run/rounds/N/box-secret', // closed, not erased
  'append run/journal restarted',
  'put run/finished-labels', // finishing
  'put run/finished',
  'put run/privacy.json',
  'put run/run.json done',
];
