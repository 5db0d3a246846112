/** A thread of `secure-threads.ts`: the rounds of secure aggregation of some of a simulation's clients, one reply for each step. */
import { parentPort, type Transferable } from 'node:worker_threads';
import { exchangeHere, type SecureExchange } from '../client/participant/secure-exchange.ts';
import { accelerate } from '../shared/crypto/accelerator.ts';
import { keyStream } from '../shared/compute/key-stream.ts';
import { FederationError } from '../shared/errors.ts';
import { nodeCrypto } from '../shared/node/node-crypto.ts';
import type { ToSecureThread, FromSecureThread } from './secure-threads.ts';
import { sharedCrypto } from './shared-work.ts';

const port = parentPort;
if (port === null) throw new FederationError('internal', 'secure-thread.ts is the entry of a worker thread, not of a process.');
accelerate(nodeCrypto);
const crypto = sharedCrypto(nodeCrypto);
const exchanges = new Map<number, SecureExchange>();

port.on('message', (message: ToSecureThread) => {
  const { exchange: id } = message;
  if (message.kind === 'open') {
    exchanges.set(id, exchangeHere(message.context, message.policy, { identity: message.identity, random: keyStream(message.key), crypto }));
  } else if (message.kind === 'leave') {
    exchanges.get(id)?.leave();
    exchanges.delete(id);
  } else {
    void perform(exchanges.get(id)!, message).then(
      (result) => reply({ id: message.id, result }, [result.buffer]),
      (error: unknown) => reply({ id: message.id, error: describe(error) }),
    );
  }
});

function reply(message: FromSecureThread, transfer: readonly Transferable[] = []): void {
  port!.postMessage(message, transfer);
}

async function perform(exchange: SecureExchange, { call }: Extract<ToSecureThread, { kind: 'call' }>): Promise<Uint8Array<ArrayBuffer> | Int32Array<ArrayBuffer>> {
  // Copies, so that nothing is transferred that the exchange still holds.
  switch (call.step) {
    case 'contribution':
      return Int32Array.from(await exchange.contribution(call.request));
    case 'maskInput':
      return Uint8Array.from(await exchange.maskInput(call.message, call.input));
    case 'advertiseKeys':
      return Uint8Array.from(await exchange.advertiseKeys());
    default:
      return Uint8Array.from(await exchange[call.step](call.message));
  }
}

function describe(error: unknown): NonNullable<FromSecureThread['error']> {
  if (!(error instanceof FederationError)) return { code: 'internal', message: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  const { code, message, field, expected, got, next } = error;
  return { code, message, ...(field === undefined ? {} : { field }), ...(expected === undefined ? {} : { expected }), ...(got === undefined ? {} : { got }), ...(next === undefined ? {} : { next }) };
}
