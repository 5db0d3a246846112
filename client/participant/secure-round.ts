/**
 * One round of secure aggregation, from a verified announcement to the answer to `unmask` (docs/secure-aggregation.md, decision 0003). Trains first: keys are
 * advertised when there is something to send. Then one message a stage, each in an envelope of its stage.
 *
 * What protects the owner: the masked input is stored, then charged, then sent, each durably before the next, so nothing uncharged leaves, nothing is charged
 * twice and noise is drawn once. That keys are advertised is stored before they are; the answer to `unmask` is stored before it leaves. The state of the key
 * exchange stays in memory: a client that is started again sends what is stored, when it is asked for, and nothing else.
 */
import { digestOf } from '../../shared/crypto/digest.ts';
import type { CryptoProvider } from '../../shared/crypto/provider.ts';
import { FederationError } from '../../shared/errors.ts';
import { sealEnvelope } from '../../shared/protocol/envelope.ts';
import type { SecureStageName } from '../../shared/protocol/messages.ts';
import { RemoteProblem } from '../../shared/protocol/problems.ts';
import { secureContextOf } from '../../shared/protocol/secure-round.ts';
import { equalBytes } from '../../shared/types/bytes.ts';
import type { RoundId } from '../../shared/types/ids.ts';
import { abortable } from './abortable.ts';
import type { Announcement } from './announcement.ts';
import { roundIsClosed } from './faults.ts';
import type { OutboxEntry, StoredAnswer } from './outbox.ts';
import { charge, predict, resend, train, type RoundReport, type RoundWorkContext } from './round-work.ts';
import type { OpenExchange } from './secure-exchange.ts';
import type { StageInbox } from './stage-inbox.ts';

/** What the work needs that outlives a connection, in this process and in the next one. */
export interface SecureSendContext extends Pick<RoundWorkContext, 'task' | 'ledger' | 'clock' | 'outbox' | 'sessions' | 'sending'> {
  readonly inbox: StageInbox;
  /** Told when the coordinator has this client's message of a stage. */
  stageDone(stage: SecureStageName, envelopeBytes: number): void;
  /** Told right after the ledger was charged. */
  charged(entry: OutboxEntry): void;
  /** The coordinator has the masked input: from now on the round may release it as part of a sum. */
  contributed(report: RoundReport): Promise<void>;
}

export interface SecureWorkContext extends RoundWorkContext, SecureSendContext {
  readonly crypto: CryptoProvider;
  readonly openExchange: OpenExchange;
  /** Fewest honest clients in a sum, by the owner's policy. */
  readonly minHonest: number;
  /** The highest round for which keys were advertised, in this process or an earlier one. */
  readonly lastAdvertised: number;
  /** Stores durably that keys are advertised for this round. */
  advertise(round: RoundId): Promise<void>;
}

/** Works until the coordinator has the answer to `unmask`. Throws `signal.reason` when aborted, and what the owner should know when the round is refused. */
export async function takePart(announcement: Announcement, context: SecureWorkContext, signal: AbortSignal): Promise<RoundReport> {
  const { document, transcript } = announcement;
  const { round } = document;
  const { inbox, identity, random, crypto, openExchange, minHonest, lastAdvertised } = context;
  const trained = await train(announcement, context, signal);
  const predictions = await predict(announcement, context, signal);
  signal.throwIfAborted();

  const exchange = openExchange(secureContextOf(document, transcript), { minHonest, lastRound: lastAdvertised }, { identity, random, crypto });
  const seal = (stage: SecureStageName, message: Uint8Array) => sealMessage(message, stage, announcement, context);
  let sentBytes = 0;
  const report = (): RoundReport => ({ ...trained, envelopeBytes: sentBytes });
  const send = async (stage: SecureStageName, envelope: Uint8Array) => {
    await sendMessage({ round, stage, envelope, envelopeDigest: digestOf(envelope) }, context, signal);
    sentBytes += envelope.length;
  };
  try {
    const advert = seal('advertiseKeys', await judged('advertiseKeys', () => exchange.advertiseKeys(), signal));
    await context.advertise(round);
    signal.throwIfAborted();
    // Expected before the answer leaves: the next stage may open before the acknowledgement is here.
    const roster = inbox.expect('shareKeys');
    context.sending();
    await send('advertiseKeys', advert);

    const rosterMessage = await abortable(roster, signal);
    const shares = seal('shareKeys', await judged('shareKeys', () => exchange.shareKeys(rosterMessage), signal));
    const delivery = inbox.expect('maskedInput');
    await send('shareKeys', shares);

    const deliveryMessage = await abortable(delivery, signal);
    const input = await exchange.contribution({ document, predictions });
    signal.throwIfAborted();
    const maskedInput = await judged('maskedInput', () => exchange.maskInput(deliveryMessage, input), signal);
    const entry = await context.outbox.put({ round, stage: 'maskedInput', transcript, contribution: digestOf(maskedInput), parameters: document.release, envelope: seal('maskedInput', maskedInput) });
    await chargeOnce(entry, () => context.checkPolicy(announcement), context, signal);
    const survivors = inbox.expect('consistencyCheck');
    await send('maskedInput', entry.envelope);
    await context.contributed(report());

    const survivorsMessage = await abortable(survivors, signal);
    const consistency = seal('consistencyCheck', await judged('consistencyCheck', () => exchange.signSurvivors(survivorsMessage), signal));
    const signatures = inbox.expect('unmask');
    await send('consistencyCheck', consistency);

    const signaturesMessage = await abortable(signatures, signal);
    const answer = seal('unmask', await judged('unmask', () => exchange.unmask(signaturesMessage), signal));
    await context.outbox.putAnswer({ round, stage: 'unmask', transcript, opening: openingOf(signaturesMessage), envelope: answer });
    signal.throwIfAborted();
    await send('unmask', answer);
    return report();
  } finally {
    exchange.leave();
  }
}

/**
 * Resolves when the coordinator asks for what an earlier process has stored of the round; for everything else of it this client is a dropout. To be called before
 * the coordinator is answered: it may ask at once.
 */
export async function askedForStored(stored: OutboxEntry | StoredAnswer, inbox: StageInbox): Promise<void> {
  if (stored.stage !== 'unmask') await inbox.expect('maskedInput');
  else {
    await inbox.expect('unmask', (data) => {
      if (equalBytes(openingOf(data), stored.opening)) return;
      throw new FederationError('context-mismatch', 'This client has answered for another set of survivors.', { field: 'survivors', next: 'A client answers once in a round.' });
    });
  }
}

/** Sends what is stored, byte for byte. `checkPolicy`: asked before a masked input is charged that was not. */
export async function sendStored(stored: OutboxEntry | StoredAnswer, checkPolicy: () => void, context: SecureSendContext, signal: AbortSignal): Promise<RoundReport> {
  const report: RoundReport = { distilled: 0, epochs: 0, envelopeBytes: stored.envelope.length };
  context.sending();
  if (stored.stage === 'unmask') {
    await sendMessage(stored, context, signal);
  } else {
    await chargeOnce(stored, checkPolicy, context, signal);
    await sendMessage({ ...stored, stage: 'maskedInput' }, context, signal);
    await context.contributed(report);
  }
  return report;
}

/** How a stage is refused that this client cannot take part in any more. */
export function wasRestarted(round: RoundId): FederationError {
  return new FederationError('declined', `This client was started again in round ${round}: its keys are gone, and it makes no new ones for the same round.`, { field: 'round', got: String(round), next: 'Nothing to do: it takes part in the next round.' });
}

async function chargeOnce(entry: OutboxEntry, checkPolicy: () => void, context: SecureSendContext, signal: AbortSignal): Promise<void> {
  await charge(entry, checkPolicy, context, signal);
  context.charged(entry);
}

/** Sends one stage's envelope, again after every lost connection, until the coordinator has it. */
async function sendMessage(message: Parameters<typeof resend>[0] & { readonly stage: SecureStageName }, context: SecureSendContext, signal: AbortSignal): Promise<void> {
  try {
    await resend(message, context.sessions, signal);
  } catch (error) {
    // The stage is over, or the coordinator takes this client for a dropout: it goes on without us.
    if (error instanceof RemoteProblem && (error.code === 'stage-mismatch' || error.code === 'declined')) throw roundIsClosed(message.round);
    throw error;
  }
  context.stageDone(message.stage, message.envelope.length);
}

function sealMessage(message: Uint8Array, stage: SecureStageName, { document, transcript }: Announcement, { identity, random }: SecureWorkContext): Uint8Array {
  try {
    return sealEnvelope(message, { taskDigest: document.taskDigest, round: document.round, stage, transcript }, document.boxKey, identity, random);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new FederationError('value-out-of-range', 'The round\'s box key is one of the few that protect nothing.', { field: 'boxKey', expected: 'an X25519 key of large order', next: 'Ask the coordinator\'s operator.', cause });
  }
}

/** Bytes of a `signatures` message before its count: header (44), roster root (32), digest of the survivors (32). */
const OPENING_BYTES = 108;

function openingOf(signaturesMessage: Uint8Array): Uint8Array {
  return signaturesMessage.slice(0, OPENING_BYTES);
}

/** What a refusal in each stage means for the owner. */
const consequences: Record<SecureStageName, string> = {
  advertiseKeys: 'This client does not take part in the round, and sends nothing.',
  shareKeys: 'The list of clients that the coordinator gave out could not protect you. This client leaves the round; none of its predictions were sent.',
  maskedInput: 'The secrets that the coordinator passed on could not protect you. This client leaves the round; none of its predictions were sent.',
  consistencyCheck: 'The coordinator names a set of clients to sum up that is not safe. This client does not help to open the sum; its predictions were sent under masks, and charged.',
  unmask: 'Too few clients have confirmed the same set to sum up, as when different clients are told different things. This client does not help to open the sum; its predictions were sent under masks, and charged.',
};

/** Runs a step of the key exchange; a refusal says what it means for the owner. Throws `signal.reason` when aborted meanwhile: then nothing of it leaves. */
async function judged<T>(stage: SecureStageName, step: () => T | Promise<T>, signal: AbortSignal): Promise<T> {
  try {
    const message = await step();
    signal.throwIfAborted();
    return message;
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (!(error instanceof FederationError) || error.code === 'stage-mismatch') throw error;
    const { code, message, field, expected, got, next } = error;
    throw new FederationError(code, `${message} ${consequences[stage]}`, {
      ...(field === undefined ? {} : { field }),
      ...(expected === undefined ? {} : { expected }),
      ...(got === undefined ? {} : { got }),
      ...(next === undefined ? {} : { next }),
      cause: error,
    });
  }
}
