import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { z } from 'zod';
import { ConfigError, configIssues, nearest, parseConfig, parseTaskConfig, parseYaml, schemaKeys } from '../../../shared/config/load.ts';
import type { ConfigIssue } from '../../../shared/config/load.ts';
import { TaskConfigSchema } from '../../../shared/config/task-config.ts';
import type { FederationError } from '../../../shared/errors.ts';

const minimal = { task: 'digits', data: { numClasses: 10, exampleShape: [28, 28, 1] }, transferSet: { source: 'mnist' } };

/** The mistakes in a text; empty when it is valid. */
function mistakes(text: string): readonly ConfigIssue[] {
  try {
    parseTaskConfig(text, 'task.yaml');
    return [];
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).code).toBe('config-invalid');
    return configIssues(error);
  }
}
/** The mistakes in the minimal task with these sections added. */
const mistakesWith = (sections: object) => mistakes(stringify({ ...minimal, ...sections }));
const paths = (issues: readonly ConfigIssue[]) => issues.map((issue) => issue.path);

describe('a valid task', () => {
  it('is filled in with defaults', () => {
    const task = parseTaskConfig(stringify(minimal), 'task.yaml');
    expect(task.transferSet).toEqual({ source: 'mnist', split: 'train', offset: 0 });
    expect(task.privacy.mechanism).toBe('none');
    expect(task.schedule.rounds).toBe(5);
  });

  it('survives a trip through YAML', () => {
    const task = parseTaskConfig(stringify({ ...minimal, privacy: { mechanism: 'laplace', epsilon: 2.71828 } }), 'task.yaml');
    expect(parseTaskConfig(stringify(task), 'task.yaml')).toEqual(task);
  });
});

describe('mistakes against the schema', () => {
  it('are all reported at once, in the order of the file, each with its place', () => {
    const issues = mistakes(['task: digits', 'seed: -1', 'data:', '  numClasses: ten', '  exampleShape: [28, 0]', 'transferSet:', '  source: mnist', '  splt: test', 'schedule: { rounds: 0 }'].join('\n'));
    expect(issues.map(({ path, line, column, got }) => ({ path, line, column, got }))).toEqual([
      { path: 'seed', line: 2, column: 7, got: '-1' },
      { path: 'data.numClasses', line: 4, column: 15, got: '"ten"' },
      { path: 'data.exampleShape[1]', line: 5, column: 22, got: '0' },
      { path: 'transferSet.splt', line: 8, column: 3, got: '`splt`' },
      { path: 'schedule.rounds', line: 9, column: 21, got: '0' },
    ]);
  });

  it.each<[string, object, Partial<ConfigIssue>]>([
    ['invalid_type', { student: { batchSize: 1.5 } }, { path: 'student.batchSize', expected: 'an integer', got: '1.5' }],
    ['invalid_type, a scalar for a section', { schedule: 5 }, { path: 'schedule', expected: 'a section (a mapping of keys)', got: '5' }],
    ['invalid_type, infinity', { student: { l2: Infinity } }, { path: 'student.l2', expected: 'a number', got: 'Infinity' }],
    ['too_small', { student: { l2: -1 } }, { expected: 'at least 0', got: '-1' }],
    ['too_small, exclusive', { privacy: { mechanism: 'laplace', epsilon: 0 } }, { path: 'privacy.epsilon', expected: 'more than 0', got: '0' }],
    ['too_big', { distillation: { temperature: 101 } }, { expected: 'at most 100', got: '101' }],
    ['too_big, exclusive', { distillation: { alpha: 1 } }, { expected: 'less than 1', got: '1' }],
    ['too_big, a list', { data: { numClasses: 2, exampleShape: [1, 1, 1, 1, 1] } }, { path: 'data.exampleShape', expected: 'at most 4 entries', got: 'a list of 5 entries' }],
    ['invalid_value', { privacy: { mechanism: 'gausian' } }, { expected: 'one of none, gaussian, laplace, discreteGaussian, dpSgd', got: '"gausian"', hint: 'did you mean `gaussian`?' }],
    ['invalid_value, abbreviated', { privacy: { mechanism: 'gauss' } }, { hint: 'did you mean `gaussian`?' }],
    ['invalid_format', { task: 'Digits!' }, { path: 'task', got: '"Digits!"' }],
    ['invalid_union, no discriminator', { teacher: {} }, { path: 'teacher.kind', expected: 'one of consensus, learner, pretrained, semiSupervised', got: 'nothing' }],
    ['invalid_union, wrong discriminator', { teacher: { kind: 'lerner' } }, { path: 'teacher.kind', got: '"lerner"', hint: 'did you mean `learner`?' }],
    ['unrecognized_keys', { student: { learnRate: 1 } }, { path: 'student.learnRate', expected: 'a known key' }],
    ['unrecognized_keys, misspelled', { distillation: { temprature: 2 } }, { path: 'distillation.temprature', hint: 'did you mean `temperature`?' }],
    ['unrecognized_keys, a section', { privcy: {} }, { path: 'privcy', hint: 'did you mean `privacy`?' }],
    ['unrecognized_keys, in a union', { student: { optimizer: { kind: 'sgd', momentun: 0.5 } } }, { path: 'student.optimizer.momentun', hint: 'did you mean `momentum`?' }],
    ['unrecognized_keys, of another kind', { student: { optimizer: { kind: 'adam', momentum: 0.5 } } }, { hint: 'known here: kind, learningRate' }],
    ['unrecognized_keys, of another section', { temperature: 2 }, { path: 'temperature', hint: 'did you mean `distillation.temperature`?' }],
    ['unrecognized_keys, in snake case', { student: { learning_rate: 2 } }, { hint: 'did you mean `student.optimizer.learningRate`?' }],
    ['an empty value', { student: { model: null } }, { path: 'student.model', expected: 'text', got: 'nothing', hint: 'give it a value, or leave the key out' }],
  ])('%s', (_, sections, expected) => {
    const issues = mistakesWith(sections);
    expect(issues).toHaveLength(1);
    expect(issues[0]).toMatchObject(expected);
    expect(issues[0]!.line).toBeGreaterThan(0);
  });

  it('says which keys are required', () => {
    const issues = mistakes('seed: 3');
    expect(paths(issues).sort()).toEqual(['data', 'task', 'transferSet']);
    for (const issue of issues) expect(issue.got).toBe('nothing');
  });

  it('finds values behind aliases', () => {
    expect(mistakes('task: digits\ndata: &d { numClasses: 1, exampleShape: [1] }\ntransferSet: { source: mnist }\n')).toMatchObject([{ path: 'data.numClasses', line: 2, column: 24 }]);
  });

  it('gives up neither on plain unions nor on custom messages', () => {
    const schema = z.strictObject({ either: z.union([z.string(), z.number()]), odd: z.int().refine((n) => n % 2 === 1, 'expected an odd number'), triple: z.int().multipleOf(3) });
    expect(() => parseYaml(schema, 'either: true\nodd: 2\ntriple: 4\n', 's.yaml')).toThrow(
      's.yaml: 3 mistakes\n  s.yaml:1:9: either: expected text or a number, got true\n  s.yaml:2:6: odd: expected an odd number, got 2\n  s.yaml:3:9: triple: expected a multiple of 3, got 4',
    );
  });

  it('checks plain data as it checks a file, without places', () => {
    try {
      parseConfig(TaskConfigSchema, { ...minimal, seed: 'x' }, 'cell 3 of the sweep');
      expect.unreachable();
    } catch (error) {
      expect(configIssues(error)).toMatchObject([{ path: 'seed', line: undefined }]);
      expect((error as FederationError).message).toContain('cell 3 of the sweep: seed: expected an integer, got "x"');
    }
  });
});

describe('rules between keys', () => {
  const noised = { mechanism: 'gaussian', epsilon: 1 };
  const trained = { mechanism: 'dpSgd', unit: 'record', epsilon: 4, dpSgd: { samplingRate: 0.02, stepsPerRound: 40 } };
  const distributed = { trustMode: 'secure-aggregation', mechanism: 'discreteGaussian', epsilon: 1, secureAggregation: { maxCorrupt: 1 } };
  const secureSchedule = { quorum: 6, minClients: 6 };
  it.each<[string, object, Partial<ConfigIssue>]>([
    ['a quorum above minClients', { schedule: { quorum: 3 } }, { path: 'schedule.minClients', got: '2' }],
    ['a quorum above the cohort', { schedule: { quorum: 2, cohortSize: 1 } }, { path: 'schedule.quorum', got: '2' }],
    ['noise without epsilon', { privacy: { mechanism: 'laplace' } }, { path: 'privacy.epsilon', got: 'nothing' }],
    ['epsilon without noise', { privacy: { epsilon: 1 } }, { path: 'privacy.epsilon', got: '1' }],
    ['noise in the clear', { privacy: { ...noised, trustMode: 'clear' } }, { path: 'privacy.trustMode', got: 'clear' }],
    ['local noise under secure aggregation', { privacy: { ...noised, trustMode: 'secure-aggregation' }, schedule: secureSchedule }, { path: 'privacy.mechanism', got: 'gaussian', hint: 'under secure aggregation each client adds a share of the noise: `mechanism: discreteGaussian`' }],
    ['a share of noise outside a sum', { privacy: { ...distributed, trustMode: 'sealed' } }, { path: 'privacy.mechanism', got: 'discreteGaussian' }],
    ['a share of noise in the clear', { privacy: { ...distributed, trustMode: 'clear' } }, { path: 'privacy.trustMode', expected: 'secure-aggregation, because privacy.mechanism is discreteGaussian' }],
    ['a secure sum of two', { privacy: distributed }, { path: 'schedule.quorum', expected: 'at least 3, because privacy.trustMode is secure-aggregation' }],
    ['nobody honest in a sum', { privacy: { ...distributed, secureAggregation: { maxCorrupt: 6 } }, schedule: secureSchedule }, { path: 'privacy.secureAggregation.maxCorrupt', expected: 'below schedule.quorum (6)' }],
    ['a quorum that lets two sums be opened', { privacy: distributed, schedule: { ...secureSchedule, cohortSize: 12 } }, { path: 'schedule.quorum', expected: 'at least 7 for 12 clients of which 1 may be corrupt' }],
    ['records without shards', { privacy: { ...noised, unit: 'record' } }, { path: 'privacy.unit', got: 'record' }],
    ['private training without settings', { privacy: { ...noised, unit: 'record', mechanism: 'dpSgd' } }, { path: 'privacy.dpSgd', got: 'nothing' }],
    ['settings of private training without it', { privacy: { ...noised, dpSgd: {} } }, { path: 'privacy.dpSgd', got: 'settings' }],
    ['private training with shards', { privacy: { ...trained, sampleAndAggregate: { shards: 5 } } }, { path: 'privacy.sampleAndAggregate', got: 'settings' }],
    ['private training under a promise to clients', { privacy: { ...trained, unit: 'client' } }, { path: 'privacy.unit', got: 'client' }],
    ['private training in a secure sum', { privacy: { ...trained, trustMode: 'secure-aggregation' }, schedule: secureSchedule }, { path: 'privacy.mechanism', got: 'dpSgd' }],
    ['private training in the clear', { privacy: { ...trained, trustMode: 'clear' } }, { path: 'privacy.trustMode', expected: 'sealed, because privacy.mechanism is dpSgd' }],
    ['private training without a target', { privacy: { ...trained, epsilon: undefined } }, { path: 'privacy.epsilon' }],
    ['private training that stops by looking', { privacy: trained, student: { earlyStoppingPatience: 2 } }, { path: 'student.earlyStoppingPatience', got: '2' }],
    ['private training that mixes records in', { privacy: trained, distillation: { alpha: 0.2 } }, { path: 'distillation.alpha', got: '0.2' }],
    ['shards under a promise to clients', { privacy: { ...noised, sampleAndAggregate: { shards: 5 } } }, { path: 'privacy.unit', got: 'client' }],
    ['shards without noise, matrix by matrix', { privacy: { unit: 'record', sampleAndAggregate: { shards: 5 } } }, { path: 'privacy.mechanism', got: 'none' }],
    ['votes among logits', { privacy: { ...noised, unit: 'record', sampleAndAggregate: { shards: 5 } }, aggregation: { aggregator: 'meanLogits' } }, { path: 'aggregation.aggregator', got: 'meanLogits' }],
    ['mean of logits from a softmax teacher', { aggregation: { aggregator: 'meanLogits' }, teacher: { kind: 'pretrained', path: 'm', outputKind: 'probabilities' } }, { path: 'teacher.outputKind' }],
    ['votes as they are for a teacher that takes probabilities', { aggregation: { aggregator: 'meanVotes' } }, { path: 'aggregation.aggregator', expected: 'meanProbabilities, meanLogits or entropyReduction, because teacher.kind is learner' }],
    ['projected votes for a teacher that spreads them', { teacher: { kind: 'semiSupervised' }, transferSet: { source: 'mnist', size: 3000 } }, { path: 'aggregation.aggregator', expected: 'meanVotes, because teacher.kind is semiSupervised' }],
    ['a majority of probabilities that nobody sees one by one', { privacy: { trustMode: 'secure-aggregation' }, schedule: secureSchedule, aggregation: { aggregator: 'majorityVote' } }, { path: 'aggregation.aggregator', got: 'majorityVote' }],
    ['weights of predictions that nobody sees', { privacy: { trustMode: 'secure-aggregation' }, schedule: secureSchedule, aggregation: { aggregator: 'entropyWeighted' } }, { path: 'aggregation.aggregator', got: 'entropyWeighted' }],
    ['weights from the entropy of noise', { privacy: noised, aggregation: { aggregator: 'entropyWeighted' } }, { path: 'aggregation.aggregator', expected: 'an aggregator without weights, because privacy.mechanism is gaussian' }],
    ['a threshold on what is no probability', { teacher: { kind: 'semiSupervised' }, transferSet: { source: 'mnist', size: 3000 }, aggregation: { aggregator: 'meanVotes', maxEntropy: 0.5 } }, { path: 'aggregation.maxEntropy', got: '0.5' }],
    ['few bits of noised integers', { privacy: noised, aggregation: { encoding: 'bits1' } }, { path: 'aggregation.encoding', got: 'bits1' }],
    ['few bits of masked integers', { privacy: { trustMode: 'secure-aggregation' }, schedule: secureSchedule, aggregation: { encoding: 'bits8' } }, { path: 'aggregation.encoding', expected: 'an encoding that leaves integers as they are, because privacy.trustMode is secure-aggregation' }],
    ['few bits of logits', { aggregation: { aggregator: 'meanLogits', encoding: 'bits4' } }, { path: 'aggregation.encoding', got: 'bits4' }],
    ['few bits of labels that are compared as logits', { aggregation: { aggregator: 'meanLogits' }, distillation: { loss: 'logitMae', labelEncoding: 'bits4' } }, { path: 'distillation.labelEncoding', got: 'bits4' }],
    ['few bits of a consensus of logits', { teacher: { kind: 'consensus' }, aggregation: { aggregator: 'meanLogits' }, distillation: { labelEncoding: 'bits4' } }, { path: 'distillation.labelEncoding', got: 'bits4' }],
    ['a cache of what a model says', { distillation: { cache: {} } }, { path: 'teacher.kind', got: 'learner' }],
    ['a cache of noised predictions', { teacher: { kind: 'consensus' }, privacy: noised, distillation: { cache: {} } }, { path: 'distillation.cache', got: 'settings' }],
    ['a cache of the same queries each time', { teacher: { kind: 'consensus' }, distillation: { cache: {} }, schedule: { querySelection: 'clusterMiddles', transferBatch: 100 }, transferSet: { source: 'mnist', size: 3000 } }, { path: 'schedule.querySelection', got: 'clusterMiddles' }],
    ['a cache of labels whose bytes depend on each other', { teacher: { kind: 'consensus' }, distillation: { cache: {}, labelEncoding: 'uint8' } }, { path: 'distillation.labelEncoding', got: 'uint8' }],
    ['rows that are left out under noise', { privacy: noised, distillation: { sharing: { minConfidence: 0.9 } } }, { path: 'distillation.sharing', expected: 'nothing, because privacy.mechanism is gaussian' }],
    ['more clients a row than a round may have', { distillation: { sharing: { minClients: 3 } } }, { path: 'distillation.sharing.minClients', expected: 'at most schedule.quorum (2)' }],
    ['rows that are left out of a sum', { privacy: { trustMode: 'secure-aggregation' }, schedule: secureSchedule, distillation: { sharing: {} } }, { path: 'distillation.sharing', got: 'settings' }],
    ['clusters of too many examples', { schedule: { querySelection: 'clusterMiddles' }, transferSet: { source: 'mnist', size: 20_001 } }, { path: 'transferSet.size', got: '20001' }],
    ['logit loss on probabilities', { distillation: { loss: 'logitMae' } }, { path: 'distillation.loss' }],
    ['a batch larger than the set', { transferSet: { source: 'mnist', size: 100 }, schedule: { transferBatch: 101 } }, { path: 'schedule.transferBatch', got: '101' }],
    ['a batch larger than what MNIST has left', { transferSet: { source: 'mnist', split: 'test', offset: 9000 }, schedule: { transferBatch: 1001 } }, { path: 'schedule.transferBatch', got: '1001' }],
    ['a noised matrix that no client can send', { data: { numClasses: 1000, exampleShape: [28, 28, 1] }, privacy: noised }, { path: 'schedule.transferBatch', got: '60000' }],
    ['the same without noise', { data: { numClasses: 1000, exampleShape: [28, 28, 1] } }, { path: 'schedule.transferBatch', got: '60000' }],
    ['patience without an evaluation set', { schedule: { convergencePatience: 2 } }, { path: 'schedule.convergencePatience', got: '2' }],
    ['an evaluation set without labels', { evaluationSet: { source: 'csv', path: 'a.csv' } }, { path: 'evaluationSet.labelColumn' }],
  ])('refuse %s', (_, sections, expected) => {
    const issues = mistakesWith(sections);
    expect(issues).toHaveLength(1);
    expect(issues[0]).toMatchObject(expected);
  });

  it.each<[string, object]>([
    ['quorum = minClients = cohort', { schedule: { quorum: 4, minClients: 4, cohortSize: 4 } }],
    ['noise with epsilon', { privacy: noised }],
    ['distributed noise', { privacy: distributed, schedule: { ...secureSchedule, cohortSize: 9 } }],
    ['private training', { privacy: trained }],
    ['masks alone', { privacy: { trustMode: 'secure-aggregation' }, schedule: secureSchedule }],
    ['votes of shards in a secure sum', { privacy: { ...distributed, unit: 'record', sampleAndAggregate: { shards: 25 } }, schedule: secureSchedule }],
    ['probabilities of shards with local noise', { privacy: { ...noised, unit: 'record', sampleAndAggregate: { shards: 25, votes: false } } }],
    ['few queries for a semi-supervised teacher', { teacher: { kind: 'semiSupervised' }, aggregation: { aggregator: 'meanVotes' }, schedule: { querySelection: 'clusterMiddles', transferBatch: 60 }, transferSet: { source: 'mnist', size: 3000 } }],
    ['a baseline in the clear', { privacy: { trustMode: 'clear' } }],
    ['FedMD as published', { aggregation: { aggregator: 'meanLogits' }, distillation: { loss: 'logitMae' }, teacher: { kind: 'consensus' } }],
    ['a majority of the votes of shards in a secure sum', { privacy: { ...distributed, unit: 'record', sampleAndAggregate: { shards: 25 } }, schedule: secureSchedule, aggregation: { aggregator: 'majorityVote' } }],
    ['Enhanced ERA of a secure sum', { privacy: distributed, schedule: secureSchedule, aggregation: { aggregator: 'enhancedEra', eraExponent: 1.5 } }],
    ['weights after private training', { privacy: trained, aggregation: { aggregator: 'entropyWeighted', maxEntropy: 0.7 } }],
    ['SCARLET', { teacher: { kind: 'consensus' }, aggregation: { aggregator: 'enhancedEra' }, distillation: { cache: { rounds: 50 } } }],
    ['CFD with one bit both ways', { aggregation: { encoding: 'bits1' }, distillation: { labelEncoding: 'bits1' } }],
    ['few bits of the labels of noised votes', { privacy: noised, distillation: { labelEncoding: 'bits2' } }],
    ['CFD with one bit', { aggregation: { aggregator: 'majorityVote', encoding: 'bits1' } }],
    ['rows that are left out after private training', { privacy: trained, distillation: { sharing: { minConfidence: 0.9, maxEntropy: 0.5 } }, aggregation: { encoding: 'bits8' } }],
    ['a batch of the whole set', { transferSet: { source: 'mnist', size: 100 }, schedule: { transferBatch: 100 } }],
    ['many classes in a compact encoding', { data: { numClasses: 1000, exampleShape: [28, 28, 1] }, aggregation: { encoding: 'uint8' } }],
    ['patience with an evaluation set', { schedule: { convergencePatience: 2 }, evaluationSet: { source: 'mnist', split: 'test' } }],
  ])('allow %s', (_, sections) => {
    expect(mistakesWith(sections)).toEqual([]);
  });

  it('are reported together with mistakes against the schema, but not about keys that are invalid anyway', () => {
    const issues = mistakesWith({ seed: -1, schedule: { quorum: 3, rounds: 'x', unknown: 1 }, privacy: { mechanism: 'laplace', epsilon: 'four' }, distillation: { loss: 'logitMae' } });
    expect(paths(issues).sort()).toEqual(['distillation.loss', 'privacy.epsilon', 'schedule.minClients', 'schedule.rounds', 'schedule.unknown', 'seed']);
    expect(issues.find((issue) => issue.path === 'privacy.epsilon')!.got).toBe('"four"');
  });
});

describe('texts that are no task', () => {
  it.each<[string, string, string, number | undefined]>([
    ['an empty file', '', 'got nothing', undefined],
    ['a list', '- task', 'got a list of 1 entry', undefined],
    ['a tab', 'task: a\ndata:\n\tnumClasses: 3\n', 'indent with spaces', 3],
    ['a key twice', 'task: a\ntask: b\n', 'keep one of the two', 2],
    ['an open bracket', 'task: [a\n', 'expected valid YAML', 2],
    ['an unknown alias', 'task: *nobody\n', 'nobody', undefined],
    ['two documents', 'task: a\n---\ntask: b\n', 'keep one document', 2],
    ['a very long text', '#'.repeat(2 ** 21), 'at most 1048576 characters', undefined],
    ['aliases that multiply', `a: &a [1,1,1,1,1,1,1,1,1]\n${[...'bcdefgh'].map((key, i) => `${key}: &${key} [${Array(9).fill(`*${'abcdefg'[i]!}`).join(',')}]\n`).join('')}`, 'alias', undefined],
    ['brackets without end', `task: ${'['.repeat(100_000)}`, 'task.yaml', undefined],
  ])('are refused in the same form: %s', (_, text, part, line) => {
    const issues = mistakes(text);
    expect(issues.length).toBeGreaterThan(0);
    if (line !== undefined) expect(issues[0]!.line).toBe(line);
    try {
      parseTaskConfig(text, 'task.yaml');
    } catch (error) {
      expect((error as FederationError).message).toContain(part);
      expect((error as FederationError).message.length).toBeLessThan(10_000);
    }
  });

  it('never escape as another error, and leave prototypes alone', () => {
    const words = fc.constantFrom('task', 'data', ':', ' ', '\n', '  ', '- ', '{', '}', '[', ']', '&a', '*a', '"', '|', '1', 'null', '__proto__', '!!set', '? ', '<<', '#', '%', '\t', 'privacy', 'transferSet');
    fc.assert(fc.property(fc.array(words, { maxLength: 25 }), (parts) => {
      mistakes(parts.join(''));
    }), { numRuns: 2000 });
    mistakes('__proto__: { polluted: 1 }\nconstructor: { prototype: { polluted: 1 } }');
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  it('never escape as another error: arbitrary values in the right places', () => {
    const values = fc.oneof(fc.jsonValue(), fc.constantFrom('mnist', 'csv', 'sgd', 'gaussian', -1, 0.5));
    const keys = schemaKeys(TaskConfigSchema).filter((key) => !key.includes('.'));
    fc.assert(fc.property(fc.dictionary(fc.constantFrom(...keys), fc.oneof(values, fc.dictionary(fc.constantFrom('source', 'kind', 'mode', 'size', 'rounds', 'epsilon'), values))), (task) => {
      mistakes(stringify(task));
    }), { numRuns: 500 });
  });
});

describe('nearest', () => {
  it('finds slips and leaves strangers alone', () => {
    const options = ['temperature', 'alpha', 'loss'];
    expect(nearest('temprature', options)).toBe('temperature');
    expect(nearest('Temperature', options)).toBe('temperature');
    expect(nearest('aplha', options)).toBe('alpha');
    expect(nearest('zebra', options)).toBeUndefined();
    expect(nearest('x'.repeat(1e6), options)).toBeUndefined();
  });
});
