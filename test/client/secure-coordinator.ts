/**
 * A coordinator of secure rounds for many clients, as faithful as a test wants it to be: real documents, boxes and aggregation (`shared/secure-aggregation/aggregator.ts`), and a
 * hook for every message that it sends. It keeps everything that it learns, opened: what a lying coordinator would work with. Corrupt clients (`puppets`) are in its hands.
 */
import { deferred, type Deferred } from '../../client/participant/deferred.ts';
import { digestBytes, digestOf } from '../../shared/crypto/digest.ts';
import { generateBoxKeys, type BoxKeys } from '../../shared/crypto/sealed-box.ts';
import { signMessage, type IdentityKeys } from '../../shared/crypto/signature.ts';
import { FederationError } from '../../shared/errors.ts';
import { nodeCrypto as crypto } from '../../shared/node/node-crypto.ts';
import type { Connector, CoordinatorConnection } from '../../shared/ports/transport.ts';
import type { Json } from '../../shared/protocol/canonical-json.ts';
import { envelopeBytes, openEnvelope, verifyEnvelope, type EnvelopeContext } from '../../shared/protocol/envelope.ts';
import { clientIdOf, helloTranscript } from '../../shared/protocol/identity.ts';
import { clientEventSchemas, secureStageNames, type Ack, type ClientEvent, type ClientMessage, type SecureStageName } from '../../shared/protocol/messages.ts';
import { fromProblem, toProblem } from '../../shared/protocol/problems.ts';
import { documentHash, type SignedDocument } from '../../shared/protocol/signed-document.ts';
import * as aggregator from '../../shared/secure-aggregation/aggregator.ts';
import type { RoundContext } from '../../shared/secure-aggregation/parameters.ts';
import * as participant from '../../shared/secure-aggregation/participant.ts';
import { equalBytes, toBase64, toHex } from '../../shared/types/bytes.ts';
import type { Digest, RoundId } from '../../shared/types/ids.ts';
import type { VirtualClock } from '../../simulations/network/virtual-clock.ts';
import { FakeCoordinator, numClasses, transferRows, type FakeTask } from './fake-coordinator.ts';

export interface SecureTask {
  readonly minSurvivors: number;
  readonly maxCorrupt: number;
  readonly minCohort: number;
  readonly stageDeadlineMs: number;
}

/** A client in the coordinator's hands: every state that it ever had is known. */
export interface Puppet {
  readonly tools: participant.ParticipantTools;
  /** The newest last. */
  readonly states: participant.ParticipantState[];
}

/** One message of a client, opened. */
export interface Learned {
  readonly round: number;
  readonly stage: SecureStageName;
  /** Hexadecimal identity. */
  readonly client: string;
  readonly message: Uint8Array;
  readonly envelope: Digest;
}

interface Link {
  isOpen: boolean;
  onEvent: (event: string, payload: unknown) => Promise<Ack>;
  onDisconnect: (reason: string) => void;
  /** Hexadecimal identity, once it has said hello. */
  client: string;
  clientKey: Uint8Array;
  hasJoined: boolean;
  readonly closed: Deferred<undefined>;
}

interface Upload {
  readonly id: string;
  readonly stage: SecureStageName;
  readonly digest: string;
  readonly bytes: Uint8Array;
  received: number;
}

export interface OpenRound {
  readonly round: RoundId;
  readonly keys: BoxKeys;
  /** By client, so that a liar may announce different rounds to different clients. */
  readonly announced: Map<string, SignedDocument>;
  readonly signed: SignedDocument;
  readonly context: RoundContext;
  stage: SecureStageName;
  readonly expected: Set<string>;
  /** What opened each stage, by client. */
  readonly opening: Map<SecureStageName, Map<string, Uint8Array>>;
  readonly received: Map<SecureStageName, Map<string, Learned>>;
  rosterState?: aggregator.RosterState;
  sharersState?: aggregator.SharersState;
  survivorsState?: aggregator.SurvivorsState;
  isClosing: boolean;
}

const hex = (bytes: Uint8Array) => toHex(bytes);

export class SecureCoordinator {
  readonly base: FakeCoordinator;
  readonly clock: VirtualClock;
  readonly secure: SecureTask;
  readonly rounds: number;
  readonly puppets: Puppet[] = [];
  /** Everything that clients have ever sent, opened. */
  readonly learned: Learned[] = [];
  /** Every event that arrived, with the client that sent it. */
  readonly received: { readonly client: string; readonly event: string; readonly payload: Record<string, unknown> }[] = [];
  /** Answers of clients to `stage` events. */
  readonly acks: { readonly client: string; readonly stage: SecureStageName; readonly round: number; readonly ack: Ack | undefined }[] = [];
  readonly declined: { readonly client: string; readonly round: number; readonly code: string }[] = [];
  readonly sums: { readonly round: number; readonly sum: Int32Array; readonly survivors: readonly string[] }[] = [];
  readonly aborted: { readonly round: number; readonly code: string }[] = [];
  /** Clients that must have joined before the first round. */
  awaited = 0;
  /** Looks at what is sent to a client to open a stage; `undefined`: not sent. */
  lie: (stage: SecureStageName, client: string, data: Uint8Array, open: OpenRound) => Uint8Array | undefined = (_stage, _client, data) => data;
  /** Called when a stage is over; `true`: what follows is done already. */
  takeOver: (open: OpenRound) => boolean = () => false;
  /** What is announced to a client. */
  announceTo: (client: string, open: OpenRound) => SignedDocument = (_client, open) => open.signed;
  /** Looks at every request before it is handled; what it throws is answered. */
  onRequest: (client: string, event: string, payload: Record<string, unknown>) => void = () => undefined;
  /** Told of every byte of a message. */
  onBytes: (client: string, round: number, stage: SecureStageName) => void = () => undefined;
  /** Puppets that vanish before they send the message of a stage. */
  puppetsLeave: Partial<Record<SecureStageName, readonly number[]>> = {};
  /** Rounds start by themselves. */
  autopilot = true;

  readonly links = new Map<string, Link>();
  open: OpenRound | undefined;
  /** Every round that was opened. */
  readonly history: OpenRound[] = [];
  #finished: SignedDocument | undefined;
  #next = 1;
  #hasStarted = false;
  readonly #uploads = new Map<string, Upload>();

  constructor(clock: VirtualClock, secure: Partial<SecureTask> = {}, task: Partial<FakeTask> = {}) {
    this.clock = clock;
    this.secure = { minSurvivors: 5, maxCorrupt: 0, minCohort: secure.minSurvivors ?? 5, stageDeadlineMs: 30_000, ...secure };
    this.base = new FakeCoordinator(clock, { trustMode: 'secure-aggregation', mechanism: 'none', epsilon: null, rounds: 2, outputKind: 'probabilities', labelKind: 'probabilities', ...task, quorum: this.secure.minSurvivors, maxCorrupt: this.secure.maxCorrupt });
    this.rounds = this.base.config.rounds;
  }

  get dimension(): number {
    return transferRows * numClasses;
  }

  // --- rounds ---

  signRound(round: number, keys: BoxKeys, changes: Record<string, Json> = {}): SignedDocument {
    return this.base.sign(round, { stages: [...secureStageNames], secureAggregation: { ...this.secure }, ...changes }, keys);
  }

  contextOf(round: number, signed: SignedDocument): RoundContext {
    const { minCohort, minSurvivors, maxCorrupt } = this.secure;
    return { round, manifestHash: digestBytes(documentHash('round', signed.document)), parameters: { dimension: this.dimension, minCohort, minSurvivors, maxCorrupt } };
  }

  async openRound(changes: Record<string, Json> = {}, round = this.#next++ as RoundId): Promise<void> {
    const keys = generateBoxKeys(this.base.random);
    const signed = this.signRound(round, keys, changes);
    const open: OpenRound = { round, keys, announced: new Map(), signed, context: this.contextOf(round, signed), stage: 'advertiseKeys', expected: new Set(this.links.keys()), opening: new Map(), received: new Map(), isClosing: false };
    this.open = open;
    this.history.push(open);
    this.#puppetsAnswer(open);
    await Promise.all([...this.links.keys()].map((client) => this.#announce(client, open)));
    this.#deadline(open, 60_000);
  }

  async #announce(client: string, open: OpenRound): Promise<void> {
    const signed = this.announceTo(client, open);
    open.announced.set(client, signed);
    const ack = await this.send(client, 'round', signed);
    if (ack?.ok === false) this.#drop(client, open);
  }

  #deadline(open: OpenRound, ms: number): void {
    const { stage } = open;
    this.clock.schedule(ms, () => {
      if (this.open === open && open.stage === stage) this.#closeStage(open);
    });
  }

  /** This client is not waited for any more. */
  #drop(client: string, open: OpenRound): void {
    open.expected.delete(client);
    this.#closeIfComplete(open);
  }

  #closeIfComplete(open: OpenRound): void {
    if (this.open !== open) return;
    const received = open.received.get(open.stage) ?? new Map<string, Learned>();
    if ([...open.expected].every((client) => received.has(client))) this.#closeStage(open);
  }

  #closeStage(open: OpenRound): void {
    if (open.isClosing) return;
    open.isClosing = true;
    // Not within the acknowledgement of the last message.
    this.clock.schedule(1, () => {
      open.isClosing = false;
      if (this.open !== open) return;
      try {
        if (!this.takeOver(open)) this.#advance(open);
      } catch (error) {
        if (!(error instanceof FederationError)) throw error;
        this.abort(open, error.code);
      }
    });
  }

  /** The round ends without a sum. */
  abort(open: OpenRound, code: string): void {
    this.aborted.push({ round: open.round, code });
    this.closeRound('aborted', code);
  }

  #messages(open: OpenRound): Uint8Array[] {
    return [...(open.received.get(open.stage) ?? new Map<string, Learned>()).values()].map(({ message }) => message);
  }

  #advance(open: OpenRound): void {
    const messages = this.#messages(open);
    const adverts = () => open.rosterState!.roster.adverts;
    const byIndex = (data: ReadonlyMap<number, Uint8Array>) => new Map([...data].map(([index, message]) => [hex(adverts()[index]!.identity), message]));
    const toAll = (members: readonly number[], message: Uint8Array) => byIndex(new Map(members.map((member) => [member, message])));
    switch (open.stage) {
      case 'advertiseKeys': {
        const accepted = messages.flatMap((message) => {
          try {
            return [aggregator.acceptAdvert(open.context, message, crypto)];
          } catch {
            return []; // of another manifest, which a liar has announced
          }
        });
        if (accepted.length < this.secure.minCohort) throw new FederationError('quorum-missed', 'Too few clients.');
        const { state, message } = aggregator.closeAdvertiseKeys(open.context, accepted, crypto);
        open.rosterState = state;
        this.openStage(open, 'shareKeys', toAll(state.roster.adverts.map((_, i) => i), message));
        break;
      }
      case 'shareKeys': {
        const { state, deliveries } = aggregator.closeShareKeys(open.rosterState!, messages.map((message) => aggregator.acceptShares(open.rosterState!, message, crypto)));
        open.sharersState = state;
        this.openStage(open, 'maskedInput', byIndex(deliveries));
        break;
      }
      case 'maskedInput': {
        const { state, message } = aggregator.closeMaskedInput(open.sharersState!, messages.map((input) => aggregator.acceptMaskedInput(open.sharersState!, input, crypto)), crypto);
        open.survivorsState = state;
        this.openStage(open, 'consistencyCheck', toAll(state.survivors, message));
        break;
      }
      case 'consistencyCheck': {
        const closed = aggregator.closeConsistency(open.survivorsState!, messages.map((message) => aggregator.acceptConsistency(open.survivorsState!, message, crypto)));
        this.openStage(open, 'unmask', byIndex(closed.messages));
        break;
      }
      case 'unmask': {
        const { sum, survivors } = aggregator.closeUnmask(open.survivorsState!, messages.map((message) => aggregator.acceptUnmask(open.survivorsState!, message, crypto)), crypto);
        this.sums.push({ round: open.round, sum, survivors: survivors.map((index) => hex(adverts()[index]!.identity)) });
        this.closeRound('released', null);
        break;
      }
    }
  }

  /** Opens a stage to its clients. */
  openStage(open: OpenRound, stage: SecureStageName, data: ReadonlyMap<string, Uint8Array>): void {
    open.stage = stage;
    const told = new Map<string, Uint8Array>();
    for (const [client, honest] of data) {
      const message = this.lie(stage, client, honest, open);
      if (message !== undefined) told.set(client, message);
    }
    open.opening.set(stage, told);
    open.expected.clear();
    for (const client of data.keys()) if (this.links.has(client)) open.expected.add(client);
    this.#puppetsAnswer(open);
    for (const client of told.keys()) if (this.links.has(client)) void this.sendStage(client, open);
    this.#deadline(open, this.secure.stageDeadlineMs);
    this.#closeIfComplete(open);
  }

  async sendStage(client: string, open: OpenRound, stage = open.stage, data = open.opening.get(stage)?.get(client)): Promise<Ack | undefined> {
    if (data === undefined) return undefined;
    const ack = await this.send(client, 'stage', { round: open.round, stage, data });
    this.acks.push({ client, stage, round: open.round, ack });
    if (ack?.ok === false && stage === open.stage) this.#drop(client, open);
    return ack;
  }

  closeRound(outcome: 'released' | 'aborted', code: string | null): void {
    const open = this.open!;
    this.open = undefined;
    this.#uploads.clear();
    for (const client of this.links.keys()) void this.send(client, 'round-closed', { round: open.round, outcome, code, contributions: open.survivorsState?.survivors.length ?? 0, nextRound: this.#next });
    if (this.autopilot) this.clock.schedule(5, () => void (this.#next > this.rounds ? this.finish() : this.openRound()));
  }

  async finish(): Promise<void> {
    this.#finished = this.base.signFinished(this.sums.length);
    await Promise.all([...this.links.keys()].map((client) => this.send(client, 'finished', this.#finished!)));
  }

  // --- puppets ---

  addPuppet(identity: IdentityKeys): void {
    this.puppets.push({ tools: { identity, random: this.base.random, crypto }, states: [] });
  }

  /** Puppets follow the protocol; what makes them corrupt is that the coordinator knows all that they know. */
  #puppetsAnswer(open: OpenRound): void {
    const { stage } = open;
    this.puppets.forEach((puppet, i) => {
      if (Object.entries(this.puppetsLeave).some(([left, members]) => secureStageNames.indexOf(left as SecureStageName) <= secureStageNames.indexOf(stage) && members.includes(i))) return;
      const client = hex(puppet.tools.identity.publicKey);
      const data = open.opening.get(stage)?.get(client);
      const state = puppet.states.at(-1);
      if (stage !== 'advertiseKeys' && (data === undefined || state === undefined)) return;
      try {
        const step = puppetStep(stage, open.context, puppet, state!, data!, this.dimension);
        puppet.states.push(step.state);
        this.#learn({ round: open.round, stage, client, message: step.message, envelope: digestOf(step.message) }, open);
      } catch (error) {
        if (!(error instanceof FederationError)) throw error; // it refuses what the coordinator tells the others
      }
    });
  }

  #learn(message: Learned, open: OpenRound): void {
    this.learned.push(message);
    const received = open.received.get(message.stage) ?? new Map<string, Learned>();
    received.set(message.client, message);
    open.received.set(message.stage, received);
  }

  // --- what a client sees ---

  /** Sends an event to a client that has joined; its answer. */
  async send(client: string, event: string, payload: object): Promise<Ack | undefined> {
    const link = this.links.get(client);
    if (link?.isOpen !== true) return undefined;
    return structuredClone(await Promise.race([link.onEvent(event, structuredClone(payload)), link.closed.promise]));
  }

  /** Breaks a client's connection. */
  drop(client: string, tellClient = true): void {
    const link = this.links.get(client);
    this.links.delete(client);
    if (link?.isOpen !== true) return;
    link.isOpen = false;
    link.closed.resolve(undefined);
    if (tellClient) link.onDisconnect('dropped');
  }

  /** The client does not come back: nobody waits for it. */
  forget(client: string): void {
    if (this.open !== undefined) this.#drop(client, this.open);
  }

  connector(): Connector {
    return {
      connect: () => {
        const link: Link = { isOpen: true, onEvent: () => Promise.resolve({ ok: true }), onDisconnect: () => undefined, client: '', clientKey: new Uint8Array(32), hasJoined: false, closed: deferred() };
        return Promise.resolve(this.#connection(link));
      },
    };
  }

  #connection(link: Link): CoordinatorConnection {
    const lost = () => new FederationError('disconnected', 'The connection was lost.');
    return {
      request: async (event, payload) => {
        if (!link.isOpen) throw lost();
        const copy = structuredClone(payload) as Record<string, unknown>;
        this.received.push({ client: link.client, event, payload: copy });
        let answer: object;
        try {
          this.onRequest(link.client, event, copy);
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
      fetchFrame: (path) => Promise.resolve(this.base.frame(path)),
      onEvent: (handler) => void (link.onEvent = handler),
      onDisconnect: (handler) => void (link.onDisconnect = handler),
      close: async () => {
        link.isOpen = false;
        link.closed.resolve(undefined);
      },
    };
  }

  #handle(link: Link, event: ClientEvent, message: unknown): object {
    switch (event) {
      case 'hello': {
        const { clientKey, clientNonce } = message as ClientMessage<'hello'>;
        link.client = hex(clientKey);
        link.clientKey = clientKey;
        const serverNonce = this.base.random.bytes(32);
        const { publicKey } = this.base.identity;
        const signature = signMessage(helloTranscript({ coordinatorKey: publicKey, clientKey, clientNonce, serverNonce }, this.base.taskDigest), this.base.identity);
        return { protocol: 'fdp/1', coordinatorKey: toBase64(publicKey), serverNonce: toBase64(serverNonce), task: this.base.task, signature: toBase64(signature) };
      }
      case 'join':
        return this.#join(link);
      case 'upload-begin':
        return this.#begin(link, message as ClientMessage<'upload-begin'>);
      case 'upload-chunk': {
        const { upload, offset, data } = message as ClientMessage<'upload-chunk'>;
        const current = this.#upload(link, upload);
        this.onBytes(link.client, this.open?.round ?? 0, current.stage);
        if (offset !== current.received) throw new FederationError('upload-offset', 'Another offset.', { expected: String(current.received) });
        current.bytes.set(data, offset);
        current.received += data.length;
        return { offset: current.received };
      }
      case 'upload-end':
        return this.#end(link, message as ClientMessage<'upload-end'>);
      case 'decline': {
        const { round, code } = message as ClientMessage<'decline'>;
        this.declined.push({ client: link.client, round, code });
        if (this.open?.round === round) this.#drop(link.client, this.open);
        return {};
      }
      case 'leave':
        this.links.delete(link.client);
        return {};
    }
  }

  #join(link: Link): object {
    link.hasJoined = true;
    const { client } = link;
    this.links.set(client, link);
    const { open } = this;
    if (this.autopilot && !this.#hasStarted && this.links.size === this.awaited) {
      this.#hasStarted = true;
      this.clock.schedule(5, () => void this.openRound());
    }
    const isAsked = open?.expected.has(client) === true && open.received.get(open.stage)?.has(client) !== true;
    if (isAsked && open.stage !== 'advertiseKeys') this.clock.schedule(0, () => void (this.open === open && this.sendStage(client, open)));
    return { clientId: clientIdOf(link.clientKey), sessionToken: 'session', nextRound: isAsked ? open.round : this.#next, round: isAsked ? (open.announced.get(client) ?? open.signed) : null, finished: this.#finished ?? null };
  }

  #wanted(link: Link, round: number, stage: string): OpenRound {
    const { open } = this;
    if (open?.round !== round) throw new FederationError('round-closed', 'The round is closed.');
    if (open.stage !== stage) throw new FederationError('stage-mismatch', 'The round is in another stage.');
    return open;
  }

  #begin(link: Link, { round, stage, bytes, digest }: ClientMessage<'upload-begin'>): object {
    this.onBytes(link.client, round, stage as SecureStageName);
    const open = this.#wanted(link, round, stage);
    const before = open.received.get(open.stage)?.get(link.client);
    if (before !== undefined) {
      if (before.envelope !== digest) throw new FederationError('contribution-conflict', 'Other bytes were accepted.');
      return { accepted: true, duplicate: true };
    }
    if (!open.expected.has(link.client)) throw new FederationError('declined', 'This client was given up.');
    let upload = this.#uploads.get(link.client);
    if (upload?.digest !== digest) {
      upload = { id: `u${this.received.length}`, stage: open.stage, digest, bytes: new Uint8Array(bytes), received: 0 };
      this.#uploads.set(link.client, upload);
    }
    return { upload: upload.id, offset: upload.received };
  }

  #upload(link: Link, id: string): Upload {
    const upload = this.#uploads.get(link.client);
    if (upload?.id !== id) throw new FederationError('upload-unknown', 'There is no such upload.');
    return upload;
  }

  #end(link: Link, { upload }: ClientMessage<'upload-end'>): object {
    const { bytes, digest, stage } = this.#upload(link, upload);
    const open = this.#wanted(link, this.open?.round ?? 0, stage);
    if (digestOf(bytes) !== digest) throw new FederationError('upload-digest', 'Another digest.');
    const transcript = documentHash('round', (open.announced.get(link.client) ?? open.signed).document);
    const context: EnvelopeContext = { taskDigest: this.base.taskDigest, round: open.round, stage, transcript };
    verifyEnvelope(bytes, context, link.clientKey, bytes.length - envelopeBytes(0));
    this.#learn({ round: open.round, stage, client: link.client, message: openEnvelope(bytes, context, link.clientKey, open.keys.secretKey).slice(), envelope: digest as Digest }, open);
    this.#uploads.delete(link.client);
    this.#closeIfComplete(open);
    return { accepted: true, duplicate: false };
  }
}

function puppetStep(stage: SecureStageName, context: RoundContext, { tools }: Puppet, state: participant.ParticipantState, data: Uint8Array, dimension: number): participant.ParticipantStep<participant.ParticipantState> {
  switch (stage) {
    case 'advertiseKeys':
      return participant.advertiseKeys(context, { minHonest: 1, lastRound: 0 }, tools);
    case 'shareKeys':
      return participant.shareKeys(state, data, tools);
    case 'maskedInput':
      return participant.maskInput(state, data, new Int32Array(dimension), tools);
    case 'consistencyCheck':
      return participant.signSurvivors(state, data, tools);
    case 'unmask':
      return participant.unmask(state, data, tools);
  }
}

/** The index of a client in a roster. */
export function indexOfClient(open: OpenRound, client: string): number {
  return open.rosterState!.roster.adverts.findIndex(({ identity }) => equalBytes(identity, Uint8Array.from(Buffer.from(client, 'hex'))));
}
