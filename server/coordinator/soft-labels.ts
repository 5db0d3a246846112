/** Soft labels as the coordinator holds and stores them. */
import { concatBytes, uint32Bytes } from '../../shared/types/bytes.ts';
import { selectRows, type Matrix, type OutputKind } from '../../shared/types/matrix.ts';

/** Soft labels for some transfer examples; row i belongs to example `indices[i]`. */
export interface SoftLabels {
  readonly indices: Uint32Array;
  readonly matrix: Matrix;
  readonly kind: OutputKind;
}

/** uint32 count, uint8 kind (0 logits, 1 probabilities), three zero bytes, uint32 classes, indices, float32 values. */
export function encodeSoftLabels({ indices, matrix, kind }: SoftLabels): Uint8Array {
  const values = selectRows(matrix, Uint32Array.from({ length: matrix.rows }, (_, i) => i)).values;
  return concatBytes(
    uint32Bytes(indices.length),
    Uint8Array.of(kind === 'logits' ? 0 : 1, 0, 0, 0),
    uint32Bytes(matrix.columns),
    new Uint8Array(Uint32Array.from(indices).buffer),
    new Uint8Array(values.buffer),
  );
}

export function decodeSoftLabels(bytes: Uint8Array): SoftLabels {
  const whole = bytes.slice();
  const view = new DataView(whole.buffer);
  const rows = view.getUint32(0, true);
  const columns = view.getUint32(8, true);
  const indices = new Uint32Array(whole.buffer, 12, rows);
  const values = new Float32Array(whole.buffer, 12 + 4 * rows, rows * columns);
  return { indices, matrix: { rows, columns, values }, kind: view.getUint8(4) === 0 ? 'logits' : 'probabilities' };
}
