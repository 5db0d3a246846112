/**
 * The coordinator of one task: runs the round machine, performs its effects, answers clients. It knows neither sockets nor the clock of the
 * wall: transports call `receive`, everything else is injected, so a simulation runs this very code.
 *
 * One queue: events are journalled durably, applied, and only then performed. A coordinator that is killed replays its journal and goes on in
 * the same round. It never holds private data, weights, losses or example counts of clients, and publishes nothing below the quorum.
 */
import { digestOf } from '../../shared/crypto/digest.ts';
import type { CryptoProvider } from '../../shared/crypto/provider.ts';
import type { IdentityKeys } from '../../shared/crypto/signature.ts';
import type { TaskConfig } from '../../shared/config/task-config.ts';
import { contributionKind, learnable, type Consensus } from '../../shared/distillation/aggregation.ts';
import { softmax } from '../../shared/distillation/temperature.ts';
import { FederationError, problemCodes, unreachable, type ProblemCode } from '../../shared/errors.ts';
import { nodeCrypto } from '../../shared/node/node-crypto.ts';
import type { Clock, Timer } from '../../shared/ports/clock.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { EventSink } from '../../shared/ports/event-sink.ts';
import type { Logger } from '../../shared/ports/logger.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import type { ClientConnection, CoordinatorEndpoint } from '../../shared/ports/transport.ts';
import { checkSumFits, planRelease, type ReleaseParameters } from '../../shared/privacy/release.ts';
import type { Json } from '../../shared/protocol/canonical-json.ts';
import { openEnvelope, verifyEnvelope, type EnvelopeContext } from '../../shared/protocol/envelope.ts';
import { fingerprint } from '../../shared/protocol/identity.ts';
import { decodeIndices, encodeIndices, encodeIndicesCompactly, type WireIndices } from '../../shared/protocol/indices.ts';
import { encodeExamples, encodePredictions, isBitsEncoding } from '../../shared/protocol/matrix-frame.ts';
import { clientEventSchemas, type Ack, type ClientAckWire, type ClientEvent, type ClientMessage, type CoordinatorEvent, type FinishReason, type SecureStageName, type SoftLabelsRef, type StageName } from '../../shared/protocol/messages.ts';
import { envelopeBytes } from '../../shared/protocol/envelope.ts';
import { secureContextOf } from '../../shared/protocol/secure-round.ts';
import { toProblem } from '../../shared/protocol/problems.ts';
import { documentHash, malformedMessage, signDocument, type SignedDocument } from '../../shared/protocol/signed-document.ts';
import { protocolVersion } from '../../shared/protocol/version.ts';
import { largestCohort, roundPolicyOf, type RoundPolicy } from '../../shared/rounds/policy.ts';
import { initialState, type ClosedStage, type Contribution, type FederationState, type RoundEffect, type RoundEvent } from '../../shared/rounds/state.ts';
import { connectedCount, judgeContribution, nextRoundFor, pendingForClient, transition } from '../../shared/rounds/transition.ts';
import { checkCohort, checkParameters } from '../../shared/secure-aggregation/parameters.ts';
import { graphShape, MAX_COHORT } from '../../shared/secure-aggregation/share-graph.ts';
import { toBase64, utf8 } from '../../shared/types/bytes.ts';
import type { ClientId, Digest, Instant, RoundId } from '../../shared/types/ids.ts';
import type { Examples } from '../../shared/types/matrix.ts';
import { combineContributions, consensusOfSum, contributionLengths, readContribution, type ContributionShape } from './contributions.ts';
import { LabelHistory } from './label-history.ts';
import { RoundFiles, type Announcement } from './round-files.ts';
import { SecureAggregation } from './secure-aggregation.ts';
import { Sessions, type Admission, type Session } from './sessions.ts';
import { clusterMiddles } from './semi-supervised-teacher.ts';
import type { SoftLabels } from './soft-labels.ts';
import { noQuality } from './teacher-quality.ts';
import type { Teacher } from './teacher.ts';
import { transferBatch } from './transfer-batch.ts';
import { isAmong, Uploads, type ByteLengths, type CompleteUpload } from './uploads.ts';

export interface CoordinatorDeps {
  readonly config: TaskConfig;
  readonly identity: IdentityKeys;
  readonly admission: Admission;
  readonly transferSet: Examples;
  readonly teacher: Teacher;
  readonly store: DurableStore;
  readonly clock: Clock;
  readonly random: RandomSource;
  /** For rounds of secure aggregation; default: node:crypto. */
  readonly crypto?: CryptoProvider;
  readonly logger: Logger;
  readonly events: EventSink;
  /** Most clients at once; default 10,000. */
  readonly maxClients?: number;
  /** Bytes of uploads under way at once; default 1 GiB. */
  readonly maxUploadBytes?: number;
}

/** What a status page or a probe wants to know. */
export interface CoordinatorStatus {
  readonly phase: FederationState['current']['phase'];
  /** Number of the round in progress, or of the last one; 0 before the first. */
  readonly round: number;
  readonly released: number;
  readonly rounds: number;
  readonly connected: number;
  /** Clients may join. */
  readonly ready: boolean;
}

type OpenStage = Extract<RoundEffect, { type: 'open-stage' }>;
type Aggregate = Extract<RoundEffect, { type: 'aggregate' }>;
type CloseRound = Extract<RoundEffect, { type: 'close-round' }>;

const journal = 'journal';
const metrics = 'metrics.jsonl';
/** Events about problems in one round: events are written to disk, and problems cost whoever causes them nothing. */
const maxProblemEvents = 200;

export class Coordinator implements CoordinatorEndpoint {
  readonly fingerprint: string;
  readonly taskDocument: SignedDocument;
  /** Resolves when the task has ended and connected clients have been told; rejects when the coordinator cannot go on. */
  readonly finished: Promise<FinishReason>;

  readonly #deps: CoordinatorDeps;
  readonly #policy: RoundPolicy;
  readonly #release: ReleaseParameters;
  readonly #taskDigest: Digest;
  readonly #transferFrame: Uint8Array;
  readonly #sessions: Sessions;
  readonly #uploads: Uploads;
  readonly #files: RoundFiles;
  /** By what they are for: a client that comes and goes has one. */
  readonly #timers = new Map<string, Timer>();
  /** Rounds with a line in metrics.jsonl: an aggregation that runs again after a crash writes no second one. */
  readonly #measuredRounds = new Set<RoundId>();
  /** Rounds that are over and not erased yet; what the disk refused once is tried again. */
  readonly #unerased = new Map<RoundId, CloseRound['cohort']>();
  /** Clients that have gone without leaving: until when each is expected back. The machine forgets them with the end of the task; they have yet to hear of it. */
  readonly #expectedBack = new Map<ClientId, Instant>();
  /** The same in every round; found when first needed. */
  #clusterMiddles: Uint32Array | undefined;
  /** Of soft labels, where few of them change from round to round; else all of them are sent. */
  readonly #labelHistory: LabelHistory | undefined;
  readonly #isCompact: boolean;
  #state: FederationState;
  #queue: Promise<unknown> = Promise.resolve();
  #announcement: Announcement | undefined;
  /** Of the round in progress. */
  #secureAggregation: SecureAggregation | undefined;
  #openedAt: number;
  #problemEvents = 0;
  #running = false;
  #closed = false;
  #resolveFinished!: (reason: FinishReason) => void;
  #rejectFinished!: (error: Error) => void;

  constructor(deps: CoordinatorDeps) {
    this.#deps = deps;
    this.#policy = roundPolicyOf(deps.config);
    const { labelEncoding, cache } = deps.config.distillation;
    this.#labelHistory = cache !== undefined || isBitsEncoding(labelEncoding) ? new LabelHistory() : undefined;
    this.#isCompact = this.#labelHistory !== undefined || isBitsEncoding(deps.config.aggregation.encoding);
    this.#release = planTaskRelease(deps.config, deps.transferSet.count);
    this.#transferFrame = encodeExamples(deps.transferSet);
    this.fingerprint = fingerprint(deps.identity.publicKey);
    this.taskDocument = signDocument('task', taskDocumentOf(deps.config, this.fingerprint, this.#release, { digest: digestOf(this.#transferFrame), rows: deps.transferSet.count }), deps.identity);
    this.#taskDigest = documentHash('task', this.taskDocument.document);
    this.#sessions = new Sessions({ identity: deps.identity, random: deps.random, admission: deps.admission, task: this.taskDocument, taskDigest: this.#taskDigest, maxClients: deps.maxClients ?? 10_000 });
    this.#uploads = new Uploads(deps.random, deps.maxUploadBytes ?? 2 ** 30);
    this.#files = new RoundFiles(deps.store, deps.identity.publicKey);
    this.#openedAt = deps.clock.now();
    this.#state = initialState(deps.clock.now());
    this.finished = new Promise((resolve, reject) => {
      this.#resolveFinished = resolve;
      this.#rejectFinished = reject;
    });
    this.finished.catch(() => undefined); // whoever awaits it sees the rejection; nobody has to
  }

  /** Replays the journal, if there is one, and begins to answer. */
  async start(): Promise<void> {
    await this.#checkTask();
    const records = (await this.#deps.store.readLog(journal)) as readonly RoundEvent[];
    for (const { round, cohort } of this.#replay(records)) this.#unerased.set(round, cohort);
    await this.#eraseClosedRounds();
    if (this.#unerased.size > 0) throw new FederationError('internal', 'What belongs to rounds that are over cannot be erased.'); // without a `restarted`: the next start tries again
    for (const line of (await this.#deps.store.readLog(metrics)) as readonly { readonly round: RoundId }[]) this.#measuredRounds.add(line.round);
    if ('round' in this.#state.current) this.#announcement = await this.#files.announcement(this.#state.current.round);
    if (records.length > 0) {
      this.#emit('restarted', { phase: this.#state.current.phase, released: this.#state.released });
      await this.#dispatch({ type: 'restarted', at: this.#now() });
    } else {
      this.#emit('task-opened', { task: this.#deps.config.task, rounds: this.#policy.rounds, minClients: this.#policy.minClients, transferExamples: this.#deps.transferSet.count, release: this.#release });
    }
    for (const client of clientsNotLeft(records)) this.#expectBack(client);
    this.#running = true; // not before: a client that joined earlier would be taken for lost
  }

  /** Applies the journal. Returns the rounds that were closed since the last start: whether they were erased, the journal does not say. */
  #replay(records: readonly RoundEvent[]): readonly CloseRound[] {
    let closed: CloseRound[] = [];
    for (const event of records) {
      if (event.type === 'restarted') closed = []; // erased by the process that wrote this
      const { state, effects } = transition(this.#state, event, this.#policy);
      this.#state = state;
      for (const effect of effects) if (effect.type === 'close-round') closed.push(effect);
    }
    return closed;
  }

  /** Stops at once; the journal is complete, so the run can be resumed. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimers();
    await this.#queue.catch(() => undefined);
    await this.#eraseClosedRounds();
  }

  /** Clients that are here, or may be back before the grace time is over: whoever stops now leaves them without the end of the task. */
  get attendance(): number {
    const now = this.#now();
    return connectedCount(this.#state) + [...this.#expectedBack.values()].filter((until) => until > now).length;
  }

  #expectBack(client: ClientId): void {
    const now = this.#now();
    this.#expectedBack.delete(client);
    this.#expectedBack.set(client, (now + this.#policy.reconnectGraceMs) as Instant);
    // In the order in which they went: those that nobody expects any more come first.
    for (const [gone, until] of this.#expectedBack) {
      if (until > now) break;
      this.#expectedBack.delete(gone);
    }
  }

  status(): CoordinatorStatus {
    const { current, released, nextRound } = this.#state;
    return { phase: current.phase, round: 'round' in current ? current.round : nextRound - 1, released, rounds: this.#policy.rounds, connected: connectedCount(this.#state), ready: this.#running && !this.#closed };
  }

  /** A run folder belongs to one task document: another one would bind envelopes to another digest. */
  async #checkTask(): Promise<void> {
    const stored = await this.#deps.store.getBlob('task-digest');
    if (stored === undefined) {
      await this.#deps.store.putBlob('task-digest', utf8(this.#taskDigest));
    } else if (!digestEquals(stored, this.#taskDigest)) {
      throw new FederationError('state-mismatch', 'This run folder belongs to another task: the task file, the transfer set or the identity has changed since.', { field: 'task', next: 'Put the old task file back, or choose a new run folder.' });
    }
  }

  // --- the endpoint: what transports call ---

  connected(_connection: ClientConnection): void {}

  disconnected(connection: ClientConnection): void {
    const client = this.#sessions.disconnected(connection);
    if (client === undefined || this.#closed) return;
    if (this.#state.members[client] !== undefined) {
      // It has not left.
      this.#expectBack(client);
      this.#emit('client-lost', { client });
    }
    this.#inBackground(this.#dispatch({ type: 'client-disconnected', client, at: this.#now() }));
  }

  async receive(connection: ClientConnection, event: string, payload: unknown): Promise<Ack> {
    try {
      if (!Object.hasOwn(clientEventSchemas, event)) {
        throw new FederationError('event-unknown', 'There is no such event.', { field: 'event', expected: Object.keys(clientEventSchemas).join(', '), got: event.slice(0, 64), next: 'See docs/protocol.md.' });
      }
      if (!this.#running || this.#closed) throw new FederationError('capacity-exceeded', 'The coordinator is starting or stopping.', { next: 'Try again in a few seconds.' });
      const name = event as ClientEvent;
      if (name !== 'hello' && name !== 'join') this.#sessions.of(connection); // before the payload is looked at
      const parsed = clientEventSchemas[name].safeParse(payload);
      if (!parsed.success) throw malformedMessage(name, parsed.error);
      return { ok: true, ...(await this.#handle(connection, name, parsed.data)) };
    } catch (error) {
      return { ok: false, problem: this.#problemFor(connection, error) };
    }
  }

  #problemFor(connection: ClientConnection, error: unknown) {
    if (!(error instanceof FederationError) || error.fault === 'internal') this.#deps.logger.error({ err: error }, 'a message could not be handled');
    if (error instanceof FederationError && error.code === 'disk-full') this.#giveUp(error);
    const session = this.#sessions.find(connection); // gone, when the connection was lost or replaced meanwhile
    const needsRound = session !== undefined && error instanceof FederationError && (error.code === 'round-closed' || error.code === 'round-unknown' || error.code === 'not-in-cohort');
    const problem = toProblem(error, needsRound ? { nextRound: nextRoundFor(this.#state, session.client, this.#policy) } : {});
    if (this.#problemEvents++ < maxProblemEvents) this.#emit('problem-sent', { code: problem.code });
    return problem;
  }

  async #handle(connection: ClientConnection, event: ClientEvent, message: unknown): Promise<object> {
    switch (event) {
      case 'hello':
        return this.#sessions.hello(connection, message as ClientMessage<'hello'>);
      case 'join':
        return this.#onJoin(connection, message as ClientMessage<'join'>);
      case 'upload-begin':
        return this.#onUploadBegin(this.#sessions.of(connection), message as ClientMessage<'upload-begin'>);
      case 'upload-chunk': {
        const { upload, offset, data } = message as ClientMessage<'upload-chunk'>;
        return { offset: this.#uploads.chunk(this.#sessions.of(connection).client, upload, offset, data) };
      }
      case 'upload-end':
        return this.#onUploadEnd(this.#sessions.of(connection), message as ClientMessage<'upload-end'>);
      case 'decline': {
        const { round, code } = message as ClientMessage<'decline'>;
        await this.#decline(this.#sessions.of(connection).client, round, code);
        return {};
      }
      case 'leave': {
        const { client } = this.#sessions.of(connection);
        await this.#exclusive(async () => {
          if (this.#state.members[client] === undefined) return; // said so before
          this.#expectedBack.delete(client);
          await this.#apply({ type: 'client-left', client, at: this.#now() });
          this.#emit('client-left', { client });
        });
        return {};
      }
      default:
        return unreachable(event);
    }
  }

  async resource(path: string, sessionToken: string | undefined): Promise<{ readonly contentType: string; readonly body: Uint8Array }> {
    if (path === '/task') return { contentType: 'application/json', body: utf8(JSON.stringify(this.taskDocument)) };
    const frame = (body: Uint8Array | undefined) => {
      if (body === undefined) throw new FederationError('not-found', 'There is nothing at this path.', { field: 'path' });
      return { contentType: 'application/octet-stream', body };
    };
    const isOpen = this.#deps.admission.mode === 'open';
    if (!isOpen && !(sessionToken !== undefined && this.#sessions.hasToken(sessionToken))) {
      throw new FederationError('not-authenticated', 'This resource needs the session token of a client that has joined.', { field: 'Authorization', next: 'Join first, and send Authorization: Bearer SESSIONTOKEN.' });
    }
    if (path === '/transfer-set') return frame(this.#transferFrame);
    const match = /^\/(?:rounds\/([1-9][0-9]{0,9})|finished)\/soft-labels(\/changed)?$/.exec(path);
    if (match === null) return frame(undefined);
    const of = match[1] === undefined ? 'finished' : (Number(match[1]) as RoundId);
    return frame(await (match[2] === undefined ? this.#files.labels(of) : this.#files.changedLabels(of)));
  }

  // --- messages ---

  async #onJoin(connection: ClientConnection, message: ClientMessage<'join'>): Promise<ClientAckWire<'join'>> {
    const session = this.#sessions.join(connection, message);
    const { client } = session;
    this.#emit('client-joined', { client, connected: this.#sessions.all().length });
    await this.#dispatch({ type: 'client-connected', client, at: this.#now() });
    this.#expectedBack.delete(client);
    const { current } = this.#state;
    const isAsked = pendingForClient(current, client);
    // After the answer: the client knows then which round it is in.
    if (isAsked && current.phase === 'collecting' && current.stage !== this.#policy.stages[0]) this.#deps.clock.schedule(0, () => this.#inBackground(this.#askAgain(client)));
    const finished = current.phase === 'finished' ? await this.#files.finished() : undefined;
    if (current.phase === 'gathering') {
      const needed = this.#state.nextRound === 1 ? this.#policy.minClients : this.#policy.quorum;
      this.#emit('waiting', { connected: connectedCount(this.#state), needed });
    }
    return {
      clientId: client,
      sessionToken: session.token,
      nextRound: nextRoundFor(this.#state, client, this.#policy),
      round: isAsked ? (this.#announcement?.signed ?? null) : null,
      finished: finished?.signed ?? null,
    };
  }

  async #onUploadBegin(session: Session, message: ClientMessage<'upload-begin'>): Promise<ClientAckWire<'upload-begin'>> {
    const { verdict } = judgeContribution(this.#state, { client: session.client, ...message });
    if (verdict === 'duplicate') return { accepted: true, duplicate: true };
    const { least, most, step } = await this.#frameLengths(message.stage, session.client);
    return this.#uploads.begin(session.client, message, { least: envelopeBytes(least), most: envelopeBytes(most), step });
  }

  async #onUploadEnd(session: Session, message: ClientMessage<'upload-end'>): Promise<ClientAckWire<'upload-end'>> {
    const { client } = session;
    const upload = this.#uploads.complete(client, message.upload);
    let keep = false;
    try {
      return { accepted: true, duplicate: await this.#takeContribution(session, upload) };
    } catch (error) {
      // What was refused would be refused again; a failure of ours may be over at the next attempt.
      keep = !(error instanceof FederationError && error.fault === 'peer');
      throw error;
    } finally {
      this.#uploads.end(client, upload.id, keep);
    }
  }

  /** Verifies and stores; `true` for one that was stored before. */
  async #takeContribution({ client, publicKey }: Session, { round, stage, digest, envelope }: CompleteUpload): Promise<boolean> {
    // Judged twice: here before the costly checks, and again in the queue, where the state cannot change in between.
    if (judgeContribution(this.#state, { client, round, stage, digest }).verdict === 'duplicate') return true;
    const context = this.#envelopeContext(round, stage);
    const closed = this.#closedStages();
    const lengths = await this.#frameLengths(stage, client);
    const frameLength = envelope.length - envelopeBytes(0);
    verifyEnvelope(envelope, context, publicKey, isAmong(lengths, frameLength) ? frameLength : lengths.least);
    const keys = await this.#files.boxKeys(round);
    if (keys === undefined) throw roundIsClosed(round);
    const frame = openEnvelope(envelope, context, publicKey, keys.secretKey);
    const secure = this.#secureRound();
    if (secure === undefined) readContribution(frame, this.#shape());
    else await secure.accept(stage as SecureStageName, frame, publicKey, closed);
    return this.#exclusive(async () => {
      if (judgeContribution(this.#state, { client, round, stage, digest }).verdict === 'duplicate') return true;
      const { current } = this.#state;
      if (stage === 'advertiseKeys' && current.phase === 'collecting') await secure?.claimKeys(frame, client, current.received);
      await this.#files.putContribution(round, stage, client, envelope);
      await this.#apply({ type: 'contribution-stored', client, round, stage, digest, at: this.#now() });
      this.#emit('contribution', { round, stage, client, bytes: envelope.length, contributions: this.#countIn(stage) });
      return false;
    });
  }

  /** Messages that a stage of the round in progress has, when the last of them may have closed it. */
  #countIn(stage: StageName): number {
    const { current } = this.#state;
    if (current.phase === 'collecting' && current.stage === stage) return current.received.length;
    return this.#closedStages().find((closed) => closed.stage === stage)?.received.length ?? 0;
  }

  #closedStages(): readonly ClosedStage[] {
    const { current } = this.#state;
    return current.phase === 'collecting' || current.phase === 'aggregating' ? current.closed : [];
  }

  async #decline(client: ClientId, round: RoundId, code: string): Promise<void> {
    const known = Object.hasOwn(problemCodes, code) ? code : 'declined'; // a peer's text otherwise
    const isNew = await this.#dispatch({ type: 'client-declined', client, round, at: this.#now() });
    if (isNew) this.#emit('client-declined', { client, round, code: known });
  }

  // --- the queue ---

  /** Runs `work` after everything queued before it; no event is applied meanwhile. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(() => {
      if (this.#closed) throw new FederationError('capacity-exceeded', 'The coordinator is stopping.', { next: 'Try again in a few seconds.' });
      return work();
    });
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #dispatch(event: RoundEvent): Promise<boolean> {
    return this.#exclusive(() => this.#apply(event));
  }

  /** Journals, applies, performs; `false` when the event means nothing any more. Only from within the queue. */
  async #apply(event: RoundEvent): Promise<boolean> {
    const { state, effects } = transition(this.#state, event, this.#policy);
    if (state === this.#state && effects.length === 0) return false;
    try {
      await this.#deps.store.append(journal, event);
    } catch (error) {
      this.#giveUp(error);
      throw error;
    }
    this.#state = state;
    for (const effect of effects) this.#perform(effect);
    return true;
  }

  /** Without a journal there is no safe next step: stop, leaving the run as it is on disk. */
  #giveUp(error: unknown): void {
    this.#closed = true;
    this.#cancelTimers();
    this.#rejectFinished(error instanceof Error ? error : new Error(String(error)));
  }

  #inBackground(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      if (!this.#closed) this.#deps.logger.error({ err: error }, 'background work failed');
    });
  }

  // --- effects ---

  #perform(effect: RoundEffect): void {
    switch (effect.type) {
      case 'start-timer':
        this.#startTimer(effect);
        break;
      case 'open-round':
        this.#inBackground(this.#reporting(effect.round, () => this.#openRound(effect.round, effect.cohort, effect.previous)));
        break;
      case 'announce':
        this.#openedAt = this.#deps.clock.now();
        for (const client of effect.clients) this.#inBackground(this.#announce(client, effect.round));
        break;
      case 'open-stage':
        this.#inBackground(this.#reporting(effect.round, () => this.#openStage(effect)));
        break;
      case 'aggregate':
        this.#inBackground(this.#reporting(effect.round, () => this.#aggregate(effect)));
        break;
      case 'close-round':
        this.#inBackground(this.#closeRound(effect));
        break;
      case 'finish':
        this.#inBackground(this.#finish(effect.reason));
        break;
      default:
        unreachable(effect);
    }
  }

  #startTimer({ timer, at }: Extract<RoundEffect, { type: 'start-timer' }>): void {
    const key = timer.kind === 'stage' ? `stage ${timer.round} ${timer.stage}` : `grace ${timer.client}`;
    this.#timers.get(key)?.cancel(); // asked for again, later
    const running = this.#deps.clock.schedule(at - this.#deps.clock.now(), () => {
      if (this.#timers.get(key) === running) this.#timers.delete(key);
      if (!this.#closed) this.#inBackground(this.#dispatch({ type: 'timer-fired', timer, at: this.#now() }));
    });
    this.#timers.set(key, running);
  }

  #cancelTimers(): void {
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
  }

  /** Runs an effect's work and reports what it says, if anything; what goes wrong fails the round, not the process. */
  async #reporting(round: RoundId, work: () => Promise<RoundEvent | undefined>): Promise<void> {
    let event: RoundEvent | undefined;
    try {
      event = await work();
    } catch (error) {
      if (this.#closed) return;
      const code: ProblemCode = error instanceof FederationError ? error.code : 'internal';
      this.#deps.logger.error({ err: error, round }, 'the round failed');
      if (code === 'disk-full') {
        this.#giveUp(error);
        return;
      }
      event = { type: 'round-failed', round, code, at: this.#now() };
    }
    if (!this.#closed && event !== undefined) await this.#dispatch(event);
  }

  async #openRound(round: RoundId, cohort: readonly ClientId[], previous: Digest | null): Promise<RoundEvent> {
    const { config, identity, random } = this.#deps;
    let announcement = await this.#files.announcement(round);
    if (announcement === undefined) {
      this.#checkSecureCohort(round, cohort.length);
      const query = this.#selectQuery(round);
      const labels = await this.#deps.teacher.labels(query);
      const keys = await this.#files.makeBoxKeys(round, random);
      const signed = signDocument(
        'round',
        {
          protocol: protocolVersion,
          task: config.task,
          taskDigest: this.#taskDigest,
          round,
          previous,
          trustMode: config.privacy.trustMode,
          stages: this.#policy.stages,
          boxKey: toBase64(keys.publicKey),
          query: this.#wireIndices(query),
          labels: labels === undefined ? null : await this.#publishLabels(round, labels),
          release: { ...this.#release, ...(this.#deps.teacher.queryOf === undefined ? {} : { rows: query.length }) } as unknown as Json,
          encoding: config.aggregation.encoding,
          ...this.#sharingMember(),
          cohort: { size: cohort.length, quorum: this.#policy.quorum },
          releases: this.#policy.maxReleases ?? this.#policy.rounds,
          deadlineMs: this.#policy.stageDeadlineMs,
          ...this.#secureMembers(),
        },
        identity,
      );
      await this.#files.putAnnouncement(round, signed);
      announcement = (await this.#files.announcement(round))!;
    }
    this.#announcement = announcement;
    this.#emit('round-opened', { round, cohort: cohort.length, queried: announcement.document.query.count, labels: announcement.document.labels?.count ?? 0 });
    return { type: 'round-opened', round, transcript: announcement.transcript, at: this.#now() };
  }

  /** Public: from the task's seed and the transfer set, not from anybody's data. */
  #selectQuery(round: RoundId): Uint32Array {
    const { config, transferSet, teacher } = this.#deps;
    const { rows } = this.#release;
    if (config.schedule.querySelection === 'clusterMiddles' && rows < transferSet.count) return (this.#clusterMiddles ??= clusterMiddles(transferSet, rows, config.seed));
    const batch = transferBatch(config, transferSet.count, round);
    return teacher.queryOf?.(batch, round) ?? batch;
  }

  async #publishLabels(of: RoundId | 'finished', labels: SoftLabels): Promise<SoftLabelsRef> {
    const { labelEncoding: encoding } = this.#deps.config.distillation;
    // Few bits stand for probabilities: a model's logits become what it would predict.
    const isSoftened = isBitsEncoding(encoding) && labels.kind === 'logits';
    const kind = isSoftened ? 'probabilities' : labels.kind;
    const matrix = isSoftened ? softmax(labels.matrix) : labels.matrix;
    const frame = encodePredictions(matrix, kind, encoding);
    await this.#files.putLabels(of, frame);
    const ref = { digest: digestOf(frame), kind, ...this.#wireIndices(labels.indices) } as const;
    if (this.#labelHistory === undefined) return ref;
    const changed = this.#labelHistory.changes(labels.indices, frame, kind, matrix.columns, encoding);
    if (changed?.frame !== undefined) await this.#files.putChangedLabels(of, changed.frame);
    return { ...ref, keep: true, ...(changed === undefined ? {} : { changed: changed.ref }) };
  }

  /** Tasks that need the second revision of the protocol anyway spell sets of indices in its shorter form. */
  #wireIndices(indices: Uint32Array): WireIndices & { readonly [key: string]: Json } {
    const wire = this.#isCompact ? encodeIndicesCompactly(indices, this.#deps.transferSet.count) : encodeIndices(indices);
    return { ...wire } as WireIndices & { readonly [key: string]: Json };
  }

  /** Fails a round that could only fail later, after its clients have trained: one that no graph is safe for, or whose sum would wrap. */
  #checkSecureCohort(round: RoundId, clients: number): void {
    const { secureAggregation } = this.#secureMembers();
    if (secureAggregation === undefined) return;
    const dimension = this.#release.rows * this.#release.columns;
    const parameters = { dimension, minCohort: secureAggregation.minCohort, minSurvivors: secureAggregation.minSurvivors, maxCorrupt: secureAggregation.maxCorrupt };
    checkParameters({ round, manifestHash: new Uint8Array(32), parameters });
    checkCohort(clients, parameters);
    graphShape({ clients, ...parameters });
    checkSumFits(this.#release, clients);
  }

  /** How many clients a row needs is the coordinator's business. */
  #sharingMember(): { readonly sharing?: { readonly minConfidence: number; readonly maxEntropy: number } } {
    const { sharing } = this.#deps.config.distillation;
    return sharing === undefined ? {} : { sharing: { minConfidence: sharing.minConfidence, maxEntropy: sharing.maxEntropy } };
  }

  /** The member of an announcement that only a round of secure aggregation has. */
  #secureMembers(): { readonly secureAggregation?: { readonly minCohort: number; readonly minSurvivors: number; readonly maxCorrupt: number; readonly stageDeadlineMs: number } } {
    const { secureAggregation, quorum } = this.#policy;
    return secureAggregation === undefined ? {} : { secureAggregation: { minCohort: quorum, minSurvivors: quorum, ...secureAggregation } };
  }

  #announce(client: ClientId, round: RoundId): Promise<void> {
    const announcement = this.#announcement;
    return announcement?.document.round === round ? this.#ask(client, round, 'round', announcement.signed) : Promise.resolve();
  }

  /** Asks a client for a message; one that is not here is asked when it joins again. A refusal is a `decline`. */
  async #ask(client: ClientId, round: RoundId, event: 'round' | 'stage', payload: object): Promise<void> {
    const session = this.#sessions.forClient(client);
    if (session === undefined) return;
    try {
      await session.connection.send(event, payload);
    } catch (error) {
      if (!(error instanceof FederationError)) throw error;
      if (error.code === 'disconnected') return;
      if (error.code === 'deadline-exceeded') session.connection.close();
      else await this.#decline(client, round, error.code);
    }
  }

  async #openStage({ round, stage, clients, closed }: OpenStage): Promise<undefined> {
    const secure = this.#secureRound();
    if (secure === undefined) return;
    const messageFor = await secure.messagesFor(stage as SecureStageName, closed);
    const { current } = this.#state;
    if (current.phase !== 'collecting' || current.round !== round || current.stage !== stage) return; // it took longer than the stage waits
    this.#emit('stage-opened', { round, stage, clients: clients.length, needed: current.quorum });
    for (const client of clients) if (pendingForClient(current, client)) this.#inBackground(this.#ask(client, round, 'stage', { round, stage, data: messageFor(client) }));
  }

  /** A client that is back while a later stage waits for it gets what opened the stage: it may have missed it. */
  async #askAgain(client: ClientId): Promise<void> {
    const { current } = this.#state;
    if (this.#closed || current.phase !== 'collecting' || !pendingForClient(current, client)) return;
    const { round, stage, closed } = current;
    const messageFor = await this.#secureRound()?.messagesFor(stage as SecureStageName, closed);
    if (messageFor !== undefined) await this.#ask(client, round, 'stage', { round, stage, data: messageFor(client) });
  }

  /** The secure aggregation of the round in progress; `undefined` in other trust modes. */
  #secureRound(): SecureAggregation | undefined {
    const announcement = this.#announcement;
    if (this.#policy.secureAggregation === undefined || announcement === undefined) return undefined;
    const { round } = announcement.document;
    if (this.#secureAggregation?.round !== round) {
      this.#secureAggregation = new SecureAggregation({
        context: secureContextOf(announcement.document, announcement.transcript),
        crypto: this.#deps.crypto ?? nodeCrypto,
        readFrame: (stage, contribution) => this.#readFrame(announcement, stage, contribution),
      });
    }
    return this.#secureAggregation;
  }

  /** The frame in a stored envelope. */
  async #readFrame(announcement: Announcement, stage: StageName, contribution: Contribution): Promise<Uint8Array> {
    const { round } = announcement.document;
    const keys = await this.#files.boxKeys(round);
    if (keys === undefined) throw new FederationError('state-mismatch', `The box keys of round ${round} are gone.`, { field: 'box-secret' });
    const envelope = await this.#files.contribution(round, stage, contribution);
    return openEnvelope(envelope, this.#envelopeContext(round, stage, announcement), envelope.subarray(12, 44), keys.secretKey);
  }

  async #aggregate({ round, survivors, closed }: Aggregate): Promise<RoundEvent> {
    const { store, teacher, transferSet } = this.#deps;
    const announcement = this.#announcement?.document.round === round ? this.#announcement : await this.#files.announcement(round);
    if (announcement === undefined) throw new FederationError('state-mismatch', `The announcement of round ${round} is gone.`, { field: 'announcement' });
    const secure = this.#secureRound();
    const consensus = secure === undefined ? await this.#combine(announcement, survivors) : await this.#unmask(secure, round, closed);
    const query = decodeIndices(announcement.document.query, transferSet.count, 'query');
    const lesson = learnable(query, consensus, this.#deps.config.aggregation.maxEntropy);
    const quality = lesson.indices.length === 0 ? noQuality : await teacher.learn(round, lesson.indices, lesson.consensus);
    if (!this.#measuredRounds.has(round)) {
      this.#measuredRounds.add(round);
      await store.append(metrics, { round, cohort: announcement.document.cohort.size, contributions: survivors.length, queried: query.length, teacherAccuracy: quality.accuracy, teacherNll: quality.nll });
    }
    this.#emit('round-aggregated', { round, contributions: survivors.length, teacherAccuracy: quality.accuracy, seconds: (this.#deps.clock.now() - this.#openedAt) / 1000 });
    return { type: 'round-aggregated', round, accuracy: quality.accuracy, at: this.#now() };
  }

  async #combine(announcement: Announcement, survivors: readonly Contribution[]): Promise<Consensus> {
    const frames: Uint8Array[] = [];
    for (const contribution of survivors) frames.push(await this.#readFrame(announcement, 'contribution', contribution));
    return combineContributions(frames, this.#shape(announcement.document.release), this.#deps.config.aggregation);
  }

  async #unmask(secure: SecureAggregation, round: RoundId, closed: readonly ClosedStage[]): Promise<Consensus> {
    const { sum, survivors, suspects } = await secure.sum(closed);
    if (suspects.length > 0) {
      const clients = await Promise.all(suspects.map((index) => secure.clientAt(index, closed)));
      this.#deps.logger.warn({ round, clients }, 'shares of these clients, or of those who dealt them, did not fit');
      this.#emit('share-suspects', { round, clients });
    }
    return consensusOfSum(sum, survivors.length, this.#shape(), this.#deps.config.aggregation);
  }

  async #closeRound(effect: CloseRound): Promise<void> {
    const { round, outcome, code, contributions, cohort, ended } = effect;
    this.#emit(outcome === 'released' ? 'round-released' : 'round-aborted', { round, contributions, cohort: cohort.length, ...(code === null ? {} : { code }), ...(ended === undefined ? {} : { stage: ended.stage, needed: ended.quorum }) });
    if (this.#secureAggregation?.round === round) this.#secureAggregation = undefined;
    this.#uploads.dropRoundsBefore((round + 1) as RoundId);
    this.#problemEvents = 0;
    this.#unerased.set(round, cohort);
    await this.#eraseClosedRounds();
    for (const client of cohort) {
      const session = this.#sessions.forClient(client);
      // The next round may be open by now: what a client is told is what that client may still contribute to.
      const nextRound = nextRoundFor(this.#state, client, this.#policy);
      if (session !== undefined) this.#inBackground(this.#tell(session, 'round-closed', { round, outcome, code, contributions, nextRound }));
    }
  }

  async #eraseClosedRounds(): Promise<void> {
    for (const [round, cohort] of this.#unerased) {
      try {
        await this.#files.erase(round, this.#policy.stages, cohort);
        this.#unerased.delete(round);
      } catch (error) {
        this.#deps.logger.error({ err: error, round }, 'the keys of a closed round could not be erased; this is tried again');
      }
    }
  }

  async #finish(reason: FinishReason): Promise<void> {
    try {
      let stored = await this.#files.finished();
      if (stored === undefined) {
        const { config, identity } = this.#deps;
        const labels = await this.#finalLabels(reason);
        const signed = signDocument(
          'finished',
          { protocol: protocolVersion, task: config.task, taskDigest: this.#taskDigest, reason, rounds: this.#state.released, previous: this.#state.previous, labels },
          identity,
        );
        await this.#files.putFinished(signed);
        stored = (await this.#files.finished())!;
      }
      this.#emit('finished', { reason, released: this.#state.released });
      const { signed } = stored;
      await Promise.all(this.#sessions.all().map((session) => this.#tell(session, 'finished', signed)));
      this.#resolveFinished(reason);
    } catch (error) {
      this.#giveUp(error);
    }
  }

  async #finalLabels(reason: FinishReason): Promise<SoftLabelsRef | null> {
    const { teacher, transferSet, logger } = this.#deps;
    if (this.#state.released === 0) return null;
    try {
      const labels = await teacher.labels(Uint32Array.from({ length: transferSet.count }, (_, index) => index));
      return labels === undefined ? null : await this.#publishLabels('finished', labels);
    } catch (error) {
      // Rounds failed for a reason that is likely this one, e.g. a teacher that diverged: then the task still ends.
      if (reason !== 'failed' || (error instanceof FederationError && error.code === 'disk-full')) throw error;
      logger.error({ err: error }, 'there are no final soft labels');
      return null;
    }
  }

  /** Sends a notice; a client that cannot be reached learns it when it joins again. */
  async #tell(session: Session, event: CoordinatorEvent, payload: object): Promise<void> {
    try {
      await session.connection.send(event, payload);
    } catch (error) {
      this.#deps.logger.debug({ err: error, event }, 'a notice did not arrive');
    }
  }

  // --- small things ---

  /** `release`: of the round in progress, whose rows may be fewer than planned. */
  #shape(release = this.#announcement?.document.release ?? this.#release): ContributionShape {
    const { config } = this.#deps;
    const { sharing } = config.distillation;
    return { release, encoding: config.aggregation.encoding, partial: sharing !== undefined, minClientsPerRow: sharing?.minClients ?? 1 };
  }

  /** What a client's message of the open stage may have before it is sealed. */
  async #frameLengths(stage: StageName, client: ClientId): Promise<ByteLengths> {
    const closed = this.#closedStages();
    const secure = this.#secureRound();
    if (secure !== undefined) return secure.frameLengths(stage as SecureStageName, client, closed);
    return contributionLengths(this.#shape());
  }

  #envelopeContext(round: RoundId, stage: EnvelopeContext['stage'], announcement = this.#announcement): EnvelopeContext {
    if (announcement?.document.round !== round) throw roundIsClosed(round);
    return { taskDigest: this.#taskDigest, round, stage, transcript: announcement.transcript };
  }

  #now() {
    return this.#deps.clock.now();
  }

  /** A watcher that throws must not keep an effect from being performed. */
  #emit(event: string, fields: object): void {
    try {
      this.#deps.events.emit({ event, at: this.#deps.clock.now(), ...fields });
    } catch (error) {
      this.#deps.logger.error({ err: error, event }, 'an event could not be delivered');
    }
  }
}

/** Who has ever joined and has not left since. */
function clientsNotLeft(records: readonly RoundEvent[]): ReadonlySet<ClientId> {
  const clients = new Set<ClientId>();
  for (const event of records) {
    if (event.type === 'client-connected') clients.add(event.client);
    else if (event.type === 'client-left') clients.delete(event.client);
  }
  return clients;
}

function roundIsClosed(round: RoundId): FederationError {
  return new FederationError('round-closed', `Round ${round} takes no more contributions.`, { next: 'Wait for the next announcement.' });
}

function digestEquals(stored: Uint8Array, digest: Digest): boolean {
  return new TextDecoder().decode(stored) === digest;
}

/** The release of every round of a task. Throws `config-invalid` when no noise meets the budget. */
export function planTaskRelease(config: TaskConfig, transferExamples: number): ReleaseParameters {
  const { privacy, schedule, aggregation, data } = config;
  const { sampleAndAggregate, recordVotes, dpSgd } = privacy;
  return planRelease({
    mechanism: privacy.mechanism,
    outputKind: contributionKind(aggregation.aggregator),
    rows: Math.min(schedule.transferBatch ?? transferExamples, transferExamples),
    columns: data.numClasses,
    rowClippingNorm: privacy.rowClippingNorm,
    gridStep: privacy.gridStep,
    epsilon: privacy.epsilon,
    delta: privacy.delta,
    releases: schedule.rounds,
    ...(sampleAndAggregate === undefined ? {} : { shards: sampleAndAggregate.shards, votes: sampleAndAggregate.votes }),
    ...(recordVotes === undefined ? {} : { recordVotes: recordVotes.maxRecords }),
    ...(dpSgd === undefined ? {} : { privateTraining: { clippingNorm: dpSgd.clippingNorm, noiseMultiplier: dpSgd.noiseMultiplier, samplingRate: dpSgd.samplingRate, steps: dpSgd.stepsPerRound } }),
    // The most clients that a sum can have: whoever comes, it does not wrap.
    ...(privacy.trustMode === 'secure-aggregation' ? { shares: schedule.quorum - privacy.secureAggregation.maxCorrupt, clients: largestCohort(roundPolicyOf(config), MAX_COHORT) } : {}),
  });
}

/** docs/protocol.md section 7. */
function taskDocumentOf(config: TaskConfig, coordinator: string, release: ReleaseParameters, transferSet: { readonly digest: Digest; readonly rows: number }): Json {
  const { privacy, schedule, student, distillation } = config;
  return {
    protocol: protocolVersion,
    task: config.task,
    coordinator,
    seed: config.seed,
    numClasses: config.data.numClasses,
    exampleShape: config.data.exampleShape,
    transferSet,
    student: { ...student, optimizer: { ...student.optimizer } },
    distillation: { temperature: distillation.temperature, alpha: distillation.alpha, loss: distillation.loss },
    privacy: {
      trustMode: privacy.trustMode,
      mechanism: privacy.mechanism,
      unit: privacy.unit,
      epsilon: privacy.epsilon ?? null,
      delta: privacy.delta,
      releases: schedule.rounds,
      ...(privacy.trustMode === 'secure-aggregation' ? { secureAggregation: { minSurvivors: schedule.quorum, maxCorrupt: privacy.secureAggregation.maxCorrupt } } : {}),
      ...(privacy.sampleAndAggregate === undefined ? {} : { sampleAndAggregate: { ...privacy.sampleAndAggregate } }),
      ...(privacy.recordVotes === undefined ? {} : { recordVotes: { ...privacy.recordVotes } }),
      ...(release.mechanism === 'dpSgd' ? { dpSgd: { ...release.noise, learningRate: privacy.dpSgd!.learningRate } } : {}),
    },
    schedule: { rounds: schedule.rounds, minClients: schedule.minClients, quorum: schedule.quorum, roundDeadlineMs: schedule.roundDeadlineSeconds * 1000 },
    admission: config.admission.mode,
  };
}
