import { describe, expect, it } from 'vitest';
import { LabelMemory } from '../../../client/participant/label-memory.ts';
import { decodeBits } from '../../../shared/protocol/indices.ts';
import { decodePredictions, encodePredictions, type FloatEncoding } from '../../../shared/protocol/matrix-frame.ts';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { toHex } from '../../../shared/types/bytes.ts';
import { LabelHistory } from '../../../server/coordinator/label-history.ts';

const columns = 10;
const generator = new SeededGenerator(5);
const known = new Map<number, Float32Array>();
/** Labels of these examples; each changes with probability `rate`. */
function labels(indices: readonly number[], rate: number) {
  const values = indices.flatMap((index) => {
    if (!known.has(index) || generator.uniform() < rate) known.set(index, generator.dirichlet(0.3, columns) as unknown as Float32Array);
    return [...known.get(index)!];
  });
  return { rows: indices.length, columns, values: Float32Array.from(values) };
}

describe('soft labels that have not changed', () => {
  it.each<FloatEncoding>(['float32', 'float16', 'bits1', 'bits4', 'bits8'])('are put together by a client to the very frame (%s)', (encoding) => {
    const [history, memory] = [new LabelHistory(), new LabelMemory()];
    let saved = 0;
    for (let round = 1; round <= 12; round++) {
      const indices = Uint32Array.from(generator.permutation(120).slice(0, 80)).sort();
      const frame = encodePredictions(labels([...indices], 0.1), 'probabilities', encoding);
      const changed = history.changes(indices, frame, 'probabilities', columns, encoding);
      let matrix = decodePredictions(frame, 'probabilities', indices.length, columns);
      if (changed !== undefined) {
        const mask = decodeBits(changed.ref.rows, indices.length)!;
        expect(mask.reduce((a, b) => a + b, 0)).toBe(changed.ref.count);
        expect(memory.knows(indices, mask)).toBe(true);
        const fresh = changed.frame === undefined ? { rows: 0, columns, values: new Float32Array() } : decodePredictions(changed.frame, 'probabilities', changed.ref.count, columns);
        matrix = memory.assemble(indices, mask, fresh);
        expect(toHex(encodePredictions(matrix, 'probabilities', encoding))).toBe(toHex(frame));
        saved += frame.length - (changed.frame?.length ?? 0);
      }
      memory.remember(indices, matrix);
    }
    expect(saved).toBeGreaterThan(0);
  });

  it('are not left out when that takes more bytes, and not known to who has not seen them', () => {
    const history = new LabelHistory();
    const first = encodePredictions(labels([1, 2, 3], 1), 'probabilities', 'float32');
    const indices = Uint32Array.of(1, 2, 3);
    expect(history.changes(indices, first, 'probabilities', columns, 'float32')).toBeUndefined();
    const again = history.changes(indices, first, 'probabilities', columns, 'float32')!;
    expect(again).toEqual({ ref: { encoding: 'float32', count: 0, rows: 'AA==', digest: null }, frame: undefined });
    expect(new LabelMemory().knows(indices, Uint8Array.of(0, 0, 0))).toBe(false);
    expect(new LabelMemory().knows(indices, Uint8Array.of(1, 1, 1))).toBe(true);
  });
});
