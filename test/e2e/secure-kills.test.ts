/**
 * Secure aggregation between real processes, which are killed in every stage: a coordinator, restarted each time, comes to the same sum; a client, restarted with the same command, sends again what it
 * had stored and nothing else. `E2E_ALL=1` kills both at every durable operation.
 */
import { expect, it } from 'vitest';
import { Federation, fiveNames, restarted, secureTask, type Life } from './support/federation.ts';
import type { Fedstill } from './support/processes.ts';

const isThorough = process.env['E2E_ALL'] === '1';
const others = fiveNames.slice(1);
const stages = ['advertiseKeys', 'shareKeys', 'maskedInput', 'consistencyCheck', 'unmask'];

const hasLeft = (client: Fedstill) => client.events.some(({ event }) => event === 'left');

/** A client's steps in a round: its keys, its masked input, the charge for it, its answer. */
const clientPoints = [
  'done: put client/tasks/small-ID/progress.json announced advertised',
  'put client/tasks/small-ID/outbox/round-N', // shared its secrets
  'done: put client/tasks/small-ID/outbox/round-N', // not charged
  'appended client/ledger.jsonl', // charged, not sent
  'put client/tasks/small-ID/outbox/answer-N', // signed
  'done: put client/tasks/small-ID/outbox/answer-N', // not answered
];

it('a client dies in every stage: it is charged for what it sent, sends one form of everything, and is back in the next round', { timeout: isThorough ? 1_800_000 : 400_000 }, async () => {
  const federation = await Federation.make({ ...secureTask.schedule, rounds: isThorough ? 12 : 6 }, secureTask.privacy);
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  // Whoever leaves the default as it is wants five honest clients in a sum, and is told how to say otherwise.
  const strict = federation.client('five', joinUrl, { extra: ['--min-honest', '5'] });
  expect(await strict.ended).toBe(3);
  expect(strict.err).toContain('Only 4 honest clients are sure to be in a sum, and you asked for at least 5.');
  expect(strict.err).toContain('--min-honest 4');
  const living = others.map((name) => federation.client(name, joinUrl));
  const points = isThorough ? '' : clientPoints.map((point) => `^${point.replaceAll('.', '\\.')}$`).join('|');
  const { end, kills, last } = await restarted(() => federation.client('one', joinUrl, { dying: points }), { until: hasLeft });
  if (!hasLeft(last)) expect(end).toBe(0);
  expect(await Promise.all(living.map((client) => client.ended))).toEqual([0, 0, 0, 0]);
  expect(await coordinator.ended).toBe(0);
  await federation.check({ rounds: isThorough ? 12 : 6, cohort: 5 });
  const deaths = await federation.deaths();
  expect(deaths).toHaveLength(kills);
  expect(deaths).toEqual(expect.arrayContaining(clientPoints));
  // The others are in every sum. It is in those for which it had stored its input.
  const journal = await federation.journal();
  const id = await federation.clientId('one');
  const inputs = journal.filter(({ type, stage }) => type === 'contribution-stored' && stage === 'maskedInput');
  const ledger = await federation.ledger('one');
  expect(ledger.map(({ round }) => round)).toEqual(inputs.filter(({ client }) => client === id).map(({ round }) => round));
  for (const name of others) expect((await federation.ledger(name)).length).toBe(isThorough ? 12 : 6);
});

/** In each stage: a client's message is counted and not acknowledged. And once it is stored, but not counted. */
const milestones = [...stages.map((stage) => `appended run/journal contribution-stored ${stage}`), 'append run/journal contribution-stored maskedInput'];

it('a coordinator dies in every stage, and every round is released with everybody in it', { timeout: isThorough ? 1_800_000 : 400_000 }, async () => {
  const federation = await Federation.make({ ...secureTask.schedule, rounds: 2 }, secureTask.privacy);
  const points = isThorough ? '' : `^(${milestones.join('|')})$`;
  let clients: Fedstill[] = [];
  const { end, kills } = await new Promise<Life>((resolve, reject) => {
    const startClients = (joinUrl: string) => {
      if (clients.length > 0) return;
      clients = fiveNames.map((name) => federation.client(name, joinUrl));
      for (const client of clients) void client.ended.then((status) => status !== 0 && reject(new Error(`A client ended with ${status}.`)));
    };
    const onStart = (coordinator: Fedstill) => void federation.joinUrl(coordinator).then(startClients, () => undefined);
    restarted(() => federation.coordinator({ dying: points }), { onStart }).then(resolve, reject);
  });
  expect(end).toBe(0);
  expect(await Promise.all(clients.map((client) => client.ended))).toEqual([0, 0, 0, 0, 0]);
  await federation.check({ rounds: 2, cohort: 5 });
  const deaths = await federation.deaths();
  expect(deaths).toHaveLength(kills);
  expect(deaths).toEqual(expect.arrayContaining(milestones));
  // Nobody was lost: the rounds that were released have everybody in them, and nobody answered twice.
  const journal = await federation.journal();
  for (const { round } of journal.filter(({ type }) => type === 'round-aggregated')) {
    for (const stage of stages) expect(journal.filter((event) => event.type === 'contribution-stored' && event.round === round && event.stage === stage)).toHaveLength(5);
  }
  for (const client of clients) expect(client.events.filter(({ event }) => event === 'declined')).toEqual([]);
});
