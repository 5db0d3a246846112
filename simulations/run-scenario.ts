/** Runs a scenario and gives its outcome in the one shape that federations and baselines share (`outcome.ts`). */
import { secureCohortOf } from '../shared/config/secure-cohort.ts';
import { chargedRelease } from '../shared/privacy/ledger.ts';
import { buildStatement, type PrivacyStatement } from '../shared/privacy/statement.ts';
import type { Delta } from '../shared/types/units.ts';
import { runBaseline } from './baselines/run-baseline.ts';
import { qualityOf } from './model-quality.ts';
import type { ClientOutcome, Outcome, RoundOutcome } from './outcome.ts';
import { runSimulation, type SimulatedClient, type SimulationOptions, type SimulationResult } from './run-simulation.ts';
import type { Scenario } from './scenario.ts';
import { mean } from './spread.ts';

export async function runScenario(options: SimulationOptions): Promise<Outcome> {
  const { algorithm } = options.scenario;
  if (algorithm.kind !== 'federation') return runBaseline(algorithm, options);
  return federationOutcome(options, await runSimulation(options));
}

export function federationOutcome({ scenario, data }: Pick<SimulationOptions, 'scenario' | 'data'>, result: SimulationResult): Outcome {
  const { clients, rounds } = result;
  const hasModel = scenario.task.teacher.kind !== 'consensus';
  return {
    reason: result.reason,
    final: hasModel ? qualityOf(result.testLogits, data.testSet) : null,
    clients: clients.map(clientOutcome),
    // Round 0: every student after its pretraining, before anybody has learned from anybody.
    rounds: [roundOutcome(clients, 0, 0, null), ...rounds.map(({ round, contributions, teacherAccuracy }) => roundOutcome(clients, round, contributions, teacherAccuracy))],
    ...bytesUntil(clients, Infinity),
    statement: statementOf(scenario, result),
  };
}

/** What the releases of a federation would guarantee with noise of the system's generator, for a client that took part in every round that was opened. */
export function statementOf({ task }: Pick<Scenario, 'task'>, { release, opened }: Pick<SimulationResult, 'release' | 'opened'>): PrivacyStatement {
  const charged = chargedRelease(release);
  const ledger = Array.from({ length: opened }, () => charged);
  return buildStatement({ trustMode: task.privacy.trustMode, parameters: release, secureAggregation: secureCohortOf(task), delta: task.privacy.delta as Delta, ledger });
}

function clientOutcome({ name, model, privateRecords, metrics, error }: SimulatedClient): ClientOutcome {
  const final = metrics.find(({ phase }) => phase === 'final');
  return {
    name,
    model,
    privateRecords,
    accuracy: final?.testAccuracy ?? null,
    nll: final?.testNll ?? null,
    localOnlyAccuracy: final?.localOnlyTestAccuracy ?? null,
    error: error === undefined ? null : { code: error.code, message: error.message },
  };
}

function roundOutcome(clients: readonly SimulatedClient[], round: number, contributions: number, accuracy: number | null): RoundOutcome {
  const measured = clients.flatMap(({ metrics }) => metrics.find((line) => line.phase !== 'final' && line.round === round)?.testAccuracy ?? []);
  return { round, contributions, accuracy, meanClientAccuracy: measured.length === 0 ? null : mean(measured), ...bytesUntil(clients, round) };
}

/** Payload of all clients, each as it last counted its own in a round up to this one; in all rounds: at its end. */
function bytesUntil(clients: readonly SimulatedClient[], round: number): Pick<Outcome, 'bytesUp' | 'bytesDown'> {
  const total = { bytesUp: 0, bytesDown: 0 };
  for (const { metrics, summary } of clients) {
    const counted = round === Infinity && summary !== undefined ? summary : metrics.findLast((line) => line.round <= round && (line.phase !== 'final' || round === Infinity));
    total.bytesUp += counted?.bytesUp ?? 0;
    total.bytesDown += counted?.bytesDown ?? 0;
  }
  return total;
}
