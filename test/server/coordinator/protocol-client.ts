/**
 * A federation in one process for tests: a coordinator that can be killed, and scripted clients that speak docs/protocol.md without any code of
 * `client/`, so that a test can misbehave at every step.
 */
import type { z } from 'zod';
import { TaskConfigSchema, type TaskConfig } from '../../../shared/config/task-config.ts';
import { digestOf } from '../../../shared/crypto/digest.ts';
import { identityFromSeed, signMessage, type IdentityKeys } from '../../../shared/crypto/signature.ts';
import { syntheticExamples } from '../../../shared/datasets/synthetic.ts';
import { FederationError, type ProblemCode } from '../../../shared/errors.ts';
import { sleep, type Clock, type Timer } from '../../../shared/ports/clock.ts';
import type { DurableStore } from '../../../shared/ports/durable-store.ts';
import type { RunEvent } from '../../../shared/ports/event-sink.ts';
import { silentLogger } from '../../../shared/ports/logger.ts';
import type { ClientConnection, CoordinatorConnection, CoordinatorEndpoint } from '../../../shared/ports/transport.ts';
import type { RandomSource } from '../../../shared/ports/random-source.ts';
import { sealEnvelope, type EnvelopeContext } from '../../../shared/protocol/envelope.ts';
import { clientIdOf, joinTranscript, tokenProof, type SessionNonces } from '../../../shared/protocol/identity.ts';
import { decodeIndices } from '../../../shared/protocol/indices.ts';
import { decodePredictions } from '../../../shared/protocol/matrix-frame.ts';
import {
  FinishedDocumentSchema,
  HelloAckSchema,
  JoinAckSchema,
  RoundDocumentSchema,
  TaskDocumentSchema,
  type Ack,
  type ClientAck,
  type ClientEvent,
  type FinishedDocument,
  type RoundDocument,
  type StageName,
} from '../../../shared/protocol/messages.ts';
import { fromProblem, toProblem } from '../../../shared/protocol/problems.ts';
import { openDocument, type SignedDocument } from '../../../shared/protocol/signed-document.ts';
import { toBase64 } from '../../../shared/types/bytes.ts';
import type { ClientId, Digest, Instant, TaskId } from '../../../shared/types/ids.ts';
import type { Examples, Matrix } from '../../../shared/types/matrix.ts';
import { Coordinator } from '../../../server/coordinator/coordinator.ts';
import type { Admission } from '../../../server/coordinator/sessions.ts';
import { openTeacher, type Teacher } from '../../../server/coordinator/teacher.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';
import { MemoryStore } from '../../../simulations/memory-store.ts';
import { memoryConnector, steadyNetwork, type Network } from '../../../simulations/network/memory-transport.ts';
import { VirtualClock } from '../../../simulations/network/virtual-clock.ts';

const transferExamples = 8;

type Section<K extends keyof TaskConfig> = Partial<TaskConfig[K]>;
export interface TaskOptions {
  readonly schedule?: Section<'schedule'>;
  readonly privacy?: Section<'privacy'>;
  readonly aggregation?: Section<'aggregation'>;
  readonly distillation?: z.input<typeof TaskConfigSchema>['distillation'];
}

/** Three classes, eight transfer examples of which five are queried, three clients, three rounds of a minute. */
export function testTask({ schedule, privacy, aggregation, distillation }: TaskOptions = {}): TaskConfig {
  const parsed = TaskConfigSchema.parse({
    task: 'digits',
    seed: 7,
    data: { numClasses: 3, exampleShape: [2] },
    transferSet: { source: 'synthetic', size: transferExamples },
    teacher: { kind: 'consensus' },
    privacy: { ...privacy },
    aggregation: { ...aggregation },
    distillation: { ...distillation },
    schedule: { rounds: 3, transferBatch: 5, minClients: 3, quorum: 2, roundDeadlineSeconds: 60, reconnectGraceSeconds: 10, ...schedule },
  });
  return { ...parsed, task: parsed.task as TaskId };
}

const identities = new Map<number, IdentityKeys>();
/** Identity number `n`; made once, because key generation takes milliseconds. */
export function testIdentity(n: number): IdentityKeys {
  const known = identities.get(n) ?? identityFromSeed(new Uint8Array(32).fill(n));
  identities.set(n, known);
  return known;
}

export const coordinatorIdentity = testIdentity(200);

export function testTransferSet(): Examples {
  return syntheticExamples({ size: transferExamples, seed: 3, centerSeed: 3, exampleShape: [2], numClasses: 3 }).examples;
}

/** The clock of one process: its timers die with it. */
class ProcessClock implements Clock {
  readonly #clock: Clock;
  readonly timers = new Set<Timer>();
  isDead = false;
  constructor(clock: Clock) {
    this.#clock = clock;
  }
  now(): Instant {
    return this.#clock.now();
  }
  schedule(delayMs: number, callback: () => void): Timer {
    const inner = this.#clock.schedule(delayMs, () => {
      this.timers.delete(timer);
      if (!this.isDead) callback();
    });
    const timer: Timer = {
      cancel: () => {
        this.timers.delete(timer);
        inner.cancel();
      },
    };
    this.timers.add(timer);
    return timer;
  }
}

export interface FederationOptions extends TaskOptions {
  readonly admission?: Admission;
  readonly store?: DurableStore;
  readonly teacher?: (store: DurableStore) => Teacher;
  readonly network?: Network;
  readonly maxUploadBytes?: number;
  readonly maxClients?: number;
  readonly onEvent?: (event: RunEvent) => void;
}

/** A coordinator, its store and its network, over as many lives as the test gives it. */
export class TestFederation {
  readonly clock = new VirtualClock(1_700_000_000_000);
  readonly config: TaskConfig;
  readonly transferSet = testTransferSet();
  readonly events: RunEvent[] = [];
  /** Transcript hashes of announcements that clients saw, by round. */
  readonly transcripts = new Map<number, Set<Digest>>();
  readonly #options: FederationOptions;
  readonly #connections = new Set<ClientConnection>();
  #life: { readonly coordinator: Coordinator; readonly clock: ProcessClock } | undefined;
  #lives = 0;
  store: DurableStore;

  constructor(options: FederationOptions = {}) {
    this.#options = options;
    this.config = testTask(options);
    this.store = options.store ?? new MemoryStore();
  }

  get coordinator(): Coordinator {
    if (this.#life === undefined) throw new Error('the coordinator is dead');
    return this.#life.coordinator;
  }

  /** Timers that the coordinator has asked for. */
  get coordinatorTimers(): number {
    return this.#life?.clock.timers.size ?? 0;
  }

  async start(): Promise<Coordinator> {
    const { teacher, admission } = this.#options;
    const clock = new ProcessClock(this.clock);
    const { config, transferSet, store } = this;
    const coordinator = new Coordinator({
      config,
      identity: coordinatorIdentity,
      admission: admission ?? { mode: 'open' },
      transferSet,
      teacher: teacher?.(store) ?? (await openTeacher({ config, engine: undefined as never, store, transferSet, evaluationSet: undefined, pretrained: undefined })),
      store,
      clock,
      random: new InsecureSeededRandom(1000 + this.#lives++), // other keys in every life
      logger: silentLogger,
      events: {
        emit: (event) => {
          this.events.push(event);
          this.#options.onEvent?.(event);
        },
      },
      ...(this.#options.maxUploadBytes === undefined ? {} : { maxUploadBytes: this.#options.maxUploadBytes }),
      ...(this.#options.maxClients === undefined ? {} : { maxClients: this.#options.maxClients }),
    });
    this.#life = { coordinator, clock };
    await coordinator.start();
    return coordinator;
  }

  /** Ends the process at once: no answer, no timer, no connection outlives it. Its store is closed. */
  kill(): void {
    if (this.#life === undefined) return;
    this.#life.clock.isDead = true;
    this.#life = undefined;
    for (const connection of [...this.#connections]) connection.close();
    this.#connections.clear();
  }

  /** Kills and starts again on what the store holds. */
  async restart(): Promise<Coordinator> {
    this.kill();
    if (this.store instanceof MemoryStore) this.store = this.store.reopen();
    return this.start();
  }

  async connect(): Promise<CoordinatorConnection> {
    return memoryConnector({ endpoint: () => this.#endpoint(), clock: this.clock, network: this.#options.network ?? steadyNetwork(1) }).connect();
  }

  /** Runs `work` in virtual time. */
  run<T>(work: () => Promise<T>): Promise<T> {
    return this.clock.runUntil(work());
  }

  sleep(ms: number): Promise<void> {
    return sleep(this.clock, ms);
  }

  sawAnnouncement(round: number, transcript: Digest): void {
    this.transcripts.set(round, (this.transcripts.get(round) ?? new Set()).add(transcript));
  }

  /** What a dead process does with a message: nothing. */
  #endpoint(): CoordinatorEndpoint | undefined {
    const life = this.#life;
    if (life === undefined) return undefined;
    const { coordinator } = life;
    const isAlive = () => this.#life === life;
    const never = () => new Promise<never>(() => undefined);
    return {
      connected: (connection) => {
        this.#connections.add(connection);
        coordinator.connected(connection);
      },
      receive: async (connection, event, payload) => {
        if (!isAlive()) return never();
        const answer = await coordinator.receive(connection, event, payload);
        return isAlive() ? answer : never();
      },
      disconnected: (connection) => {
        this.#connections.delete(connection);
        if (isAlive()) coordinator.disconnected(connection);
      },
      resource: (path, token) => (isAlive() ? coordinator.resource(path, token) : never()),
    };
  }
}

/** An announcement as a client sees it. */
export interface OpenRound {
  readonly signed: SignedDocument;
  readonly document: RoundDocument;
  readonly context: EnvelopeContext;
}

interface Notice {
  readonly event: string;
  readonly payload: unknown;
}

/** The code of the problem with which `work` is refused. Fails when it is not. */
export async function refusal(work: Promise<unknown>): Promise<ProblemCode> {
  return (await problemOf(work)).code;
}

export async function problemOf(work: Promise<unknown>): Promise<FederationError & { readonly nextRound?: number | undefined }> {
  try {
    await work;
  } catch (error) {
    if (error instanceof FederationError) return error;
    throw error;
  }
  throw new Error('expected a refusal');
}

export class ProtocolClient {
  readonly federation: TestFederation;
  readonly identity: IdentityKeys;
  readonly id: ClientId;
  readonly random: RandomSource;
  /** Everything the coordinator sent, in order. */
  readonly notices: Notice[] = [];
  /** How an event of the coordinator is answered. */
  answer: (notice: Notice) => Promise<Ack> = async () => ({ ok: true });
  connection!: CoordinatorConnection;
  nonces!: SessionNonces;
  taskDigest!: Digest;
  sessionToken = '';
  disconnectReason: string | undefined;
  #unread: Notice[] = [];
  #wake: (() => void) | undefined;

  constructor(federation: TestFederation, number: number) {
    this.federation = federation;
    this.identity = testIdentity(number);
    this.id = clientIdOf(this.identity.publicKey);
    this.random = new InsecureSeededRandom(number);
  }

  async connect(): Promise<this> {
    const connection = await this.federation.connect();
    this.connection = connection;
    this.disconnectReason = undefined;
    this.#unread = [];
    connection.onEvent((event, payload) => {
      const notice = { event, payload };
      this.notices.push(notice);
      if (this.connection === connection) {
        this.#unread.push(notice);
        this.#wake?.();
      }
      return this.answer(notice);
    });
    connection.onDisconnect((reason) => {
      if (this.connection !== connection) return;
      this.disconnectReason = reason;
      this.#wake?.();
    });
    return this;
  }

  request(event: ClientEvent, payload: object): Promise<unknown> {
    return this.connection.request(event, payload);
  }

  async hello(): Promise<this> {
    const clientNonce = this.random.bytes(32);
    const ack = HelloAckSchema.parse(await this.request('hello', { protocols: ['fdp/1'], clientKey: toBase64(this.identity.publicKey), clientNonce: toBase64(clientNonce) }));
    this.nonces = { coordinatorKey: ack.coordinatorKey, clientKey: this.identity.publicKey, clientNonce, serverNonce: ack.serverNonce };
    this.taskDigest = openDocument('task', ack.task, coordinatorIdentity.publicKey, TaskDocumentSchema).hash;
    return this;
  }

  joinMessage(token?: string): { signature: string; tokenProof?: string } {
    const signature = toBase64(signMessage(joinTranscript(this.nonces, this.taskDigest), this.identity));
    return token === undefined ? { signature } : { signature, tokenProof: toBase64(tokenProof(token, this.nonces)) };
  }

  async join(token?: string): Promise<ClientAck<'join'>> {
    const ack = JoinAckSchema.parse(await this.request('join', this.joinMessage(token)));
    this.sessionToken = ack.sessionToken;
    return ack;
  }

  /** Connects, says hello and joins. */
  async arrive(token?: string): Promise<ClientAck<'join'>> {
    await this.connect();
    await this.hello();
    return this.join(token);
  }

  /** The next notice of this connection; rejects when the connection is lost. */
  async nextNotice(): Promise<Notice> {
    for (;;) {
      const notice = this.#unread.shift();
      if (notice !== undefined) return notice;
      if (this.disconnectReason !== undefined) throw new FederationError('disconnected', this.disconnectReason);
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** The next notice of this kind; others are skipped. */
  async next(event: string): Promise<unknown> {
    for (;;) {
      const notice = await this.nextNotice();
      if (notice.event === event) return notice.payload;
    }
  }

  async nextRound(): Promise<OpenRound> {
    return this.openRound((await this.next('round')) as SignedDocument);
  }

  openRound(signed: SignedDocument): OpenRound {
    const { value: document, hash } = openDocument('round', signed, coordinatorIdentity.publicKey, RoundDocumentSchema);
    this.federation.sawAnnouncement(document.round, hash);
    return { signed, document, context: { taskDigest: document.taskDigest, round: document.round, stage: 'contribution', transcript: hash } };
  }

  async nextFinished(): Promise<FinishedDocument> {
    return this.openFinished((await this.next('finished')) as SignedDocument);
  }

  openFinished(signed: SignedDocument): FinishedDocument {
    return openDocument('finished', signed, coordinatorIdentity.publicKey, FinishedDocumentSchema).value;
  }

  seal(frame: Uint8Array, { document, context }: OpenRound, changes: { readonly context?: Partial<EnvelopeContext>; readonly sender?: IdentityKeys; readonly boxKey?: Uint8Array } = {}): Uint8Array {
    return sealEnvelope(frame, { ...context, ...changes.context }, changes.boxKey ?? document.boxKey, changes.sender ?? this.identity, this.random);
  }

  /** Uploads in chunks of `chunkBytes`; resolves with the last acknowledgement. */
  async upload(round: number, envelope: Uint8Array, chunkBytes = 200, stage: StageName = 'contribution'): Promise<unknown> {
    const begun = (await this.request('upload-begin', beginMessage(round, envelope, stage))) as { upload: string; offset: number; accepted?: boolean };
    if (begun.accepted === true) return begun;
    for (let { offset } = begun; offset < envelope.length; ) {
      const data = envelope.subarray(offset, offset + chunkBytes);
      ({ offset } = (await this.request('upload-chunk', { upload: begun.upload, offset, data })) as { offset: number });
    }
    return this.request('upload-end', { upload: begun.upload });
  }

  /** The soft labels that a document names, checked against its digest. */
  async labels(path: string, labels: NonNullable<RoundDocument['labels']>): Promise<{ readonly indices: Uint32Array; readonly matrix: Matrix }> {
    const frame = await this.connection.fetchFrame(path, this.sessionToken, 2 ** 20);
    if (digestOf(frame) !== labels.digest) throw new Error('the frame is not the announced one');
    return { indices: decodeIndices(labels, transferExamples, 'labels'), matrix: decodePredictions(frame, labels.kind, labels.count, 3) };
  }

  close(): Promise<void> {
    return this.connection.close();
  }
}

export function beginMessage(round: number, envelope: Uint8Array, stage: StageName = 'contribution') {
  return { round, stage, bytes: envelope.length, digest: digestOf(envelope) };
}

export const mayPass: readonly ProblemCode[] = ['disconnected', 'unreachable', 'deadline-exceeded', 'internal', 'capacity-exceeded', 'upload-unknown', 'disk-full', 'not-authenticated'];
export const roundIsOver: readonly ProblemCode[] = ['round-closed', 'round-unknown', 'not-in-cohort', 'task-finished'];

/**
 * Takes part honestly until the task is finished: reconnects, and resends the very bytes that it sealed first. Rejects when a round number comes with
 * another announcement.
 */
export async function takePart(client: ProtocolClient, frameFor: (document: RoundDocument) => Uint8Array): Promise<FinishedDocument> {
  const sealed = new Map<number, { readonly transcript: Digest; readonly envelope: Uint8Array }>();
  const contribute = async (round: OpenRound) => {
    const { transcript } = round.context;
    const kept = sealed.get(round.document.round) ?? { transcript, envelope: client.seal(frameFor(round.document), round) };
    if (kept.transcript !== transcript) throw new Error(`round ${round.document.round} was announced twice`);
    sealed.set(round.document.round, kept);
    try {
      await client.upload(round.document.round, kept.envelope);
    } catch (error) {
      if (!(error instanceof FederationError && roundIsOver.includes(error.code))) throw error;
    }
  };
  for (;;) {
    try {
      const ack = await client.arrive();
      if (ack.finished !== null) return client.openFinished(ack.finished);
      if (ack.round !== null) await contribute(client.openRound(ack.round));
      for (;;) {
        const { event, payload } = await client.nextNotice();
        if (event === 'round') await contribute(client.openRound(payload as SignedDocument));
        if (event === 'finished') return client.openFinished(payload as SignedDocument);
      }
    } catch (error) {
      if (!(error instanceof FederationError && mayPass.includes(error.code))) throw error;
      await client.connection?.close();
      await client.federation.sleep(500);
    }
  }
}

let nextDirect = 1;

/** A connection without a network: `receive` is called at once, and what the coordinator sends is kept. */
export class DirectConnection implements ClientConnection {
  readonly id = `direct-${nextDirect++}`;
  readonly sent: Notice[] = [];
  isClosed = false;
  async send(event: string, payload: object): Promise<void> {
    this.sent.push({ event, payload });
  }
  close(): void {
    this.isClosed = true;
  }
}

/** Connects a client without a network. */
export function connectDirectly(client: ProtocolClient): DirectConnection {
  const connection = new DirectConnection();
  const { coordinator } = client.federation;
  coordinator.connected(connection);
  client.connection = {
    request: async (event, payload) => {
      const ack = await coordinator.receive(connection, event, payload);
      if (!ack.ok) throw fromProblem(ack.problem);
      return ack;
    },
    fetchFrame: async (path, token) => (await coordinator.resource(path, token)).body,
    onEvent: () => undefined,
    onDisconnect: () => undefined,
    close: async () => coordinator.disconnected(connection),
  };
  return connection;
}

export function problemAck(code: ProblemCode): Ack {
  return { ok: false, problem: toProblem(new FederationError(code, 'No.')) };
}
