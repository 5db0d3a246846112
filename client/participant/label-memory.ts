/**
 * Soft labels that a coordinator may leave out of later announcements because they stay as they are (docs/protocol.md section 10, `changed`). In memory: a client that was started again takes
 * whole frames until it knows them again. Nothing here is believed: what is put together from it has to have the digest that was signed.
 */
import { selectRows, type Matrix } from '../../shared/types/matrix.ts';

export class LabelMemory {
  /** By transfer example: its row as it was announced last. */
  readonly #rows = new Map<number, Float32Array>();

  /** Row i belongs to transfer example `indices[i]`. */
  remember(indices: Uint32Array, matrix: Matrix): void {
    indices.forEach((index, row) => this.#rows.set(index, matrix.values.slice(row * matrix.columns, (row + 1) * matrix.columns)));
  }

  /** Whether all rows but the changed ones are known. `changed`: 1 for each row that comes anew, 0 for the others. */
  knows(indices: Uint32Array, changed: Uint8Array): boolean {
    return indices.every((index, row) => changed[row] === 1 || this.#rows.has(index));
  }

  /** The whole matrix; `fresh` has one row for each 1 of `changed`. Only what it `knows`. */
  assemble(indices: Uint32Array, changed: Uint8Array, fresh: Matrix): Matrix {
    const values = new Float32Array(indices.length * fresh.columns);
    let next = 0;
    indices.forEach((index, row) => values.set(changed[row] === 1 ? selectRows(fresh, [next++]).values : this.#rows.get(index)!, row * fresh.columns));
    return { rows: indices.length, columns: fresh.columns, values };
  }
}
