/** `privacy.recordVotes`: what it goes with. */
import { describe, expect, it } from 'vitest';
import { TaskConfigSchema } from '../../../shared/config/task-config.ts';
import { taskRules } from '../../../shared/config/task-rules.ts';

const secure = { trustMode: 'secure-aggregation', mechanism: 'discreteGaussian', epsilon: 1, unit: 'record', recordVotes: {} };
const votes = { aggregation: { aggregator: 'meanVotes' }, teacher: { kind: 'semiSupervised' } };
const task = { task: 'votes', data: { numClasses: 10, exampleShape: [28, 28, 1] }, transferSet: { source: 'mnist', size: 500 }, schedule: { minClients: 5, quorum: 4 }, ...votes };

const problems = (change: object) => {
  const config = TaskConfigSchema.parse({ ...task, ...change });
  return taskRules.flatMap((rule) => rule.check(config) ?? []);
};

describe('privacy.recordVotes', () => {
  it.each([
    ['noise in a secure sum', { privacy: secure }],
    ['a secure sum without noise', { privacy: { ...secure, mechanism: 'none', epsilon: undefined } }],
    ['local Gaussian noise', { privacy: { mechanism: 'gaussian', epsilon: 1, unit: 'record', recordVotes: { maxRecords: 500 } } }],
    ['local Laplace noise', { privacy: { mechanism: 'laplace', epsilon: 1, unit: 'record', recordVotes: {} } }],
  ])('goes with %s', (_what, change) => {
    expect(problems(change)).toEqual([]);
  });

  it.each([
    ['the unit client', { privacy: { ...secure, unit: 'client' } }, 'privacy.unit', 'client'],
    ['shards', { privacy: { ...secure, sampleAndAggregate: { shards: 5 } } }, 'privacy.recordVotes', 'settings'],
    ['private training', { privacy: { mechanism: 'dpSgd', epsilon: 1, unit: 'record', dpSgd: {}, recordVotes: {} } }, 'privacy.recordVotes', 'settings'],
    ['no noise, client by client', { privacy: { unit: 'record', recordVotes: {} } }, 'privacy.mechanism', 'none'],
    ['a mean of probabilities', { privacy: secure, aggregation: undefined, teacher: undefined }, 'aggregation.aggregator', 'meanProbabilities'],
    ['a mean of logits', { privacy: secure, aggregation: { aggregator: 'meanLogits' }, teacher: undefined }, 'aggregation.aggregator', 'meanLogits'],
  ])('does not go with %s', (_what, change, path, got) => {
    expect(problems(change)).toContainEqual(expect.objectContaining({ path, got }));
  });
});
