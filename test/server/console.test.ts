import { expect, it } from 'vitest';
import { ProgressLines, startBlock } from '../../server/console.ts';
import { parseTaskConfig } from '../../shared/config/load.ts';

const taskText = (privacy: string) => `
task: digits
data: {numClasses: 10, exampleShape: [28, 28, 1]}
transferSet: {source: mnist, size: 100}
schedule: {rounds: 10, minClients: 5, quorum: 3}
privacy: ${privacy}
`;
const facts = { fingerprint: 'f'.repeat(26), origin: 'http://127.0.0.1:7070', joinUrl: 'http://127.0.0.1:7070/join/ffff', runDirectory: 'runs/digits', tokenFile: undefined, isLocal: true };

it('starts with everything that an operator has to hand on, and with what the trust mode means', () => {
  const plain = startBlock({ ...facts, config: parseTaskConfig(taskText('{mechanism: none}'), 'task.yaml') });
  expect(plain).toContain('digits: 10 rounds, starts with 5 clients, quorum 3');
  expect(plain).toContain('fedstill join http://127.0.0.1:7070/join/ffff --data YOUR-DATA');
  expect(plain).toContain('this machine only');
  expect(plain).toContain('no differential privacy is claimed');
  const noisy = startBlock({ ...facts, tokenFile: 'runs/digits/join-token', config: parseTaskConfig(taskText('{mechanism: gaussian, epsilon: 8}'), 'task.yaml') });
  expect(noisy).toContain('--token-file TOKEN-FILE');
  expect(noisy).toContain('gaussian, added by each client: epsilon 8 at delta 0.00001 for everything of one client (replace-one) over 10 rounds');
  expect(noisy).not.toContain('--allow');
  expect(startBlock({ ...facts, config: parseTaskConfig(taskText('{mechanism: none, trustMode: clear}'), 'task.yaml') })).toContain('NO PRIVACY');
});

it('says what secure aggregation protects, and an epsilon only with all that it depends on', () => {
  const block = (privacy: string) => startBlock({ ...facts, config: parseTaskConfig(taskText(privacy).replace('quorum: 3', 'quorum: 4'), 'task.yaml') });
  const noisy = block('{trustMode: secure-aggregation, mechanism: discreteGaussian, epsilon: 4, secureAggregation: {maxCorrupt: 1}}');
  expect(noisy).toContain('this coordinator sees only sums over 4 clients or more, while at most 1 of them works with it; whoever runs it must not also be the one who decides who may join');
  expect(noisy).toContain('discreteGaussian, a share of it added by each client, 3 of them for certain in every sum: epsilon 4 at delta 0.00001 for everything of one client (replace-one) over 10 rounds, computationally, and only for what the trust mode protects');
  const records = block('{trustMode: secure-aggregation, mechanism: discreteGaussian, epsilon: 4, unit: record, sampleAndAggregate: {shards: 25}}');
  expect(records).toContain('while none of them works with it');
  expect(records).toContain('4 of them for certain in every sum: epsilon 4 at delta 0.00001 for one record of a client (replace-one)');
  const bare = block('{trustMode: secure-aggregation, mechanism: none}');
  expect(bare).toContain('sums hide who predicted what, and no differential privacy is claimed');
  expect(bare).not.toContain('epsilon');
});

it('says one line a round, and nothing for events that nobody waits for', () => {
  const lines = new ProgressLines(10);
  const say = (event: string, fields: object) => lines.lineFor({ event, ...fields });
  expect(say('task-opened', { minClients: 2 })).toBe('waiting for 2 clients (0/2)');
  expect(say('waiting', { connected: 1, needed: 2 })).toBe('waiting for 1 more client (1/2)');
  expect(say('waiting', { connected: 2, needed: 2 })).toBeUndefined();
  expect(say('contribution', { round: 1 })).toBeUndefined();
  expect(say('round-aggregated', { round: 1, contributions: 5, consensusAccuracy: 0.912, teacherAccuracy: 0.92, seconds: 4.14 })).toBeUndefined();
  expect(say('round-released', { round: 1, contributions: 5, cohort: 5 })).toBe('round 1/10: 5 of 5 contributions, consensus accuracy 91.2 %, teacher 92.0 %, 4.1 s');
  expect(say('round-aborted', { round: 2, contributions: 1, cohort: 5, code: 'quorum-missed' })).toBe('round 2: aborted with 1 of 5 contributions (quorum-missed)');
  expect(say('round-aborted', { round: 2, contributions: 3, cohort: 5, code: 'quorum-missed', stage: 'contribution', needed: 4 })).toBe('round 2: aborted with 3 of 5 contributions (quorum-missed)');
  expect(say('round-aborted', { round: 2, contributions: 3, cohort: 5, code: 'quorum-missed', stage: 'maskedInput', needed: 4 })).toBe('round 2: aborted in stage maskedInput with 3 of 5 clients, 4 needed (quorum-missed)');
  expect(say('share-suspects', { round: 2, clients: ['abc', 'def'] })).toBe('round 2: secret shares did not fit; the sum was made without them. Sent by abc, def, who lied or were lied to');
  expect(say('round-aggregated', { round: 3, contributions: 4, teacherAccuracy: null, seconds: 2 })).toBeUndefined();
  expect(say('round-released', { round: 3, contributions: 4, cohort: 5 })).toBe('round 3 (2/10 released): 4 of 5 contributions, 2.0 s');
  expect(say('restarted', { released: 2 })).toBe('going on after 2/10 rounds');
  expect(say('client-lost', { client: 'abc' })).toBe('client abc lost its connection');
  expect(say('finished', { reason: 'rounds-done', released: 10 })).toBe('finished: all rounds done; 10 rounds released');
  expect(say('client-lost', { client: 'abc' })).toBeUndefined();
});
