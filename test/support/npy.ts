/** Reads a NumPy `.npy` file of unsigned bytes in two dimensions (format version 1, C order): enough for the vote counts. */
import { readFileSync } from 'node:fs';

export function readByteMatrix(path: URL): number[][] {
  const bytes = readFileSync(path);
  if (bytes.toString('latin1', 0, 6) !== '\x93NUMPY' || bytes[6] !== 1) throw new Error(`${path.pathname} is no .npy file of version 1`);
  const start = 10 + bytes.readUInt16LE(8);
  const match = /^\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d+), (\d+)\), \}\s*$/.exec(bytes.toString('latin1', 10, start));
  if (!match) throw new Error(`${path.pathname} holds no matrix of bytes`);
  const [rows, columns] = [Number(match[1]), Number(match[2])];
  if (bytes.length !== start + rows * columns) throw new Error(`${path.pathname} is cut off`);
  return Array.from({ length: rows }, (_, row) => [...bytes.subarray(start + row * columns, start + (row + 1) * columns)]);
}
