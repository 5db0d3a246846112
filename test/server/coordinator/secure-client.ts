/** Scripted clients that speak the five stages of secure aggregation (docs/protocol.md section 10.3), honestly or not. Their inputs are made up (`predictions.ts`). */
import { digestOf } from '../../../shared/crypto/digest.ts';
import { FederationError } from '../../../shared/errors.ts';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import { secureStageNames, StageOpenedSchema, type FinishedDocument, type SecureStageName } from '../../../shared/protocol/messages.ts';
import { secureContextOf } from '../../../shared/protocol/secure-round.ts';
import type { SignedDocument } from '../../../shared/protocol/signed-document.ts';
import { SecureRound } from '../../../shared/secure-aggregation/participant-round.ts';
import type { Digest } from '../../../shared/types/ids.ts';
import { gridOf } from './predictions.ts';
import { mayPass, ProtocolClient, roundIsOver, type OpenRound, type TestFederation } from './protocol-client.ts';

/** One client's part in one round: each stage's message, made once. */
export class SecurePart {
  readonly client: ProtocolClient;
  readonly round: OpenRound;
  /** What this client answered: frames and envelopes. */
  readonly frames = new Map<SecureStageName, Uint8Array>();
  readonly envelopes = new Map<SecureStageName, Uint8Array>();
  readonly #exchange: SecureRound;
  readonly #input: Int32Array;

  constructor(client: ProtocolClient, round: OpenRound, input: Int32Array) {
    this.client = client;
    this.round = round;
    this.#input = input;
    const tools = { identity: client.identity, random: client.random, crypto: nodeCrypto };
    this.#exchange = new SecureRound(secureContextOf(round.document, round.context.transcript), { minHonest: 1, lastRound: 0 }, tools);
  }

  /** The frame with which this client answers a stage; `data`: what opened it. */
  frame(stage: SecureStageName, data?: Uint8Array): Uint8Array {
    const known = this.frames.get(stage);
    if (known !== undefined) return known;
    const frame = this.#answer(stage, data!);
    this.frames.set(stage, frame);
    return frame;
  }

  #answer(stage: SecureStageName, data: Uint8Array): Uint8Array {
    switch (stage) {
      case 'advertiseKeys':
        return this.#exchange.advertiseKeys();
      case 'shareKeys':
        return this.#exchange.shareKeys(data);
      case 'maskedInput':
        return this.#exchange.maskInput(data, this.#input);
      case 'consistencyCheck':
        return this.#exchange.signSurvivors(data);
      case 'unmask':
        return this.#exchange.unmask(data);
    }
  }

  seal(stage: SecureStageName, frame: Uint8Array): Uint8Array {
    return this.client.seal(frame, this.round, { context: { stage } });
  }

  envelope(stage: SecureStageName, data?: Uint8Array): Uint8Array {
    const known = this.envelopes.get(stage) ?? this.seal(stage, this.frame(stage, data));
    this.envelopes.set(stage, known);
    return known;
  }

  /** Uploads this client's message of a stage. */
  send(stage: SecureStageName, data?: Uint8Array): Promise<unknown> {
    return this.client.upload(this.round.document.round, this.envelope(stage, data), 50_000, stage);
  }

  /** Waits for the coordinator to open a stage of this round. */
  async opening(stage: SecureStageName): Promise<Uint8Array> {
    for (;;) {
      const message = StageOpenedSchema.parse(await this.client.next('stage'));
      if (message.round === this.round.document.round && message.stage === stage) return message.data;
    }
  }

  /** Goes through all stages up to and with `last`. */
  async play(last: SecureStageName = 'unmask'): Promise<void> {
    await this.send('advertiseKeys');
    for (const stage of secureStageNames.slice(1, secureStageNames.indexOf(last) + 1)) await this.send(stage, await this.opening(stage));
  }
}

/** The part of client number `number` in the round that is announced next. */
export async function nextPart(client: ProtocolClient, number: number): Promise<SecurePart> {
  const round = await client.nextRound();
  return new SecurePart(client, round, gridOf(number, round.document));
}

/**
 * Takes part honestly until the task is finished: reconnects, keeps its state of the key exchange, and resends the very bytes that it sealed first. Rejects when
 * a stage is opened with other bytes than before; `repeats`: how often one was opened again.
 */
export async function takeSecurePart(client: ProtocolClient, number: number, vanishes: (round: number, stage: SecureStageName) => boolean = () => false): Promise<FinishedDocument & { readonly repeats: number }> {
  let repeats = 0;
  const parts = new Map<number, SecurePart>();
  const opened = new Map<string, Digest>();
  const contribute = async (part: SecurePart, stage: SecureStageName, data?: Uint8Array) => {
    const { round } = part.round.document;
    if (data !== undefined) {
      const key = `${round} ${stage}`;
      const digest = digestOf(data);
      if ((opened.get(key) ?? digest) !== digest) throw new Error(`stage ${key} was opened twice, differently`);
      if (opened.has(key)) repeats += 1;
      opened.set(key, digest);
    }
    if (vanishes(round, stage)) return;
    try {
      await part.send(stage, data);
    } catch (error) {
      if (!(error instanceof FederationError && (roundIsOver.includes(error.code) || error.code === 'stage-mismatch'))) throw error;
    }
  };
  const announced = async (signed: SignedDocument) => {
    const round = client.openRound(signed);
    const known = parts.get(round.document.round);
    if (known !== undefined && known.round.context.transcript !== round.context.transcript) throw new Error(`round ${round.document.round} was announced twice`);
    const part = known ?? new SecurePart(client, round, gridOf(number, round.document));
    parts.set(round.document.round, part);
    // Also when it was sent before: the acknowledgement may be lost. In a later stage it is a duplicate.
    await contribute(part, 'advertiseKeys');
  };
  for (;;) {
    try {
      const ack = await client.arrive();
      if (ack.finished !== null) return { ...client.openFinished(ack.finished), repeats };
      if (ack.round !== null) await announced(ack.round);
      for (;;) {
        const { event, payload } = await client.nextNotice();
        if (event === 'round') await announced(payload as SignedDocument);
        if (event === 'stage') {
          const { round, stage, data } = StageOpenedSchema.parse(payload);
          const part = parts.get(round);
          if (part !== undefined) await contribute(part, stage, data);
        }
        if (event === 'finished') return { ...client.openFinished(payload as SignedDocument), repeats };
      }
    } catch (error) {
      if (!(error instanceof FederationError && mayPass.includes(error.code))) throw error;
      await client.connection?.close();
      await client.federation.sleep(500);
    }
  }
}

/** A federation whose clients 1 to `clients` have joined, and their parts in its first round. */
export async function openSecureRound(federation: TestFederation, clients: number): Promise<SecurePart[]> {
  await federation.start();
  const members = Array.from({ length: clients }, (_, i) => new ProtocolClient(federation, i + 1));
  for (const member of members) await member.arrive();
  return Promise.all(members.map((member, i) => nextPart(member, i + 1)));
}
