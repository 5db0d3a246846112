/** Soft labels as they were announced last, so that only those that have changed are sent again (delta coding by rows, after CFD: Sattler et al. 2021). In memory: after a restart everything is sent once more. */
import { digestOf } from '../../shared/crypto/digest.ts';
import { encodeBits } from '../../shared/protocol/indices.ts';
import { decodePredictions, encodePredictions, type FloatEncoding } from '../../shared/protocol/matrix-frame.ts';
import type { SoftLabelsRef } from '../../shared/protocol/messages.ts';
import { toBase64 } from '../../shared/types/bytes.ts';
import { selectRows, type OutputKind } from '../../shared/types/matrix.ts';

export interface ChangedLabels {
  readonly ref: NonNullable<SoftLabelsRef['changed']>;
  /** The changed rows; `undefined` when there are none. */
  readonly frame: Uint8Array | undefined;
}

export class LabelHistory {
  readonly #rows = new Map<number, Float32Array>();

  /** What of these labels, as `frame` holds them, differs from what was announced before; `undefined` when sending all of them takes no more bytes. Remembers them. */
  changes(indices: Uint32Array, frame: Uint8Array, kind: OutputKind, columns: number, encoding: FloatEncoding): ChangedLabels | undefined {
    const matrix = decodePredictions(frame, kind, indices.length, columns);
    const changed = Uint8Array.from(indices, (index, row) => {
      const values = matrix.values.slice(row * columns, (row + 1) * columns);
      const before = this.#rows.get(index);
      this.#rows.set(index, values);
      return before?.length === columns && before.every((value, c) => value === values[c]) ? 0 : 1;
    });
    const rows = Uint32Array.from(changed.keys()).filter((row) => changed[row] === 1);
    const part = rows.length === 0 ? undefined : encodePredictions(selectRows(matrix, rows), kind, encoding);
    const mask = toBase64(encodeBits(changed));
    if (mask.length + (part?.length ?? 0) >= frame.length) return undefined;
    return { ref: { encoding, count: rows.length, rows: mask, digest: part === undefined ? null : digestOf(part) }, frame: part };
  }
}
