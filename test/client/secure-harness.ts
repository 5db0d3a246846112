/** Participants with everything that they need in secure rounds, and an adversary who knows all that the coordinator and its puppets know. */
import { Participant, type ParticipantDeps, type ParticipantSummary } from '../../client/participant/participant.ts';
import { generateIdentity, type IdentityKeys } from '../../shared/crypto/signature.ts';
import { nodeCrypto as crypto } from '../../shared/node/node-crypto.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { silentLogger } from '../../shared/ports/logger.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import type { ClientPolicy } from '../../shared/privacy/client-policy.ts';
import { MemoryLedger } from '../../shared/privacy/memory-ledger.ts';
import { secureStageNames, type SecureStageName } from '../../shared/protocol/messages.ts';
import type { Epsilon } from '../../shared/types/units.ts';
import { toHex } from '../../shared/types/bytes.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { MemoryStore } from '../../simulations/memory-store.ts';
import { VirtualClock } from '../../simulations/network/virtual-clock.ts';
import { FakeEngine } from '../support/fake-engine.ts';
import { numClasses, type FakeTask } from './fake-coordinator.ts';
import { openPolicy, toyData } from './harness.ts';
import { SecureCoordinator, type Learned, type SecureTask } from './secure-coordinator.ts';

export interface SecureClient {
  readonly index: number;
  readonly identity: IdentityKeys;
  /** Hexadecimal identity: how the coordinator calls it. */
  readonly id: string;
  readonly store: MemoryStore;
  readonly ledger: MemoryLedger;
  readonly events: RunEvent[];
  readonly engine: FakeEngine;
}

export const securePolicy: ClientPolicy = { ...openPolicy, maxEpsilon: Infinity as Epsilon, allowedMechanisms: ['none', 'discreteGaussian'], minHonest: 3 };

/** Identities cost milliseconds each: every scene has the same ones. */
const identities: IdentityKeys[] = [];
function identityOf(index: number): IdentityKeys {
  return (identities[index] ??= generateIdentity(new InsecureSeededRandom(50_000 + index)));
}

export interface SecureSceneOptions {
  /** Real participants. */
  readonly clients?: number;
  /** Clients of the protocol's functions alone, which the coordinator owns. */
  readonly puppets?: number;
  readonly secure?: Partial<SecureTask>;
  readonly task?: Partial<FakeTask>;
  readonly policy?: Partial<ClientPolicy>;
}

export class SecureScene {
  readonly clock = new VirtualClock(1_700_000_000_000);
  readonly coordinator: SecureCoordinator;
  readonly clients: SecureClient[];
  readonly policy: ClientPolicy;
  #processes = 0;

  constructor({ clients = 5, puppets = 0, secure = {}, task = {}, policy = {} }: SecureSceneOptions = {}) {
    this.coordinator = new SecureCoordinator(this.clock, secure, task);
    this.coordinator.awaited = clients;
    this.policy = { ...securePolicy, ...policy };
    this.clients = Array.from({ length: clients }, (_, index) => {
      const identity = identityOf(index);
      return { index, identity, id: toHex(identity.publicKey), store: new MemoryStore(), ledger: new MemoryLedger(), events: [], engine: new FakeEngine() };
    });
    for (let i = 0; i < puppets; i++) this.coordinator.addPuppet(identityOf(100 + i));
  }

  /** A new process of a client, on the state that it has left. */
  participant(client: SecureClient, changes: Partial<ParticipantDeps> & { readonly store?: DurableStore; readonly ledger?: PrivacyLedger } = {}): Participant {
    const { store = client.store, ...deps } = changes;
    return new Participant({
      connector: this.coordinator.connector(),
      coordinatorFingerprint: this.coordinator.base.fingerprint,
      identity: client.identity,
      clock: this.clock,
      random: new InsecureSeededRandom(1000 + 100 * client.index + this.#processes++), // no process draws what another one drew
      crypto,
      ledger: client.ledger,
      policy: this.policy,
      engine: client.engine,
      prepare: (task) => Promise.resolve({ store, model: { kind: 'zoo', name: task.student.model, exampleShape: task.exampleShape, numClasses }, privateDataset: toyData(20, client.index) }),
      logger: silentLogger,
      events: { emit: (event) => client.events.push(event) },
      ...deps,
    });
  }

  /** Runs a process of every client until all have ended. */
  run(): Promise<ParticipantSummary[]> {
    return this.clock.runUntil(Promise.all(this.clients.map((client) => this.participant(client).run())));
  }

  /** Runs the clients until the coordinator has nothing to do any more: for rounds that are meant to come to nothing. */
  async settle(ms = 200_000): Promise<void> {
    const stop = new AbortController();
    const ended = Promise.allSettled(this.clients.map((client) => this.participant(client).run(stop.signal)));
    await this.pass(ms);
    stop.abort(new Error('stop'));
    await this.clock.runUntil(ended);
  }

  pass(ms: number): Promise<void> {
    return this.clock.runUntil(new Promise<void>((resolve) => this.clock.schedule(ms, resolve)));
  }

  named(client: SecureClient, event: string): readonly RunEvent[] {
    return client.events.filter((candidate) => candidate.event === event);
  }

  /** What a client has sent, opened, in order. */
  sentBy(client: SecureClient, stage?: SecureStageName): readonly Learned[] {
    return this.coordinator.learned.filter((message) => message.client === client.id && (stage === undefined || message.stage === stage));
  }

  /** What must be true whatever anybody does. */
  violations(): string[] {
    const problems: string[] = [];
    for (const client of this.clients) {
      const sent = this.sentBy(client);
      for (const round of new Set(sent.map((message) => message.round))) {
        for (const stage of secureStageNames) {
          const messages = new Set(sent.filter((message) => message.round === round && message.stage === stage).map(({ message }) => toHex(message)));
          if (messages.size > 1) problems.push(`client ${client.index} has sent ${messages.size} different messages of stage ${stage} in round ${round}`);
        }
      }
      const charges = client.ledger.entries().map(({ round }) => round);
      if (new Set(charges).size !== charges.length) problems.push(`client ${client.index} was charged twice for a round`);
      for (const { round } of this.sentBy(client, 'maskedInput')) if (!charges.includes(round as never)) problems.push(`client ${client.index} has sent round ${round} uncharged`);
    }
    return problems;
  }
}
