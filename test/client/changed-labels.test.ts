import { describe, expect, it } from 'vitest';
import { LabelMemory } from '../../client/participant/label-memory.ts';
import { fetchLabels } from '../../client/participant/round-work.ts';
import { digestOf } from '../../shared/crypto/digest.ts';
import { FederationError } from '../../shared/errors.ts';
import { encodeIndices } from '../../shared/protocol/indices.ts';
import { encodePredictions } from '../../shared/protocol/matrix-frame.ts';
import type { SoftLabelsRef } from '../../shared/protocol/messages.ts';
import type { Digest } from '../../shared/types/ids.ts';
import { selectRows, type Examples, type Matrix } from '../../shared/types/matrix.ts';

const path = '/rounds/2/soft-labels';
const transferSet: Examples = { count: 6, shape: [1], values: Float32Array.of(0, 1, 2, 3, 4, 5) };
const labelled = Uint32Array.of(1, 3, 5);
const before: Matrix = { rows: 3, columns: 2, values: Float32Array.of(0.9, 0.1, 0.2, 0.8, 0.5, 0.5) };
const now: Matrix = { rows: 3, columns: 2, values: Float32Array.of(0.9, 0.1, 0.7, 0.3, 0.5, 0.5) };
const whole = encodePredictions(now, 'probabilities', 'float32');
const part = encodePredictions(selectRows(now, [1]), 'probabilities', 'float32');
type Changed = NonNullable<SoftLabelsRef['changed']>;
const changed: Changed = { encoding: 'float32', count: 1, rows: 'Ag==', digest: digestOf(part) };
const reference = (changes: Partial<Changed> = {}): SoftLabelsRef => ({ digest: digestOf(whole), kind: 'probabilities', ...encodeIndices(labelled), keep: true, changed: { ...changed, ...changes } });

/** Fetches with a memory of what was announced before; the paths that were asked for, and what came out. */
async function fetch(ref: SoftLabelsRef, { remembered = before, frames = {} }: { remembered?: Matrix | undefined; frames?: Record<string, Uint8Array> } = {}) {
  const asked: string[] = [];
  const labelMemory = new LabelMemory();
  labelMemory.remember(labelled, remembered);
  const served: Record<string, Uint8Array> = { [path]: whole, [`${path}/changed`]: part, ...frames };
  const connection = { fetchFrame: (at: string) => (asked.push(at), Promise.resolve(served[at])) };
  const sessions = { use: (_: AbortSignal, work: (session: unknown) => unknown) => work({ connection, token: 't' }) };
  const result = await fetchLabels(path, ref, labelled, { sessions: sessions as never, transferSet, numClasses: 2, labelMemory }, new AbortController().signal).catch((error: unknown) => error as FederationError);
  return { asked, result, labelMemory };
}

describe('labels of which only the changed ones come', () => {
  it('are those that were signed', async () => {
    const { asked, result } = await fetch(reference());
    expect(asked).toEqual([`${path}/changed`]);
    expect((result as { targets: Matrix }).targets).toEqual(now);
    expect((result as { examples: Examples }).examples.values).toEqual(Float32Array.of(1, 3, 5));
  });

  it('need no frame when nothing has changed', async () => {
    const { asked, result } = await fetch(reference({ count: 0, rows: 'AA==', digest: null }), { remembered: now });
    expect(asked).toEqual([]);
    expect((result as { targets: Matrix }).targets).toEqual(now);
  });

  it('are fetched whole by a client that has missed a change, and remembered from then on', async () => {
    const stale: Matrix = { ...before, values: Float32Array.of(0.8, 0.2, 0.2, 0.8, 0.5, 0.5) };
    const { asked, result, labelMemory } = await fetch(reference(), { remembered: stale });
    expect(asked).toEqual([`${path}/changed`, path]);
    expect((result as { targets: Matrix }).targets).toEqual(now);
    expect(labelMemory.assemble(labelled, Uint8Array.of(0, 0, 0), { rows: 0, columns: 2, values: new Float32Array() })).toEqual(now);
  });

  it('are fetched whole by a client that does not know them', async () => {
    const labelMemory = new LabelMemory();
    labelMemory.remember(Uint32Array.of(1), selectRows(before, [0]));
    expect(labelMemory.knows(labelled, Uint8Array.of(0, 1, 0))).toBe(false);
    expect(labelMemory.knows(labelled, Uint8Array.of(0, 1, 1))).toBe(true);
  });

  it('are fetched whole when they cannot be spelled in the encoding that was announced', async () => {
    const [wholeLogits, partLogits] = [now, selectRows(now, [1])].map((matrix) => encodePredictions(matrix, 'logits', 'float32'));
    const ref: SoftLabelsRef = { ...reference({ encoding: 'bits4', digest: digestOf(partLogits!) }), kind: 'logits', digest: digestOf(wholeLogits!) };
    const { asked, result } = await fetch(ref, { frames: { [path]: wholeLogits!, [`${path}/changed`]: partLogits! } });
    expect(asked).toEqual([`${path}/changed`, path]);
    expect((result as { targets: Matrix }).targets).toEqual(now);
  });

  it.each<[string, Partial<Changed>, string]>([
    ['another frame than was signed', { digest: `sha256:${'0'.repeat(64)}` as Digest }, 'digest-mismatch'],
    ['another number of rows', { count: 2 }, 'value-out-of-range'],
    ['rows without a digest', { digest: null }, 'value-out-of-range'],
    ['a digest without rows', { count: 0, rows: 'AA==' }, 'value-out-of-range'],
    ['a bit after the last row', { rows: 'Cg==', count: 2 }, 'value-out-of-range'],
    ['no base64', { rows: '?' }, 'value-out-of-range'],
  ])('are refused with %s', async (_, changes, code) => {
    const { result } = await fetch(reference(changes));
    expect(result).toBeInstanceOf(FederationError);
    expect(result).toMatchObject({ code });
  });
});
