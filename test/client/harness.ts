/** One participant with everything it needs, and what it leaves behind for the next one. */
import { generateIdentity } from '../../shared/crypto/signature.ts';
import { Participant, type ParticipantDeps, type ParticipantSummary } from '../../client/participant/participant.ts';
import { silentLogger } from '../../shared/ports/logger.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import type { ClientPolicy } from '../../shared/privacy/client-policy.ts';
import { MemoryLedger } from '../../shared/privacy/memory-ledger.ts';
import type { LabelledExamples } from '../../shared/types/matrix.ts';
import type { Delta, Epsilon } from '../../shared/types/units.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { MemoryStore } from '../../simulations/memory-store.ts';
import { VirtualClock } from '../../simulations/network/virtual-clock.ts';
import { FakeEngine } from '../support/fake-engine.ts';
import { exampleShape, FakeCoordinator, numClasses, type FakeTask } from './fake-coordinator.ts';

export const openPolicy: ClientPolicy = { maxEpsilon: 100 as Epsilon, delta: 1e-5 as Delta, minCohort: 2, allowedMechanisms: ['gaussian', 'laplace'], allowClear: false, maxRounds: Infinity, minHonest: 5 };

/** `size` examples with labels, different for each `offset`. */
export function toyData(size: number, offset = 0): LabelledExamples {
  return {
    examples: { count: size, shape: exampleShape, values: Float32Array.from({ length: size * 4 }, (_, i) => ((i + offset) % 17) / 17) },
    labels: Int32Array.from({ length: size }, (_, i) => i % numClasses),
    numClasses,
  };
}

/** What outlives a killed process, and who is on the other side. */
export class Scene {
  readonly clock = new VirtualClock(1_700_000_000_000);
  readonly coordinator: FakeCoordinator;
  readonly store = new MemoryStore();
  readonly ledger = new MemoryLedger();
  readonly identity = generateIdentity(new InsecureSeededRandom(5));
  readonly engine = new FakeEngine();
  readonly events: RunEvent[] = [];
  readonly policy: ClientPolicy;
  #processes = 0;

  constructor(task: Partial<FakeTask> = {}, policy: Partial<ClientPolicy> = {}) {
    this.coordinator = new FakeCoordinator(this.clock, task);
    this.policy = { ...openPolicy, ...policy };
  }

  /** A new process on the same state. */
  participant(changes: Partial<ParticipantDeps> & { readonly store?: DurableStore; readonly ledger?: PrivacyLedger } = {}): Participant {
    const { store = this.store, ...deps } = changes;
    return new Participant({
      connector: this.coordinator.connector(),
      coordinatorFingerprint: this.coordinator.fingerprint,
      identity: this.identity,
      clock: this.clock,
      random: new InsecureSeededRandom(1000 + this.#processes++), // no process draws what another one drew
      ledger: this.ledger,
      policy: this.policy,
      engine: this.engine,
      prepare: async (task) => ({
        store,
        model: { kind: 'zoo', name: task.student.model, exampleShape: task.exampleShape, numClasses: task.numClasses },
        privateDataset: toyData(20),
        testSet: toyData(9, 3),
      }),
      logger: silentLogger,
      events: { emit: (event) => this.events.push(event) },
      trackLocalOnly: true,
      ...deps,
    });
  }

  /** Runs a participant until it ends. */
  run(participant = this.participant(), signal?: AbortSignal): Promise<ParticipantSummary> {
    return this.clock.runUntil(participant.run(signal));
  }

  /** Lets virtual time pass while things happen. */
  pass(ms: number): Promise<void> {
    return this.clock.runUntil(new Promise<void>((resolve) => this.clock.schedule(ms, resolve)));
  }

  named(event: string): readonly RunEvent[] {
    return this.events.filter((candidate) => candidate.event === event);
  }

  metrics(): Promise<readonly unknown[]> {
    return this.store.readLog('metrics.jsonl');
  }
}

/** The error that a promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('expected a rejection');
}
