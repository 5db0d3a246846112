/** A scenario: a task, its simulated clients and the network between them, in one YAML file (docs/simulate.md). */
import { z } from 'zod';
import type { ConfigRule } from '../shared/config/config-rule.ts';
import { parseConfig, parseYaml } from '../shared/config/load.ts';
import { PartitionSchema } from '../shared/config/partition-config.ts';
import { DataSourceSchema, TaskConfigSchema, type TaskConfig } from '../shared/config/task-config.ts';
import { taskRules } from '../shared/config/task-rules.ts';
import { ViewSchema } from '../shared/config/view-config.ts';
import { viewShape } from '../shared/datasets/views.ts';
import { FederationError } from '../shared/errors.ts';
import { checkZooModel } from '../shared/models/catalog.ts';
import { AlgorithmSchema, algorithmRules } from './baselines/algorithm.ts';
import { dropoutCount } from './network/faults.ts';

const GroupSchema = z.strictObject({
  /** How many clients are alike. */
  count: z.int().min(1).max(10_000),
  /** A name from the model zoo. */
  model: z.string().min(1),
  /** Virtual milliseconds of one training step on these clients' devices. */
  stepMs: z.number().min(0).max(60_000).default(5),
  /** How these clients see every example (docs/data.md); default: as it is. */
  view: ViewSchema.optional(),
});

export const ScenarioSchema = z.strictObject({
  scenario: z.string().regex(/^[a-z0-9][a-z0-9_-]{0,63}$/, 'expected 1 to 64 characters of a-z, 0-9, - and _'),
  task: TaskConfigSchema,
  /** How is learned (docs/algorithms.md): by the task's federation, or by a baseline that it is held against. */
  algorithm: AlgorithmSchema.prefault({ kind: 'federation' }),
  clients: z.strictObject({
    groups: z.array(GroupSchema).min(1).max(100),
    /** Labelled examples that are split over the clients. */
    data: DataSourceSchema,
    partition: PartitionSchema.prefault({ kind: 'iid' }),
    /** Labelled examples on which every client measures its own student; nothing of it is sent. */
    testSet: DataSourceSchema.optional(),
    /** Also train each client's student without the federation, as a baseline. */
    baseline: z.boolean().default(true),
  }),
  network: z
    .strictObject({
      /** One-way delay of every message. */
      latencyMs: z.number().min(0).max(60_000).default(20),
      /** Bytes a second of each client's link; 0 = unlimited. */
      bytesPerSecond: z.number().min(0).default(0),
      /** Probability that a message is lost. */
      lossRate: z.number().min(0).max(0.9).default(0),
      /** Probability that a message breaks its connection; the client reconnects. */
      breakRate: z.number().min(0).max(0.9).default(0),
    })
    .prefault({}),
  /** Clients that vanish and come back, and slow ones; default: none. */
  faults: z
    .strictObject({
      /** Share of all clients that vanishes in each round, each in a stage that the seed chooses. */
      dropoutRate: z.number().min(0).max(0.9).default(0),
      /** How long a client that vanished cannot reach the coordinator, in virtual milliseconds. */
      awayMs: z.number().min(0).max(86_400_000).default(60_000),
      /** This share of the clients trains and sends `factor` times as slowly as its group, in every round. */
      stragglers: z.strictObject({ share: z.number().min(0).max(1).default(0), factor: z.number().min(1).max(1000).default(10) }).prefault({}),
    })
    .optional(),
});
export type Scenario = Omit<z.infer<typeof ScenarioSchema>, 'task'> & { readonly task: TaskConfig };

/** Number of clients in all groups. */
export function clientCount(scenario: Pick<Scenario, 'clients'>): number {
  return scenario.clients.groups.reduce((sum, group) => sum + group.count, 0);
}

/** Throws `config-invalid` with every mistake. */
export function parseScenario(text: string, fileName: string): Scenario {
  return checkBetweenSections(parseYaml(ScenarioSchema, text, fileName, scenarioRules) as Scenario, fileName);
}

/** A scenario from plain data: what a sweep made of one. `name` stands for the file's name. Throws `config-invalid` with every mistake. */
export function checkScenario(value: unknown, name: string): Scenario {
  return checkBetweenSections(parseConfig(ScenarioSchema, value, name, scenarioRules) as Scenario, name);
}

const scenarioRules: readonly ConfigRule<z.infer<typeof ScenarioSchema>>[] = [
  ...taskRules.map((rule): ConfigRule<z.infer<typeof ScenarioSchema>> => ({
    reads: rule.reads.map((path) => `task.${path}`),
    check: (config) => {
      const problem = config.task === undefined ? undefined : rule.check(config.task);
      return problem && { ...problem, path: `task.${problem.path}` };
    },
  })),
  ...algorithmRules,
];

function checkBetweenSections(scenario: Scenario, fileName: string): Scenario {
  const clients = clientCount(scenario);
  if (scenario.task.schedule.minClients > clients) {
    throw new FederationError('config-invalid', `${fileName}: the task waits for more clients than the scenario has.`, {
      field: 'task.schedule.minClients',
      expected: `at most ${clients}`,
      got: String(scenario.task.schedule.minClients),
      next: 'Lower task.schedule.minClients, or raise the counts in clients.groups.',
    });
  }
  const vanishing = dropoutCount(scenario.faults?.dropoutRate ?? 0, clients);
  if (clients - vanishing < scenario.task.schedule.quorum) {
    throw new FederationError('config-invalid', `${fileName}: so many clients vanish in each round that none can ever have its quorum.`, {
      field: 'faults.dropoutRate',
      expected: `at most ${Math.max(0, clients - scenario.task.schedule.quorum)} of ${clients} clients`,
      got: `${vanishing} of ${clients}`,
      next: 'Lower faults.dropoutRate or task.schedule.quorum.',
    });
  }
  checkGroups(scenario, fileName);
  return scenario;
}

/** Before any data are read: each group's view fits the examples, and its model what the view shows. */
function checkGroups({ task, clients }: Scenario, fileName: string): void {
  for (const [i, { model, view = [] }] of clients.groups.entries()) {
    try {
      checkZooModel(model, viewShape(view, task.data.exampleShape));
    } catch (cause) {
      if (!(cause instanceof FederationError)) throw cause;
      const { field = '', expected = '', got = '', next = '' } = cause;
      throw new FederationError('config-invalid', `${fileName}: clients.groups[${i}].${field}: ${cause.message}`, { field: `clients.groups[${i}].${field}`, expected, got, next, cause });
    }
  }
}
