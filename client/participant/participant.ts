/**
 * A participant: joins one coordinator's task, works on its rounds until it is finished, and comes back after every lost connection. It knows neither
 * sockets nor files nor the wall clock: everything is injected, so a simulation runs this very code.
 *
 * It does not trust the coordinator: it pins its key, verifies every document, asks its own policy before it works and again before it sends, and
 * charges its own ledger before the first byte leaves (`round-work.ts`). Weights, losses, accuracies and example counts are never sent; what it measures
 * goes to its own store and event sink.
 *
 * One round at a time. Messages are handled one after the other; a round's work runs beside them and is aborted by a signal when its round closes.
 */
import type { IdentityKeys } from '../../shared/crypto/signature.ts';
import { digestOf } from '../../shared/crypto/digest.ts';
import { portableCrypto, type CryptoProvider } from '../../shared/crypto/provider.ts';
import type { ComputeEngine, ModelSource } from '../../shared/compute/engine.ts';
import type { View } from '../../shared/config/view-config.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { applyView } from '../../shared/datasets/views.ts';
import { FederationError } from '../../shared/errors.ts';
import { sleep, type Clock } from '../../shared/ports/clock.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { EventSink } from '../../shared/ports/event-sink.ts';
import type { Logger } from '../../shared/ports/logger.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import type { Connector } from '../../shared/ports/transport.ts';
import { decide, refusalError, type ClientPolicy } from '../../shared/privacy/client-policy.ts';
import { clientIdOf } from '../../shared/protocol/identity.ts';
import { frameBytes } from '../../shared/protocol/matrix-frame.ts';
import { coordinatorEventSchemas, type Ack, type ClientAck, type CoordinatorEvent, type CoordinatorMessage, type FinishReason, type TaskDocument } from '../../shared/protocol/messages.ts';
import { fromProblem, toProblem } from '../../shared/protocol/problems.ts';
import { malformedMessage, type SignedDocument } from '../../shared/protocol/signed-document.ts';
import type { ClientId, RoundId } from '../../shared/types/ids.ts';
import type { Examples, LabelledExamples } from '../../shared/types/matrix.ts';
import { abortable } from './abortable.ts';
import { verifyAnnouncement, verifyFinished, type Announcement, type FinishedNotice, type TaskContext } from './announcement.ts';
import { backoffMs } from './backoff.ts';
import { deferred } from './deferred.ts';
import { isBusy, isConnectionLost, isRoundOver, roundIsClosed, toFederationError } from './faults.ts';
import { LabelMemory } from './label-memory.ts';
import { ClientMetricsLog, qualityFields, writeEpsilon } from './metrics.ts';
import { Outbox } from './outbox.ts';
import { PrivateReleases } from './private-releases.ts';
import { Progress } from './progress.ts';
import { contribute, fetchLabels, isCharged, resend, type RoundReport, type RoundWorkContext } from './round-work.ts';
import { askedForStored, sendStored, takePart, wasRestarted, type SecureSendContext } from './secure-round.ts';
import { exchangeHere, type OpenExchange } from './secure-exchange.ts';
import { SessionSlot, type Session } from './session-slot.ts';
import { RecordVotes } from './record-votes.ts';
import { ShardModels } from './shard-models.ts';
import { StageInbox } from './stage-inbox.ts';
import { ask, greet, join, type Greeting } from './session.ts';
import { judgeTask } from './task-policy.ts';
import { storedTransferSet, type TransferSetCache } from './transfer-set.ts';
import { LocalTraining, localOnlyBlob, Student, studentBlob, studentSettings, type StudentOverrides } from './training.ts';
import { throughView } from './view.ts';

/** Payload bytes moved so far, counted by the connector. */
export interface Traffic {
  readonly bytesUp: number;
  readonly bytesDown: number;
}

/** What a participant needs for a task, once it knows the task. */
export interface Workspace {
  /** For this task at this coordinator alone. */
  readonly store: DurableStore;
  /** Takes examples as the view shows them. */
  readonly model: ModelSource;
  /** Examples of the task's shape, not yet seen through the view. */
  readonly privateDataset: LabelledExamples;
  /** Labelled examples on which the student is measured; nothing of it is sent. */
  readonly testSet?: LabelledExamples;
  /** How this client sees every example; default: as it is. */
  readonly view?: View;
  /** Where the transfer set is kept; default: in `store`. */
  readonly transferSets?: TransferSetCache;
}

export interface ParticipantDeps {
  readonly connector: Connector;
  /** Fingerprint of the coordinator's key, from the join URL. */
  readonly coordinatorFingerprint: string;
  readonly identity: IdentityKeys;
  readonly clock: Clock;
  /** Keys, nonces, noise and backoff. */
  readonly random: RandomSource;
  /** For secure aggregation; default: portable and slow. */
  readonly crypto?: CryptoProvider;
  /** Where secure aggregation is computed; default: here. */
  readonly openExchange?: OpenExchange;
  readonly ledger: PrivacyLedger;
  readonly policy: ClientPolicy;
  readonly engine: ComputeEngine;
  /** Called once, with the verified task, before joining: opens the store, reads the data. What it throws ends the participant. */
  prepare(task: TaskDocument): Promise<Workspace>;
  readonly logger: Logger;
  readonly events: EventSink;
  readonly joinToken?: string;
  readonly overrides?: StudentOverrides;
  /** Seeds weights, hold-out, shuffles and dropout: an integer in [0, 2^32). Default: from the task's seed and the client id. */
  readonly seed?: number;
  /** Also train a student that never distils, with the same first weights and the same local epochs: the baseline. Default false. */
  readonly trackLocalOnly?: boolean;
  /** Train once more on the private dataset after the last distillation (the baseline too). Default false: the student ends as it was distilled. */
  readonly personalize?: boolean;
  readonly traffic?: Traffic;
  readonly patience?: Partial<Patience>;
}

/** How long to keep trying, in milliseconds. */
export interface Patience {
  /** To join for the first time; default 60,000. */
  readonly firstJoinMs: number;
  /** To come back after a lost connection; default 3,600,000. */
  readonly reconnectMs: number;
  /** To fetch the last soft labels of a task that is finished; default 120,000. */
  readonly finishMs: number;
}

const defaultPatience: Patience = { firstJoinMs: 60_000, reconnectMs: 3_600_000, finishMs: 120_000 };

export interface ParticipantSummary {
  readonly clientId: ClientId;
  readonly task: string;
  readonly reason: FinishReason;
  /** Rounds that the coordinator released. */
  readonly rounds: number;
  /** Rounds to which this client contributed. */
  readonly contributedRounds: number;
  /** Test accuracies in [0, 1]; `undefined` without a test set. */
  readonly pretrainedAccuracy: number | undefined;
  /** Of the baseline student at the end; `undefined` when it was not tracked. */
  readonly localOnlyAccuracy: number | undefined;
  readonly finalAccuracy: number | undefined;
  readonly bytesUp: number;
  readonly bytesDown: number;
  /** Replace-one, at the policy's delta, over everything in the ledger. */
  readonly epsilonSpent: number;
}

/** What a round's work needs, and takes long to get. */
interface Warm {
  readonly transferSet: Examples;
  readonly shardModels: ShardModels | undefined;
  readonly recordVotes: RecordVotes | undefined;
}

/** Everything about the task that stays the same over connections. */
interface Assignment extends TaskContext {
  readonly workspace: Workspace;
  readonly progress: Progress;
  readonly outbox: Outbox;
  readonly metrics: ClientMetricsLog;
  readonly training: LocalTraining;
  readonly privateReleases: PrivateReleases;
  readonly student: Student;
  readonly localOnly: Student | undefined;
  /** Resolves when the transfer set is here and the student is pretrained, and the models of shards are trained where the task has some. */
  readonly warm: Promise<Warm>;
}

/** A round's work that is under way. */
interface Work {
  readonly round: RoundId;
  readonly controller: AbortController;
  /** Resolves when nothing of it runs any more; never rejects. */
  readonly done: Promise<void>;
  /** The round's first message may be on its way: only the coordinator can say whether it came in time. */
  sending: boolean;
}

const ok: Ack = { ok: true };

export class Participant {
  readonly clientId: ClientId;
  readonly #deps: ParticipantDeps;
  readonly #patience: Patience;
  readonly #sessions: SessionSlot;
  readonly #ended = deferred<ParticipantSummary>();
  /** Aborted when the participant ends, for whatever reason. */
  readonly #lifetime = new AbortController();
  /** Labels that later announcements may leave out. */
  readonly #labelMemory = new LabelMemory();
  #assignment: Assignment | undefined;
  #work: Work | undefined;
  /** Of the last round of secure aggregation that this process took part in. */
  #inbox: StageInbox | undefined;
  /** Set once the signed end of the task has come. */
  #finishing: Promise<void> | undefined;
  #hasJoined = false;
  /** Since when there is no session, by the clock. */
  #aloneSince = 0;
  #isRunning = false;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(deps: ParticipantDeps) {
    this.#deps = deps;
    this.#patience = { ...defaultPatience, ...deps.patience };
    this.clientId = clientIdOf(deps.identity.publicKey);
    this.#sessions = new SessionSlot(deps.clock, deps.random);
  }

  /**
   * Takes part until the task is finished. Rejects with a `FederationError` when it cannot or must not go on, or with the signal's reason when
   * aborted; what was done by then is stored, and another run goes on from there. To be called once.
   */
  async run(signal?: AbortSignal): Promise<ParticipantSummary> {
    if (this.#isRunning) throw new FederationError('internal', 'A participant runs once.', { field: 'run' });
    this.#isRunning = true;
    const onAbort = () => this.#stop(signal?.reason);
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    const connected = this.#stayConnected().catch((error: unknown) => {
      // A task that has ended can be completed without a connection.
      if (this.#finishing === undefined) this.#stop(error);
      this.#sessions.fail(error);
    });
    try {
      return await this.#ended.promise;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.#lifetime.abort(stopped());
      this.#sessions.fail(stopped());
      await Promise.allSettled([connected, this.#work?.done, this.#finishing, this.#assignment?.warm]);
      await Promise.allSettled([this.#assignment?.student.dispose(), this.#assignment?.localOnly?.dispose()]);
    }
  }

  /** Ends the participant: what runs is aborted, and nothing more is sent. */
  #stop(error: unknown): void {
    this.#ended.reject(error);
    this.#lifetime.abort(stopped());
    this.#work?.controller.abort(stopped());
  }

  // --- connections ---

  /** Connects again and again; rejects when that makes no sense any more. */
  async #stayConnected(): Promise<never> {
    const { clock, random } = this.#deps;
    let failures = 0;
    this.#aloneSince = clock.now();
    for (;;) {
      let reason: string;
      try {
        const { lost } = await this.#connect();
        failures = 0;
        reason = await lost;
        this.#aloneSince = clock.now();
      } catch (error) {
        if (!isConnectionLost(error) && !isBusy(error)) throw error;
        reason = error.message;
        const waited = clock.now() - this.#aloneSince;
        if (waited >= (this.#hasJoined ? this.#patience.reconnectMs : this.#patience.firstJoinMs)) throw gaveUp(waited, error);
      }
      this.#lifetime.signal.throwIfAborted();
      const delayMs = backoffMs(failures++, random);
      this.#emit('reconnecting', { reason, delayMs });
      await sleep(clock, delayMs, this.#lifetime.signal);
    }
  }

  /** One connection, up to the session; `lost` says when and why it ends. */
  async #connect(): Promise<{ readonly lost: Promise<string> }> {
    const connection = await this.#deps.connector.connect(this.#lifetime.signal);
    const lost = deferred<string>();
    const abandon = (reason: string) => {
      lost.resolve(reason);
      connection.close().catch((error: unknown) => this.#deps.logger.debug({ err: error }, 'a connection was not closed cleanly'));
    };
    const onStop = () => abandon('the participant has stopped');
    this.#lifetime.signal.addEventListener('abort', onStop, { once: true });
    connection.onDisconnect((reason) => lost.resolve(reason));
    // Events wait until the session stands: before, nothing is known about who sends them.
    const joined = deferred<Assignment>();
    connection.onEvent((event, payload) => this.#receive(event, payload, joined.promise));
    void lost.promise.then(() => {
      this.#lifetime.signal.removeEventListener('abort', onStop);
      joined.reject(new FederationError('disconnected', 'The connection was lost before the session stood.'));
    });
    try {
      const greeting = await greet(connection, this.#deps);
      const assignment = await this.#adopt(greeting);
      const ack = await join(connection, greeting, this.#deps.identity, this.#deps.joinToken);
      const session: Session = { connection, token: ack.sessionToken, abandon };
      this.#hasJoined = true;
      this.#emit('joined', { clientId: this.clientId, task: assignment.task.task, nextRound: ack.nextRound });
      void lost.promise.then(() => this.#sessions.clear(session));
      this.#sessions.set(session);
      await this.#exclusive(() => this.#onJoined(assignment, session, ack));
      joined.resolve(assignment);
      return { lost: lost.promise };
    } catch (error) {
      abandon(error instanceof Error ? error.message : String(error));
      throw error;
    }
  }

  // --- the task ---

  /** On first sight: judges the task and gets ready for it. Later: it must be the same one. */
  async #adopt(greeting: Greeting): Promise<Assignment> {
    if (this.#assignment !== undefined) {
      if (this.#assignment.taskDigest === greeting.taskDigest) return this.#assignment;
      throw new FederationError('context-mismatch', 'The coordinator has replaced its task by another one.', {
        field: 'taskDigest',
        expected: this.#assignment.taskDigest,
        got: greeting.taskDigest,
        next: 'Look at the new task, and start the client again if you want to take part in it.',
      });
    }
    const { task, taskDigest, coordinatorKey } = greeting;
    const { policy, ledger, engine, overrides, trackLocalOnly } = this.#deps;
    const { epsilonAtEnd } = judgeTask(policy, task, ledger);
    this.#emit('task-verified', { task: task.task, rounds: task.schedule.rounds, trustMode: task.privacy.trustMode, mechanism: task.privacy.mechanism, ...(epsilonAtEnd === undefined ? {} : { epsilonAtEnd: writeEpsilon(epsilonAtEnd) }) });
    if (epsilonAtEnd !== undefined && epsilonAtEnd > policy.maxEpsilon) this.#emit('budget-short', { epsilonAtEnd, maxEpsilon: policy.maxEpsilon });
    const prepared = await this.#deps.prepare(task);
    this.#aloneSince = this.#deps.clock.now(); // reading data is not waiting for the coordinator
    checkDataset(prepared.privateDataset, task, 'private dataset');
    if (prepared.testSet !== undefined) checkDataset(prepared.testSet, task, 'test set');
    const workspace = await throughView(prepared);
    const { store, model, privateDataset } = workspace;
    const progress = await Progress.open(store, taskDigest);
    const outbox = new Outbox(store);
    // Killed between settling a round and clearing it away.
    if (progress.last?.state === 'closed') await outbox.remove(progress.last.round);
    const seed = this.#deps.seed ?? deriveSeed(task.seed, 'student', this.clientId);
    const open = (blob: string) => Student.open({ engine, source: model, seed: deriveSeed(seed, 'weights'), store, blob });
    const student = await open(studentBlob);
    const localOnly = trackLocalOnly === true ? await open(localOnlyBlob) : undefined;
    const training = new LocalTraining(task, studentSettings(task, overrides ?? {}), privateDataset, deriveSeed(seed, 'training'), this.#deps.random, ({ round, step }, { message }) =>
      this.#emit('student-diverged', { round, step, reason: message }),
    );
    const privateReleases = await PrivateReleases.open(store, task.task, ledger);
    privateReleases.checkNotOlder(student);
    const common = { task, taskDigest, coordinatorKey, workspace, progress, outbox, metrics: await ClientMetricsLog.open(store), training, privateReleases, student, localOnly };
    const warm = this.#warmUp(common);
    warm.catch((error: unknown) => this.#stop(error));
    this.#assignment = { ...common, warm };
    return this.#assignment;
  }

  async #warmUp(assignment: Omit<Assignment, 'warm'>): Promise<Warm> {
    const { signal } = this.#lifetime;
    const [wholeTransferSet] = await Promise.all([this.#fetchTransferSet(assignment, signal), this.#pretrain(assignment, signal)]);
    const transferSet = applyView(assignment.workspace.view ?? [], wholeTransferSet);
    return { transferSet, shardModels: await this.#trainShards(assignment, transferSet, signal), recordVotes: this.#openRecordVotes(assignment, transferSet) };
  }

  /** Once for the whole task: the models that predict in the student's place. */
  async #trainShards({ task, taskDigest, workspace: { store, privateDataset } }: Omit<Assignment, 'warm'>, transferSet: Examples, signal: AbortSignal): Promise<ShardModels | undefined> {
    const settings = task.privacy.sampleAndAggregate;
    if (settings === null) return undefined;
    const startedAt = this.#deps.clock.now();
    let trained = 0;
    const models = await ShardModels.train({ engine: this.#deps.engine, store, task, taskDigest, privateDataset, transferSet, onTrained: () => trained++ }, signal);
    if (trained > 0) this.#emit('shards-trained', { shards: settings.shards, trained, epochs: settings.epochs, seconds: this.#secondsSince(startedAt) });
    return models;
  }

  /** The records that vote in the student's place. */
  #openRecordVotes({ task, workspace: { privateDataset } }: Omit<Assignment, 'warm'>, transferSet: Examples): RecordVotes | undefined {
    const settings = task.privacy.recordVotes;
    if (settings === null) return undefined;
    const votes = RecordVotes.open({ task, privateDataset, transferSet });
    this.#emit('records-vote', { voting: votes.voting, silent: privateDataset.examples.count - votes.voting, maxRecords: settings.maxRecords });
    return votes;
  }

  /** From the cache, or from the coordinator into the cache; compared with the signed digest either way. */
  async #fetchTransferSet({ task, workspace }: Omit<Assignment, 'warm'>, signal: AbortSignal): Promise<Examples> {
    const { rows, digest } = task.transferSet;
    const cache = workspace.transferSets ?? storedTransferSet(workspace.store);
    const cached = await cache.get(digest);
    if (cached !== undefined) return checkTransferSet(cached, task);
    const maxBytes = frameBytes('float32', [rows, ...task.exampleShape]);
    const frame = await this.#sessions.use(signal, ({ connection, token }) => connection.fetchFrame('/transfer-set', token, maxBytes));
    const got = digestOf(frame);
    if (got !== digest) {
      throw new FederationError('digest-mismatch', 'The transfer set is not the one that the coordinator signed.', { field: '/transfer-set', expected: digest, got, next: 'Something between you and the coordinator changes its answers; use https.' });
    }
    const transferSet = checkTransferSet(await cache.put(digest, frame), task);
    this.#emit('transfer-set-fetched', { examples: rows, bytes: frame.length });
    return transferSet;
  }

  async #pretrain(assignment: Omit<Assignment, 'warm'>, signal: AbortSignal): Promise<void> {
    const { student, training, workspace } = assignment;
    const startedAt = this.#deps.clock.now();
    const report = await training.pretrain(student, signal);
    await this.#trainLocalOnly(assignment, signal);
    const line = await this.#measure(assignment, 'pretrain', 0, false);
    if (report !== undefined) this.#emit('pretrained', { examples: workspace.privateDataset.examples.count, epochs: report.epochsRun, seconds: this.#secondsSince(startedAt), testAccuracy: line.testAccuracy });
  }

  /**
   * Brings the baseline to where the student is. The student is at most one local training ahead: this runs after each, and after a restart. Equal
   * first weights and seeds make their pretraining equal, so its result is copied.
   */
  async #trainLocalOnly({ student, localOnly, training }: Omit<Assignment, 'warm'>, signal: AbortSignal): Promise<void> {
    if (localOnly === undefined) return;
    const isPretrained = localOnly.has({ round: 0, step: 'pretrain' });
    if (!isPretrained && student.done.step === 'pretrain') await localOnly.copyFrom(student);
    else if (!isPretrained) await training.pretrain(localOnly, signal);
    if (student.done.step === 'revisit') await training.revisit(localOnly, student.done.round, student.privateSteps - localOnly.privateSteps, signal);
  }

  /** Measures and writes a line of metrics, once for each phase and round. */
  async #measure({ student, localOnly, workspace: { testSet }, metrics }: Omit<Assignment, 'warm'>, phase: 'pretrain' | 'round' | 'final', round: number, contributed: boolean) {
    const existing = metrics.find(phase, round);
    if (existing !== undefined) return existing;
    const quality = testSet === undefined ? undefined : await student.measure(testSet);
    const localOnlyQuality = testSet === undefined ? undefined : await localOnly?.measure(testSet);
    const line = { round, phase, contributed, ...qualityFields(quality, localOnlyQuality), epsilonSpent: writeEpsilon(this.#epsilonSpent()), ...this.#traffic() };
    await metrics.append(line);
    return line;
  }

  // --- messages of the coordinator ---

  async #receive(event: string, payload: unknown, joined: Promise<Assignment>): Promise<Ack> {
    try {
      if (!Object.hasOwn(coordinatorEventSchemas, event)) throw new FederationError('event-unknown', 'There is no such event.', { field: 'event', got: event.slice(0, 64) });
      const parsed = coordinatorEventSchemas[event as CoordinatorEvent].safeParse(payload);
      if (!parsed.success) throw malformedMessage(event, parsed.error);
      // A replaced session is told so also before it stands.
      if (event === 'problem') {
        this.#onProblem(parsed.data as CoordinatorMessage<'problem'>);
        return ok;
      }
      const assignment = await joined;
      await this.#exclusive(() => this.#handle(assignment, event as CoordinatorEvent, parsed.data));
      return ok;
    } catch (error) {
      const known = toFederationError(error);
      if (known.fault === 'internal') this.#stop(known); // without a store there is no safe next step
      return { ok: false, problem: toProblem(tellable(known)) };
    }
  }

  #onProblem({ problem }: CoordinatorMessage<'problem'>): void {
    const error = fromProblem(problem);
    if (error.code === 'session-replaced') this.#stop(error); // docs/protocol.md section 6: MUST NOT reconnect
    else this.#deps.logger.warn({ code: error.code }, 'the coordinator reports a problem');
  }

  async #handle(assignment: Assignment, event: CoordinatorEvent, message: unknown): Promise<void> {
    if (event === 'finished') this.#onFinished(assignment, message as SignedDocument);
    else if (this.#finishing !== undefined) throw new FederationError('task-finished', 'The task is finished.', { field: event });
    else if (event === 'round') await this.#onRound(assignment, message as SignedDocument);
    else if (event === 'stage') this.#onStage(assignment, message as CoordinatorMessage<'stage'>);
    else if (event === 'round-closed') await this.#onRoundClosed(assignment, message as CoordinatorMessage<'round-closed'>);
  }

  async #onJoined(assignment: Assignment, session: Session, ack: ClientAck<'join'>): Promise<void> {
    if (ack.finished !== null) {
      this.#onFinished(assignment, ack.finished);
    } else if (this.#finishing !== undefined) {
      return;
    } else if (ack.round !== null) {
      const round = ack.round;
      await this.#onRound(assignment, round).catch(async (error: unknown) => {
        const known = toFederationError(error);
        if (known.fault === 'internal') throw known;
        const { last } = assignment.progress;
        this.#emit('announcement-refused', { code: known.code, reason: known.message });
        // Here is no acknowledgement to refuse with.
        if ((known.fault === 'refused' || known.code === 'declined') && last !== null) await ask(session.connection, 'decline', { round: last.round, code: known.code });
      });
    } else {
      await this.#onNothingAsked(assignment, ack.nextRound);
    }
  }

  /** Joined, and no contribution is wanted now: whatever we were working on is closed, or was accepted without our knowing. */
  async #onNothingAsked(assignment: Assignment, nextRound: RoundId): Promise<void> {
    const { progress, outbox, task } = assignment;
    const last = progress.last;
    if (last === null || last.round >= nextRound) return;
    if (progress.lastAdvertised >= last.round) {
      // Between two stages: a later one may still want what is stored. When the round is over, the next announcement ends it.
      if (this.#inbox?.round === last.round || (last.state !== 'announced' && last.state !== 'accepted')) return;
      if (!(await this.#rejoin(assignment, last.round, undefined))) await this.#close(assignment, last.round);
      return;
    }
    if (last.state !== 'announced') return;
    if (this.#work?.round === last.round) {
      if (!this.#work.sending) this.#work.controller.abort(roundIsClosed(last.round));
      return;
    }
    const entry = await outbox.get(last.round);
    if (entry === undefined || !isCharged(entry, task.task, this.#deps.ledger)) {
      await this.#close(assignment, last.round);
      return;
    }
    this.#start(assignment, last.round, async (signal) => {
      await resend(entry, this.#sessions, signal);
      await progress.settle(last.round, 'accepted');
    });
  }

  async #onRound(assignment: Assignment, signed: SignedDocument): Promise<void> {
    const announcement = verifyAnnouncement(signed, assignment);
    const { document, transcript } = announcement;
    const { round } = document;
    const { progress } = assignment;
    const last = progress.last;
    if (last !== null && round < last.round) throw replayed(round, last.round);
    if (last !== null && round === last.round) {
      if (transcript !== last.transcript) {
        throw new FederationError('context-mismatch', `This is a second, different announcement of round ${round}.`, { field: 'round', expected: last.transcript, got: transcript, next: 'The coordinator contradicts itself; ask its operator.' });
      }
      if (last.state === 'closed') throw roundIsClosed(round);
      if (this.#work?.round === round) return; // connected again: the work goes on
      if (this.#inbox?.round === round && last.state === 'accepted') return; // everything was sent
    }
    try {
      if (!(await this.#wasCharged(assignment, round))) this.#checkPolicy(assignment, announcement);
    } catch (error) {
      await this.#see(assignment, announcement, 'declined');
      throw error;
    }
    await this.#see(assignment, announcement, 'announced');
    this.#emit('round-announced', { round, queried: document.query.count, labels: document.labels?.count ?? 0, cohort: document.cohort.size, deadlineMs: document.deadlineMs });
    if (document.secureAggregation === undefined) {
      this.#start(assignment, round, (signal) => this.#contribute(assignment, announcement, signal));
    } else if (progress.lastAdvertised < round) {
      this.#takePart(assignment, announcement);
    } else if (!(await this.#rejoin(assignment, round, announcement))) {
      await this.#see(assignment, announcement, 'declined');
      throw wasRestarted(round);
    }
  }

  /** A later stage of a round of secure aggregation. */
  #onStage({ progress }: Assignment, { round, stage, data }: CoordinatorMessage<'stage'>): void {
    const { last, lastAdvertised } = progress;
    if (last === null || round > last.round) throw new FederationError('round-unknown', `Round ${round} was not announced to this client.`, { field: 'round', got: String(round), next: 'Announce it first.' });
    if (round < last.round || last.state === 'closed') throw roundIsClosed(round);
    if (last.state === 'declined') throw new FederationError('declined', `This client has declined round ${round}.`, { field: 'round', got: String(round), next: 'Go on without it.' });
    if (this.#inbox?.round !== round && lastAdvertised >= round) throw wasRestarted(round);
    if (this.#inbox?.round !== round) throw new FederationError('stage-mismatch', `This client waits for no stage of round ${round}.`, { field: 'stage', got: stage, next: 'Announce the round first.' });
    this.#inbox.accept(stage, data);
  }

  /** Remembers an announcement durably; a newer one ends the round before it. */
  async #see(assignment: Assignment, { document: { round }, transcript }: Announcement, state: 'announced' | 'declined'): Promise<void> {
    const { progress, outbox } = assignment;
    const { last } = progress;
    if (last?.round === round) {
      await progress.settle(round, state);
      return;
    }
    if (this.#work !== undefined) this.#work.controller.abort(roundIsClosed(this.#work.round));
    await progress.announce(round, transcript, state);
    // Work that still runs clears up behind itself.
    if (last !== null && this.#work?.round !== last.round) await outbox.remove(last.round);
  }

  async #wasCharged({ outbox, task }: Assignment, round: RoundId): Promise<boolean> {
    const entry = await outbox.get(round);
    return entry !== undefined && isCharged(entry, task.task, this.#deps.ledger);
  }

  async #onRoundClosed(assignment: Assignment, message: CoordinatorMessage<'round-closed'>): Promise<void> {
    const { round, outcome, contributions, code } = message;
    this.#emit('round-closed', { round, outcome, contributions, ...(code === null ? {} : { code }) });
    if (this.#work?.round === round) this.#work.controller.abort(roundIsClosed(round));
    if (assignment.progress.last?.round === round) await this.#close(assignment, round);
  }

  async #close({ progress, outbox }: Assignment, round: RoundId): Promise<void> {
    await progress.settle(round, 'closed');
    await outbox.remove(round);
  }

  /** Throws the policy's refusal of this release, with the ledger as it is now. */
  #checkPolicy({ progress, task }: Assignment, { document }: Announcement): void {
    const ledger = this.#deps.ledger.entries();
    // What was charged may have been sent: a coordinator that takes a contribution and calls it late does not get a further one for that.
    const charged = ledger.filter((entry) => entry.task === document.task).length;
    const { privacy } = task;
    if (document.release.mechanism !== 'none' && charged >= privacy.releases) {
      const reason = `The task promised its epsilon for ${privacy.releases} releases, and this client has been charged for all of them.`;
      this.#emit('round-refused', { round: document.round, code: 'budget-exhausted', reason });
      throw new FederationError('budget-exhausted', reason, { field: 'release', expected: `fewer than ${privacy.releases} charges`, got: String(charged), next: 'The coordinator asks for more than it promised; ask its operator.' });
    }
    const decision = decide(this.#deps.policy, {
      trustMode: document.trustMode,
      parameters: document.release,
      roundsDone: Math.max(progress.contributions, charged),
      cohortSize: document.cohort.size,
      quorum: document.cohort.quorum,
      secureAggregation: document.secureAggregation,
      ledger,
    });
    if (decision.kind === 'accept') return;
    this.#emit('round-refused', { round: document.round, code: decision.code, reason: decision.reason });
    throw refusalError(decision);
  }

  // --- work ---

  /** Starts a round's work in the background, after the work before it has ended. `run` resolves when the coordinator has the contribution. */
  #start(assignment: Assignment, round: RoundId, run: (signal: AbortSignal) => Promise<void>): void {
    const before = this.#work?.done ?? Promise.resolve();
    const controller = new AbortController();
    const done = before.then(() => run(controller.signal)).then(
      () => this.#accepted(assignment, round),
      (error: unknown) => this.#failed(assignment, round, controller.signal, error),
    );
    this.#work = { round, controller, done: done.catch((error: unknown) => this.#stop(error)), sending: false };
  }

  async #contribute(assignment: Assignment, announcement: Announcement, signal: AbortSignal): Promise<void> {
    const { round } = announcement.document;
    const startedAt = this.#deps.clock.now();
    const warmed = await abortable(assignment.warm, signal);
    const report = await contribute(announcement, this.#workContext(assignment, warmed), signal);
    await assignment.progress.settle(round, 'accepted');
    await this.#reportRound(assignment, round, report, startedAt);
  }

  /** A round of secure aggregation, from the beginning. */
  #takePart(assignment: Assignment, announcement: Announcement): void {
    const { round } = announcement.document;
    const { crypto = portableCrypto, openExchange = exchangeHere, policy } = this.#deps;
    const { progress, warm } = assignment;
    const inbox = new StageInbox(round);
    this.#inbox = inbox;
    this.#start(assignment, round, async (signal) => {
      const warmed = await abortable(warm, signal);
      await this.#contributing(assignment, round, signal, (contributed) => {
        const own = { crypto, openExchange, minHonest: policy.minHonest, lastAdvertised: progress.lastAdvertised, advertise: (advertised: RoundId) => progress.advertise(advertised) };
        return takePart(announcement, { ...this.#workContext(assignment, warmed), ...this.#sendContext(assignment, inbox, contributed), ...own }, signal);
      });
    });
  }

  /**
   * A round for which an earlier process has advertised keys: what it has stored is sent when the coordinator asks for it. Resolves with false when there is nothing that
   * may be sent. `announcement`: if the coordinator has sent it again; without it nothing new is charged.
   */
  async #rejoin(assignment: Assignment, round: RoundId, announcement: Announcement | undefined): Promise<boolean> {
    const { outbox, progress, task } = assignment;
    const stored = (await outbox.getAnswer(round)) ?? (await outbox.get(round));
    if (stored === undefined || stored.transcript !== progress.last?.transcript) return false;
    if (announcement === undefined && stored.stage !== 'unmask' && !isCharged(stored, task.task, this.#deps.ledger)) return false;
    const inbox = new StageInbox(round, () => wasRestarted(round));
    this.#inbox = inbox;
    const asked = askedForStored(stored, inbox);
    const checkPolicy = () => {
      if (announcement !== undefined) this.#checkPolicy(assignment, announcement);
    };
    this.#start(assignment, round, async (signal) => {
      await abortable(asked, signal);
      await this.#contributing(assignment, round, signal, (contributed) => sendStored(stored, checkPolicy, this.#sendContext(assignment, inbox, contributed), signal));
    });
    return true;
  }

  /** Runs the work of a secure round. Once the coordinator has the masked input, the owner is told about it, whatever becomes of the rest. */
  async #contributing(assignment: Assignment, round: RoundId, signal: AbortSignal, work: (contributed: (report: RoundReport) => Promise<void>) => Promise<RoundReport>): Promise<void> {
    const startedAt = this.#deps.clock.now();
    let report: RoundReport | undefined;
    let refusal: FederationError | undefined;
    try {
      report = await work(async (soFar) => {
        report = soFar;
        await assignment.progress.settle(round, 'accepted');
      });
    } catch (error) {
      if (report === undefined || this.#lifetime.signal.aborted) throw error;
      // That the round has closed meanwhile is no failure: the masked input was there in time.
      if (!signal.aborted && !isRoundOver(error)) refusal = toFederationError(error);
    }
    if (assignment.metrics.find('round', round) === undefined) await this.#reportRound(assignment, round, report, startedAt);
    if (refusal !== undefined) throw refusal;
  }

  #sendContext({ task, outbox }: Assignment, inbox: StageInbox, contributed: (report: RoundReport) => Promise<void>): SecureSendContext {
    const { clock, ledger, policy } = this.#deps;
    const { round } = inbox;
    return {
      task: task.task,
      ledger,
      clock,
      outbox,
      sessions: this.#sessions,
      sending: () => this.#onSending(),
      inbox,
      stageDone: (stage, bytes) => this.#emit('stage', { round, stage, bytes }),
      charged: () => this.#emit('charged', { round, epsilonSpent: writeEpsilon(this.#epsilonSpent()), maxEpsilon: writeEpsilon(policy.maxEpsilon) }),
      contributed,
    };
  }

  #onSending(): void {
    if (this.#work !== undefined) this.#work.sending = true;
  }

  #workContext(assignment: Assignment, { transferSet, shardModels, recordVotes }: Warm): RoundWorkContext {
    const { task, outbox, student, training, privateReleases } = assignment;
    const { identity, random, clock, ledger } = this.#deps;
    return {
      task: task.task,
      numClasses: task.numClasses,
      identity,
      random,
      clock,
      ledger,
      outbox,
      sessions: this.#sessions,
      transferSet,
      student,
      shardModels,
      recordVotes,
      training,
      privateReleases,
      labelMemory: this.#labelMemory,
      checkPolicy: (announcement) => this.#checkPolicy(assignment, announcement),
      sending: () => this.#onSending(),
    };
  }

  /** The coordinator has the contribution: this is for the owner alone. */
  async #reportRound(assignment: Assignment, round: RoundId, report: RoundReport, startedAt: number): Promise<void> {
    await this.#trainLocalOnly(assignment, this.#lifetime.signal);
    const line = await this.#measure(assignment, 'round', round, true);
    this.#emit('contributed', {
      round,
      distilled: report.distilled,
      epochs: report.epochs,
      bytes: report.envelopeBytes,
      epsilonSpent: line.epsilonSpent,
      maxEpsilon: writeEpsilon(this.#deps.policy.maxEpsilon),
      testAccuracy: line.testAccuracy,
      localOnlyTestAccuracy: line.localOnlyTestAccuracy,
      seconds: this.#secondsSince(startedAt),
    });
  }

  async #accepted({ progress, outbox }: Assignment, round: RoundId): Promise<void> {
    if (this.#work?.round === round) this.#work = undefined;
    // Closed, or followed by another announcement, meanwhile.
    if (progress.last?.round !== round || progress.last.state === 'closed') await outbox.remove(round);
  }

  /** A round that came to nothing. Rejects when the participant cannot go on. */
  async #failed(assignment: Assignment, round: RoundId, signal: AbortSignal, error: unknown): Promise<void> {
    if (this.#lifetime.signal.aborted) return;
    if (this.#work?.round === round) this.#work = undefined;
    if (signal.aborted || isRoundOver(error)) {
      await this.#close(assignment, round);
      this.#emit('round-missed', { round, code: 'round-closed' });
      // The student may have trained for it, and then so does the baseline.
      await this.#trainLocalOnly(assignment, this.#lifetime.signal);
      return;
    }
    const known = toFederationError(error);
    this.#emit('declined', { round, code: known.code, reason: known.message });
    await assignment.progress.settle(round, 'declined').catch(() => undefined);
    await this.#sessions.current?.connection.request('decline', { round, code: known.code }).catch(() => undefined);
    // A peer's fault or a policy's no concerns this round; ours will not be better in the next.
    if (known.fault === 'internal' || known.fault === 'badInput') throw known;
    await this.#trainLocalOnly(assignment, this.#lifetime.signal);
  }

  // --- the end ---

  #onFinished(assignment: Assignment, signed: SignedDocument): void {
    const notice = verifyFinished(signed, assignment);
    if (this.#finishing !== undefined) return;
    this.#work?.controller.abort(new FederationError('task-finished', 'The task is finished.'));
    this.#finishing = this.#finish(assignment, notice).catch((error: unknown) => this.#stop(error));
  }

  async #finish(assignment: Assignment, notice: FinishedNotice): Promise<void> {
    const { task, progress, outbox, student, localOnly, metrics } = assignment;
    const { reason, rounds } = notice.document;
    const { signal } = this.#lifetime;
    await this.#work?.done;
    signal.throwIfAborted();
    this.#emit('task-finished', { reason, rounds });
    const { transferSet } = await assignment.warm;
    await this.#trainLocalOnly(assignment, signal);
    await this.#distilLast(assignment, notice, transferSet);
    if (this.#deps.personalize === true) {
      for (const trained of [student, localOnly]) if (trained !== undefined) await assignment.training.personalize(trained, rounds, signal);
    }
    const line = await this.#measure(assignment, 'final', rounds, false);
    if (progress.last !== null) await outbox.remove(progress.last.round);
    await this.#sessions.current?.connection.request('leave', {}).catch(() => undefined);
    this.#emit('left', { reason, testAccuracy: line.testAccuracy, student: student.summary.name });
    this.#ended.resolve({
      clientId: this.clientId,
      task: task.task,
      reason,
      rounds,
      contributedRounds: progress.contributions,
      pretrainedAccuracy: metrics.find('pretrain')?.testAccuracy ?? undefined,
      localOnlyAccuracy: localOnly === undefined ? undefined : (line.localOnlyTestAccuracy ?? undefined),
      finalAccuracy: line.testAccuracy ?? undefined,
      ...this.#traffic(),
      epsilonSpent: this.#epsilonSpent(),
    });
  }

  /** The last labels are a gain, not a duty: a coordinator that is gone by now does not spoil what was learned. */
  async #distilLast({ student, training, task }: Assignment, { document, labelled }: FinishedNotice, transferSet: Examples): Promise<void> {
    const at = { round: document.rounds, step: 'final' } as const;
    if (document.labels === null || labelled === undefined || !training.distils || student.has(at)) return;
    const impatience = new AbortController();
    const stop = () => impatience.abort(this.#lifetime.signal.reason);
    this.#lifetime.signal.addEventListener('abort', stop, { once: true });
    const timer = this.#deps.clock.schedule(this.#patience.finishMs, () => impatience.abort(new FederationError('deadline-exceeded', 'The last soft labels did not come in time.')));
    try {
      const labels = await fetchLabels('/finished/soft-labels', document.labels, labelled, { sessions: this.#sessions, transferSet, numClasses: task.numClasses, labelMemory: this.#labelMemory }, impatience.signal);
      timer.cancel();
      await training.digest(student, at, labels, this.#lifetime.signal);
    } catch (error) {
      this.#lifetime.signal.throwIfAborted();
      const known = toFederationError(error);
      if (known.fault !== 'peer') throw known;
      this.#emit('last-labels-missed', { code: known.code, reason: known.message });
    } finally {
      timer.cancel();
      this.#lifetime.signal.removeEventListener('abort', stop);
    }
  }

  // --- small things ---

  /** Handles messages one after the other. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #epsilonSpent(): number {
    return this.#deps.ledger.spent('replaceOne', this.#deps.policy.delta);
  }

  #traffic(): Traffic {
    const { bytesUp = 0, bytesDown = 0 } = this.#deps.traffic ?? {};
    return { bytesUp, bytesDown };
  }

  #secondsSince(startedAt: number): number {
    return (this.#deps.clock.now() - startedAt) / 1000;
  }

  #emit(event: string, fields: Readonly<Record<string, unknown>>): void {
    this.#deps.events.emit({ event, at: this.#deps.clock.now(), ...fields });
  }
}

/** What a coordinator may know of an error: everything of its own faults, and the bare code where policy, ledger or machine of the owner speak. */
function tellable(error: FederationError): FederationError {
  return error.fault === 'peer' ? error : new FederationError(error.code, 'This client does not take part in this.');
}

function stopped(): FederationError {
  return new FederationError('disconnected', 'The participant has stopped.');
}

function gaveUp(waitedMs: number, cause: FederationError): FederationError {
  return new FederationError('unreachable', `The coordinator could not be reached for ${Math.round(waitedMs / 1000)} seconds: ${cause.message}`, {
    field: 'URL',
    next: 'Check that the coordinator runs and that its address and port can be reached from here, then start the client again.',
    cause,
  });
}

function replayed(round: RoundId, last: RoundId): FederationError {
  return new FederationError('round-closed', `Round ${round} is over: round ${last} was announced after it.`, { field: 'round', expected: `at least ${last}`, got: String(round) });
}

function checkDataset(data: LabelledExamples, { exampleShape, numClasses }: TaskDocument, what: string): void {
  const { examples } = data;
  const shapeOf = (shape: readonly number[]) => `[${shape.join(', ')}]`;
  if (examples.count < 1 || shapeOf(examples.shape) !== shapeOf(exampleShape) || data.numClasses !== numClasses) {
    throw new FederationError('data-invalid', `The ${what} does not fit the task.`, {
      field: what,
      expected: `at least one example of shape ${shapeOf(exampleShape)}, ${numClasses} classes`,
      got: `${examples.count} of shape ${shapeOf(examples.shape)}, ${data.numClasses} classes`,
      next: 'Give the data that the task is about.',
    });
  }
}

function checkTransferSet(examples: Examples, { transferSet, exampleShape }: TaskDocument): Examples {
  const expected = `[${[transferSet.rows, ...exampleShape].join(' x ')}]`;
  const got = `[${[examples.count, ...examples.shape].join(' x ')}]`;
  if (got !== expected) throw new FederationError('shape-mismatch', 'The transfer set does not have the shape that the task names.', { field: '/transfer-set', expected, got, next: 'Ask the coordinator\'s operator.' });
  return examples;
}
