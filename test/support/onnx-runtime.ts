import { describe, it } from 'vitest';
import { probeOnnxRuntime } from '../../shared/compute/onnx/runtime.ts';

const { available, reason } = await probeOnnxRuntime();

/** Registers the tests when ONNX Runtime is there; otherwise one skipped test says why. */
export function withOnnxRuntime(register: () => void): void {
  if (available) register();
  else describe('onnx', () => it.skip(`skipped: ${reason.includes('not installed') ? 'onnxruntime-node is not installed' : reason}`, () => {}));
}
