/** A `SavedModel` as one blob: uint32 length of the header, a JSON header, the weights. For checkpoints; users get LayersModel folders. */
import { z } from 'zod';
import { FederationError } from '../errors.ts';
import { concatBytes, fromUtf8, uint32Bytes, utf8 } from '../types/bytes.ts';
import type { SavedModel } from './engine.ts';

const HeaderSchema = z.strictObject({
  format: z.literal('fedstill-model/1'),
  topology: z.unknown(),
  weightSpecs: z.array(z.strictObject({ name: z.string(), shape: z.array(z.int().min(0)), dtype: z.enum(['float32', 'int32']) })),
});

export function encodeSavedModel(model: SavedModel): Uint8Array {
  const header = utf8(JSON.stringify({ format: 'fedstill-model/1', topology: model.topology, weightSpecs: model.weightSpecs }));
  return concatBytes(uint32Bytes(header.length), header, model.weights);
}

/** Throws `state-mismatch` when the blob is not a whole model. */
export function decodeSavedModel(bytes: Uint8Array): SavedModel {
  const damaged = (why: string, cause?: unknown) =>
    new FederationError('state-mismatch', `The model checkpoint is damaged: ${why}.`, { field: 'checkpoint', next: 'Restore the file from a backup, or start a new run.', cause });
  if (bytes.length < 4) throw damaged('it is shorter than its header');
  const headerLength = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  if (headerLength > bytes.length - 4) throw damaged('it is shorter than its header');
  let header: z.infer<typeof HeaderSchema>;
  try {
    header = HeaderSchema.parse(JSON.parse(fromUtf8(bytes.subarray(4, 4 + headerLength))));
  } catch (cause) {
    throw damaged('its header is not that of a model', cause);
  }
  const weights = bytes.slice(4 + headerLength);
  const expected = header.weightSpecs.reduce((sum, spec) => sum + 4 * spec.shape.reduce((product, side) => product * side, 1), 0);
  if (weights.length !== expected) throw damaged(`its weights have ${weights.length} bytes, not ${expected}`);
  return { topology: header.topology, weightSpecs: header.weightSpecs, weights };
}
