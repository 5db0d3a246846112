/** Ctrl-C and SIGTERM: a prompt, clean end with a way to go on, and a run that does go on. */
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { clientNames, Federation } from './support/federation.ts';
import { fedstill, type End, type Fedstill } from './support/processes.ts';

it.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s stops coordinator and clients at once with status %i; started again, they finish', { timeout: 120_000 }, async (signal, status) => {
  const federation = await Federation.make();
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  const clients = clientNames.map((name) => federation.client(name, joinUrl));

  await coordinator.event('round-released');
  expect(await endAfter(coordinator, signal)).toBe(status);
  expect(await coordinator.event('stopped')).toEqual({ event: 'stopped', resume: 'fedstill resume run' });
  expect(coordinator.err).toBe('');
  await clients[0]!.event('reconnecting');
  expect(await endAfter(clients[0]!, signal)).toBe(status);
  expect(String((await clients[0]!.event('stopped'))['resume'])).toContain(`fedstill join ${joinUrl}`);
  expect(clients[0]!.err).toBe('');
  expect(await list(federation.folder)).toMatchObject([{ directory: 'run', kind: 'serve', state: 'not finished (resume)', rounds: 1 }]);

  const resumed = federation.coordinator();
  expect(await federation.joinUrl(resumed)).toBe(joinUrl);
  clients[0] = federation.client('one', joinUrl);
  expect(await Promise.all([resumed, ...clients].map((process) => process.ended))).toEqual([0, 0, 0, 0]);
  await federation.check();
  expect(await list(federation.folder)).toMatchObject([{ directory: 'run', state: 'done: rounds-done', rounds: 3 }]);
});

it('a client that is stopped while it trains stops at once', { timeout: 120_000 }, async () => {
  const federation = await Federation.make();
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  const client = federation.client('one', joinUrl, { extra: ['--pretrain-epochs', '10000'] });
  await client.event('joined');
  expect(await endAfter(client, 'SIGINT')).toBe(130);
  expect(await endAfter(coordinator, 'SIGTERM')).toBe(143);
});

it('a signal while a process starts ends it, and costs nothing', { timeout: 120_000 }, async () => {
  const federation = await Federation.make({ rounds: 1 });
  const early = federation.coordinator();
  early.signal('SIGINT'); // before it can have handled anything
  expect([130, 'SIGINT']).toContain(await early.ended);
  const coordinator = federation.coordinator();
  const joinUrl = await federation.joinUrl(coordinator);
  const first = federation.client('one', joinUrl);
  first.signal('SIGTERM');
  expect([143, 'SIGTERM']).toContain(await first.ended);
  const clients = clientNames.map((name) => federation.client(name, joinUrl));
  expect(await Promise.all([coordinator, ...clients].map((process) => process.ended))).toEqual([0, 0, 0, 0]);
});

/** How it ends after the signal. Generous for a busy machine: a process that does not heed it runs until the test is over. */
async function endAfter(process: Fedstill, signal: NodeJS.Signals): Promise<End> {
  const sentAt = performance.now();
  process.signal(signal);
  const end = await process.ended;
  expect(performance.now() - sentAt).toBeLessThan(5000);
  return end;
}

/** `fedstill ls --json` in this folder. */
async function list(folder: string): Promise<readonly unknown[]> {
  const process = fedstill(['ls', '--runs', '.', '--json'], { cwd: folder });
  expect(await process.ended).toBe(0);
  return process.out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => ({ ...(JSON.parse(line) as object), directory: join((JSON.parse(line) as { directory: string }).directory) }));
}
