/** Sends one envelope in chunks (docs/protocol.md section 12), going on where an earlier attempt stopped. */
import { FederationError } from '../../shared/errors.ts';
import type { CoordinatorConnection } from '../../shared/ports/transport.ts';
import { maxChunkBytes } from '../../shared/protocol/limits.ts';
import type { ClientMessageWire, StageName } from '../../shared/protocol/messages.ts';
import type { Digest, RoundId } from '../../shared/types/ids.ts';
import { isUploadLost } from './faults.ts';
import { ask } from './session.ts';

export interface Upload {
  readonly round: RoundId;
  readonly stage: StageName;
  readonly envelope: Uint8Array;
  readonly digest: Digest;
}

/** How often an upload begins again on one connection before it is given up. */
const maxBeginnings = 5;

/** Resolves once the coordinator has stored the envelope; `duplicate`: it had it already. Rejects with the coordinator's problem. */
export async function sendEnvelope(connection: CoordinatorConnection, upload: Upload, signal: AbortSignal): Promise<{ readonly duplicate: boolean }> {
  for (let beginning = 1; ; beginning++) {
    try {
      return await attempt(connection, upload, signal);
    } catch (error) {
      if (!isUploadLost(error) || beginning === maxBeginnings) throw error;
    }
  }
}

async function attempt(connection: CoordinatorConnection, { round, stage, envelope, digest }: Upload, signal: AbortSignal): Promise<{ readonly duplicate: boolean }> {
  const begun = await ask(connection, 'upload-begin', { round, stage, bytes: envelope.length, digest });
  if ('accepted' in begun) return { duplicate: begun.duplicate };
  let offset = checkedOffset(begun.offset, 0, envelope.length);
  while (offset < envelope.length) {
    signal.throwIfAborted();
    // A copy: a view would carry the buffer behind it along.
    const data = envelope.slice(offset, offset + maxChunkBytes);
    const message: ClientMessageWire<'upload-chunk'> = { upload: begun.upload, offset, data };
    offset = checkedOffset((await ask(connection, 'upload-chunk', message)).offset, offset + data.length, offset + data.length);
  }
  signal.throwIfAborted();
  return { duplicate: (await ask(connection, 'upload-end', { upload: begun.upload })).duplicate };
}

function checkedOffset(offset: number, lowest: number, highest: number): number {
  if (offset >= lowest && offset <= highest) return offset;
  const expected = lowest === highest ? String(lowest) : `${lowest} to ${highest}`;
  throw new FederationError('message-malformed', 'The coordinator answered with an offset that cannot be.', { field: 'offset', expected, got: String(offset) });
}
