import { describe, expect, it } from 'vitest';
import { isConnectionLost } from '../../client/participant/faults.ts';
import { sendEnvelope } from '../../client/participant/upload.ts';
import { digestOf } from '../../shared/crypto/digest.ts';
import { FederationError } from '../../shared/errors.ts';
import type { CoordinatorConnection } from '../../shared/ports/transport.ts';
import { UploadChunkSchema } from '../../shared/protocol/messages.ts';
import type { RoundId } from '../../shared/types/ids.ts';
import { rejection } from './harness.ts';

const envelope = Uint8Array.from({ length: 700_000 }, (_, i) => (i * 31) & 255);
const upload = { round: 3 as RoundId, stage: 'contribution' as const, envelope, digest: digestOf(envelope) };

/** A coordinator that keeps what arrives; the connection breaks at the chunk with this number. */
class Receiver {
  bytes = new Uint8Array(0);
  chunks: number[] = [];
  breaksAt = Infinity;
  offsetLie = 0;

  connection(): CoordinatorConnection {
    return {
      request: async (event, payload) => {
        if (event === 'upload-begin') return { upload: 'u1', offset: this.bytes.length };
        if (event === 'upload-end') return { accepted: true, duplicate: false };
        const { offset, data } = UploadChunkSchema.parse(payload);
        expect(offset).toBe(this.bytes.length);
        this.bytes = Uint8Array.from([...this.bytes, ...data]);
        if (this.chunks.push(data.length) === this.breaksAt) throw new FederationError('disconnected', 'gone'); // it arrived; the answer did not
        return { offset: this.bytes.length + this.offsetLie };
      },
      fetchFrame: () => Promise.reject(new Error('not here')),
      onEvent: () => undefined,
      onDisconnect: () => undefined,
      close: () => Promise.resolve(),
    };
  }
}

const signal = new AbortController().signal;

describe('an upload', () => {
  it('is cut into chunks of at most 256 KiB', async () => {
    const receiver = new Receiver();
    expect(await sendEnvelope(receiver.connection(), upload, signal)).toEqual({ duplicate: false });
    expect(receiver.chunks).toEqual([262_144, 262_144, 175_712]);
    expect(digestOf(receiver.bytes)).toBe(upload.digest);
  });

  it('goes on after a lost connection at the offset that it is told, without sending a byte twice', async () => {
    const receiver = new Receiver();
    receiver.breaksAt = 2;
    expect(isConnectionLost(await rejection(sendEnvelope(receiver.connection(), upload, signal)))).toBe(true);
    receiver.breaksAt = Infinity;
    await sendEnvelope(receiver.connection(), upload, signal);
    expect(receiver.chunks).toEqual([262_144, 262_144, 175_712]);
    expect(digestOf(receiver.bytes)).toBe(upload.digest);
  });

  it('is refused when the coordinator answers with an offset that cannot be', async () => {
    const receiver = new Receiver();
    receiver.offsetLie = -1;
    expect(await rejection(sendEnvelope(receiver.connection(), upload, signal))).toMatchObject({ code: 'message-malformed', field: 'offset' });
  });

  it('begins again a few times, not for ever', async () => {
    let beginnings = 0;
    const connection = new Receiver().connection();
    const forgetful = { ...connection, request: async (event: string) => {
      if (event === 'upload-begin') beginnings++;
      else throw new FederationError('upload-unknown', 'gone');
      return { upload: 'u', offset: 0 };
    } };
    expect(await rejection(sendEnvelope(forgetful, upload, signal))).toMatchObject({ code: 'upload-unknown' });
    expect(beginnings).toBe(5);
  });

  it('stops between two chunks when it is aborted', async () => {
    const receiver = new Receiver();
    const controller = new AbortController();
    const connection = receiver.connection();
    const aborting = { ...connection, request: async (event: Parameters<typeof connection.request>[0], payload: object) => {
      if (event === 'upload-chunk') controller.abort(new FederationError('round-closed', 'closed'));
      return connection.request(event, payload);
    } };
    expect(await rejection(sendEnvelope(aborting, upload, controller.signal))).toMatchObject({ code: 'round-closed' });
    expect(receiver.chunks).toHaveLength(1);
  });
});
