/** `npm start`, stopped with Ctrl-C after its first round and resumed. The longest test of all: real MNIST, six processes. */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { fedstill } from './support/processes.ts';

it('the demo stops at Ctrl-C within seconds, goes on with `fedstill resume`, and ends with a report', { timeout: 400_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'fedstill-demo-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  const demo = fedstill(['demo'], { cwd: folder });
  await demo.line(/^round 1: .*$/m);
  const sentAt = performance.now();
  demo.signalGroup('SIGINT'); // as a terminal does: to the children, too
  expect(await demo.ended).toBe(130);
  expect(performance.now() - sentAt).toBeLessThan(10_000);
  expect(demo.out).toContain('fedstill resume runs/demo-1');
  expect(demo.err).toBe('');
  expect(existsSync(join(folder, 'runs', 'demo-1', 'report.html'))).toBe(false);

  const list = fedstill(['ls', '--json'], { cwd: folder });
  expect(await list.ended).toBe(0);
  expect(JSON.parse(list.out)).toMatchObject({ kind: 'demo', state: 'not finished (resume)' });

  const resumed = fedstill(['resume', join('runs', 'demo-1')], { cwd: folder });
  expect(await resumed.ended, resumed.err).toBe(0);
  expect(resumed.out).toMatch(/coordinator continues after [1-4] released rounds/);
  const [first, second] = resumed.out.split('The same owners with a guarantee for every record') as [string, string];
  expect(first).not.toMatch(/^round 1: /m);
  expect(second).toMatch(/^round 1: 5 of 5 contributions/m);
  expect(await readFile(join(folder, 'runs', 'demo-1', 'report.html'), 'utf8')).toContain('</html>');
  expect(JSON.parse(await readFile(join(folder, 'runs', 'demo-1', 'run.json'), 'utf8'))).toMatchObject({ state: 'done', outcome: 'rounds-done' });
});
