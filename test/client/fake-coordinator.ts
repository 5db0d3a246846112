/**
 * A coordinator that does as it is told: real documents, real signatures, real boxes, no rules of its own. By default it runs its rounds by itself: announces,
 * takes the contribution, closes, announces the next, finishes. Everything that a client sends is kept.
 */
import { deferred, type Deferred } from '../../client/participant/deferred.ts';
import { digestOf } from '../../shared/crypto/digest.ts';
import { generateBoxKeys, type BoxKeys } from '../../shared/crypto/sealed-box.ts';
import { generateIdentity, signMessage } from '../../shared/crypto/signature.ts';
import { FederationError } from '../../shared/errors.ts';
import type { Connector, CoordinatorConnection } from '../../shared/ports/transport.ts';
import { isOnGrid, planRelease, type ReleaseParameters } from '../../shared/privacy/release.ts';
import type { Json } from '../../shared/protocol/canonical-json.ts';
import { openEnvelope, verifyEnvelope, type EnvelopeContext } from '../../shared/protocol/envelope.ts';
import { clientIdOf, fingerprint, helloTranscript } from '../../shared/protocol/identity.ts';
import { encodeIndices } from '../../shared/protocol/indices.ts';
import { encodeExamples, encodePredictions, frameBytes } from '../../shared/protocol/matrix-frame.ts';
import { clientEventSchemas, type Ack, type ClientEvent, type ClientMessage } from '../../shared/protocol/messages.ts';
import { fromProblem, toProblem } from '../../shared/protocol/problems.ts';
import { documentHash, signDocument, type SignedDocument } from '../../shared/protocol/signed-document.ts';
import { toBase64 } from '../../shared/types/bytes.ts';
import type { RoundId } from '../../shared/types/ids.ts';
import type { Examples, OutputKind } from '../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import type { VirtualClock } from '../../simulations/network/virtual-clock.ts';

export const exampleShape = [4];
export const numClasses = 3;
export const transferRows = 12;

/** How a `dpSgd` task trains. */
export const privateTraining = { clippingNorm: 1, samplingRate: 0.25, steps: 6 };
export const privateLearningRate = 0.02;

export interface FakeTask {
  readonly mechanism: ReleaseParameters['mechanism'];
  readonly epsilon: number | null;
  readonly rounds: number;
  readonly outputKind: OutputKind;
  readonly labelKind: OutputKind;
  readonly trustMode: 'sealed' | 'clear' | 'secure-aggregation';
  readonly admission: 'open' | 'token';
  readonly alpha: number;
  readonly quorum: number;
  /** Record-level votes by this many shards; null: the student predicts. */
  readonly shards: number | null;
  /** With secure aggregation. */
  readonly maxCorrupt: number;
}

const defaultTask: FakeTask = { mechanism: 'gaussian', epsilon: 8, rounds: 3, outputKind: 'logits', labelKind: 'logits', trustMode: 'sealed', admission: 'open', alpha: 0, quorum: 3, shards: null, maxCorrupt: 0 };

interface OpenRound {
  readonly round: RoundId;
  readonly signed: SignedDocument;
  readonly keys: BoxKeys;
  envelope: Uint8Array | undefined;
}

interface Link {
  isOpen: boolean;
  onEvent: (event: string, payload: unknown) => Promise<Ack>;
  onDisconnect: (reason: string) => void;
  clientKey: Uint8Array | undefined;
  hasJoined: boolean;
  /** Resolves when the connection is gone: an answer that is still awaited never comes. */
  readonly closed: Deferred<undefined>;
}

export class FakeCoordinator {
  readonly clock: VirtualClock;
  readonly random = new InsecureSeededRandom(99);
  readonly identity = generateIdentity(this.random);
  readonly fingerprint = fingerprint(this.identity.publicKey);
  readonly config: FakeTask;
  readonly release: ReleaseParameters;
  readonly task: SignedDocument;
  readonly transferFrame: Uint8Array;
  /** Every event that arrived, in order. */
  readonly received: { readonly event: string; readonly payload: Record<string, unknown> }[] = [];
  /** Every frame that was asked for. */
  readonly fetched: string[] = [];
  /** Digests that were named in `upload-begin`, by round. */
  readonly offered = new Map<number, Set<string>>();
  /** What was accepted, opened: digests of the frames by round. */
  readonly accepted = new Map<number, string>();
  readonly declined: { readonly round: number; readonly code: string }[] = [];
  /** Announce, close and finish without being told. */
  autopilot = true;
  /** Whether anybody answers. */
  isUp = true;
  /** Looks at every request before it is handled; what it throws is answered, `drop` breaks the connection. */
  onRequest: (event: string, payload: Record<string, unknown>) => void = () => undefined;
  /** Told of every byte of a contribution. */
  onBytes: (round: number) => void = () => undefined;
  connections = 0;

  #link: Link | undefined;
  #open: OpenRound | undefined;
  #finished: SignedDocument | undefined;
  #next = 1;
  #upload: { id: string; round: number; digest: string; bytes: Uint8Array; received: number } | undefined;
  readonly #labels = new Map<string, Uint8Array>();

  constructor(clock: VirtualClock, config: Partial<FakeTask> = {}) {
    this.clock = clock;
    this.config = { ...defaultTask, ...config };
    const { mechanism, epsilon, rounds, outputKind, quorum, maxCorrupt, shards } = this.config;
    const shares = { ...(mechanism === 'discreteGaussian' ? { shares: quorum - maxCorrupt } : {}), ...(shards === null ? {} : { shards, votes: true }) };
    const training = mechanism === 'dpSgd' ? { privateTraining } : {};
    this.release = planRelease({ ...training, mechanism, outputKind, rows: transferRows, columns: numClasses, rowClippingNorm: 5, gridStep: 2 ** -12, ...(epsilon === null ? {} : { epsilon }), delta: 1e-5, releases: rounds, ...shares });
    const transferSet: Examples = { count: transferRows, shape: exampleShape, values: Float32Array.from({ length: transferRows * 4 }, (_, i) => i / 50) };
    this.transferFrame = encodeExamples(transferSet);
    this.task = signDocument('task', this.taskValue(), this.identity);
  }

  taskValue(changes: Record<string, Json> = {}): Json {
    const { mechanism, epsilon, rounds, trustMode, admission, alpha, quorum, maxCorrupt, shards } = this.config;
    const sampleAndAggregate = shards === null ? null : { shards, votes: true, model: 'softmax-regression', inputs: 'examples', epochs: 4, batchSize: 20, learningRate: 0.01, l2: 0.001, minConfidence: 0 };
    return {
      protocol: 'fdp/1',
      task: 'toy',
      coordinator: this.fingerprint,
      seed: 7,
      numClasses,
      exampleShape,
      transferSet: { digest: digestOf(this.transferFrame), rows: transferRows },
      student: { model: 'softmax-regression', optimizer: { kind: 'adam', learningRate: 0.01 }, batchSize: 8, pretrainEpochs: 2, digestEpochs: 2, revisitEpochs: 1, l2: 0, dropout: 0, earlyStoppingPatience: 0 },
      distillation: { temperature: 3, alpha, loss: 'kl' },
      privacy: { trustMode, mechanism, unit: shards === null && mechanism !== 'dpSgd' ? 'client' : 'record', sampleAndAggregate, ...(this.release.mechanism === 'dpSgd' ? { dpSgd: { ...this.release.noise, learningRate: privateLearningRate } } : {}), epsilon, delta: 1e-5, releases: rounds, ...(trustMode === 'secure-aggregation' ? { secureAggregation: { minSurvivors: quorum, maxCorrupt } } : {}) },
      schedule: { rounds, minClients: quorum, quorum, roundDeadlineMs: 60_000 },
      admission,
      ...changes,
    };
  }

  get taskDigest() {
    return documentHash('task', this.task.document);
  }

  /** A signed announcement; `changes` replace members. */
  sign(round: number, changes: Record<string, Json> = {}, keys = generateBoxKeys(this.random), by = this.identity): SignedDocument {
    const everything = Uint32Array.from({ length: transferRows }, (_, i) => i);
    return signDocument(
      'round',
      {
        protocol: 'fdp/1',
        task: 'toy',
        taskDigest: this.taskDigest,
        round,
        previous: null,
        trustMode: this.config.trustMode,
        stages: ['contribution'],
        boxKey: toBase64(keys.publicKey),
        query: { ...encodeIndices(everything) },
        labels: round === 1 ? null : this.#publishLabels(`/rounds/${round}/soft-labels`, round),
        release: this.release as unknown as Json,
        encoding: 'float32',
        cohort: { size: this.config.quorum + 2, quorum: this.config.quorum },
        releases: this.config.rounds,
        deadlineMs: 60_000,
        ...changes,
      },
      by,
    );
  }

  #publishLabels(path: string, round: number): Json {
    const kind = this.config.labelKind;
    const values = Float32Array.from({ length: transferRows * numClasses }, (_, i) => (kind === 'logits' ? Math.sin(i + round) : 1 / numClasses));
    const frame = encodePredictions({ rows: transferRows, columns: numClasses, values }, kind, 'float32');
    this.#labels.set(path, frame);
    return { digest: digestOf(frame), kind, ...encodeIndices(Uint32Array.from({ length: transferRows }, (_, i) => i)) };
  }

  /** Replaces what is served at a path. */
  serve(path: string, frame: Uint8Array): void {
    this.#labels.set(path, frame);
  }

  // --- what a coordinator does ---

  /** Opens the next round and announces it to whoever has joined. */
  async openRound(changes: Record<string, Json> = {}): Promise<Ack | undefined> {
    const round = this.#next++ as RoundId;
    const keys = generateBoxKeys(this.random);
    this.#open = { round, keys, signed: this.sign(round, changes, keys), envelope: undefined };
    return this.send('round', this.#open.signed);
  }

  async closeRound(outcome: 'released' | 'aborted' = 'released'): Promise<void> {
    const open = this.#open!;
    this.#open = undefined;
    this.#upload = undefined;
    await this.send('round-closed', { round: open.round, outcome, code: outcome === 'aborted' ? 'quorum-missed' : null, contributions: open.envelope === undefined ? 0 : 1, nextRound: this.#next });
  }

  async finish(changes: Record<string, Json> = {}): Promise<Ack | undefined> {
    this.#finished = this.signFinished(this.accepted.size, changes);
    return this.send('finished', this.#finished);
  }

  signFinished(rounds: number, changes: Record<string, Json> = {}): SignedDocument {
    const labels = this.#publishLabels('/finished/soft-labels', 100);
    return signDocument('finished', { protocol: 'fdp/1', task: 'toy', taskDigest: this.taskDigest, reason: 'rounds-done', rounds, previous: null, labels, ...changes }, this.identity);
  }

  /** What is served at a path. */
  frame(path: string): Uint8Array {
    const frame = path === '/transfer-set' ? this.transferFrame : this.#labels.get(path);
    if (frame === undefined) throw new FederationError('not-found', 'There is nothing at this path.');
    return frame.slice();
  }

  /** Sends an event to the client that has joined; its answer. */
  async send(event: string, payload: object): Promise<Ack | undefined> {
    const link = this.#link;
    if (link?.isOpen !== true || !link.hasJoined) return undefined;
    return structuredClone(await Promise.race([link.onEvent(event, structuredClone(payload)), link.closed.promise]));
  }

  /** Breaks the connection. */
  drop(tellClient = true): void {
    const link = this.#link;
    this.#link = undefined;
    if (link?.isOpen !== true) return;
    link.isOpen = false;
    link.closed.resolve(undefined);
    if (tellClient) link.onDisconnect('dropped');
  }

  get isRoundOpen(): boolean {
    return this.#open !== undefined;
  }

  // --- what a client sees ---

  connector(): Connector {
    return {
      connect: async () => {
        if (!this.isUp) throw new FederationError('unreachable', 'The coordinator does not answer.');
        this.connections++;
        const link: Link = { isOpen: true, onEvent: async () => ({ ok: true }), onDisconnect: () => undefined, clientKey: undefined, hasJoined: false, closed: deferred() };
        this.#link = link;
        return this.#connection(link);
      },
    };
  }

  #connection(link: Link): CoordinatorConnection {
    const lost = () => new FederationError('disconnected', 'The connection was lost.');
    return {
      request: async (event, payload) => {
        if (!link.isOpen) throw lost();
        const copy = structuredClone(payload) as Record<string, unknown>;
        this.received.push({ event, payload: copy });
        let answer: object;
        try {
          this.onRequest(event, copy);
          if (!link.isOpen) throw lost();
          answer = this.#handle(link, event, clientEventSchemas[event].parse(copy));
        } catch (error) {
          if (!link.isOpen) throw lost();
          throw fromProblem(toProblem(error, { nextRound: this.#next }));
        }
        await Promise.resolve();
        if (!link.isOpen) throw lost();
        return structuredClone({ ok: true, ...answer });
      },
      fetchFrame: async (path, _token, maxBytes) => {
        this.fetched.push(path);
        this.onRequest(`GET ${path}`, {});
        if (!link.isOpen) throw lost();
        const frame = this.frame(path);
        if (frame.length > maxBytes) throw new FederationError('message-too-large', 'too large');
        return frame;
      },
      onEvent: (handler) => void (link.onEvent = handler),
      onDisconnect: (handler) => void (link.onDisconnect = handler),
      close: async () => {
        link.isOpen = false;
        link.closed.resolve(undefined);
      },
    };
  }

  #handle(link: Link, event: ClientEvent, message: unknown): object {
    if (event !== 'hello' && !(event === 'join' || link.hasJoined)) throw new FederationError('not-authenticated', 'Join first.');
    switch (event) {
      case 'hello': {
        const { clientKey, clientNonce } = message as ClientMessage<'hello'>;
        link.clientKey = clientKey;
        const serverNonce = this.random.bytes(32);
        const signature = signMessage(helloTranscript({ coordinatorKey: this.identity.publicKey, clientKey, clientNonce, serverNonce }, this.taskDigest), this.identity);
        return { protocol: 'fdp/1', coordinatorKey: toBase64(this.identity.publicKey), serverNonce: toBase64(serverNonce), task: this.task, signature: toBase64(signature) };
      }
      case 'join': {
        link.hasJoined = true;
        if (this.autopilot && this.#open === undefined && this.#finished === undefined && this.#next === 1) this.#later(() => this.openRound());
        const isAsked = this.#open !== undefined && this.#open.envelope === undefined;
        const round = isAsked ? this.#open!.signed : null;
        return { clientId: clientIdOf(link.clientKey!), sessionToken: 'session', nextRound: isAsked ? this.#open!.round : this.#next, round, finished: this.#finished ?? null };
      }
      case 'upload-begin':
        return this.#begin(message as ClientMessage<'upload-begin'>);
      case 'upload-chunk': {
        const { upload, offset, data } = message as ClientMessage<'upload-chunk'>;
        const current = this.#find(upload);
        if (offset !== current.received) throw new FederationError('upload-offset', 'Another offset.', { expected: String(current.received) });
        this.onBytes(current.round);
        current.bytes.set(data, offset);
        current.received += data.length;
        return { offset: current.received };
      }
      case 'upload-end':
        return this.#end(link, message as ClientMessage<'upload-end'>);
      case 'decline':
        this.declined.push(message as ClientMessage<'decline'>);
        return {};
      case 'leave':
        return {};
    }
  }

  #begin({ round, bytes, digest }: ClientMessage<'upload-begin'>): object {
    this.offered.set(round, (this.offered.get(round) ?? new Set()).add(digest));
    this.onBytes(round);
    const open = this.#open;
    if (open?.round !== round) throw new FederationError('round-closed', 'The round is closed.');
    if (open.envelope !== undefined) {
      if (digestOf(open.envelope) !== digest) throw new FederationError('contribution-conflict', 'Other bytes were accepted.');
      return { accepted: true, duplicate: true };
    }
    if (this.#upload?.digest !== digest) this.#upload = { id: `u${round}-${this.received.length}`, round, digest, bytes: new Uint8Array(bytes), received: 0 };
    return { upload: this.#upload.id, offset: this.#upload.received };
  }

  /** Forgets uploads that are under way, as a coordinator that was restarted. */
  forgetUploads(): void {
    this.#upload = undefined;
  }

  #find(id: string) {
    if (this.#upload?.id !== id) throw new FederationError('upload-unknown', 'There is no such upload.');
    return this.#upload;
  }

  #end(link: Link, { upload }: ClientMessage<'upload-end'>): object {
    const { round, bytes, digest } = this.#find(upload);
    const open = this.#open;
    if (open?.round !== round) throw new FederationError('round-closed', 'The round is closed.');
    if (digestOf(bytes) !== digest) throw new FederationError('upload-digest', 'Another digest.');
    const context: EnvelopeContext = { taskDigest: this.taskDigest, round: open.round, stage: 'contribution', transcript: documentHash('round', open.signed.document) };
    verifyEnvelope(bytes, context, link.clientKey!, frameBytes(isOnGrid(this.release) ? 'int32' : 'float32', [transferRows, numClasses]));
    this.accepted.set(round, digestOf(openEnvelope(bytes, context, link.clientKey!, open.keys.secretKey)));
    open.envelope = bytes;
    if (this.autopilot) {
      this.#later(async () => {
        await this.closeRound();
        await (this.#next > this.config.rounds ? this.finish() : this.openRound());
      });
    }
    return { accepted: true, duplicate: false };
  }

  #later(work: () => Promise<unknown>): void {
    this.clock.schedule(5, () => void work());
  }
}
