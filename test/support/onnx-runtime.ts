import { describe, it } from 'vitest';
import { probeOnnxRuntime, type RuntimeName } from '../../shared/compute/onnx/runtime.ts';

const reports = { onnx: await probeOnnxRuntime('onnx'), 'onnx-web': await probeOnnxRuntime('onnx-web') };

/** Registers the tests when ONNX Runtime is there; otherwise one skipped test says why. */
export function withOnnxRuntime(register: () => void, runtime: RuntimeName = 'onnx'): void {
  const { available, reason } = reports[runtime];
  const missing = `${runtime === 'onnx' ? 'onnxruntime-node' : 'onnxruntime-web'} is not installed`;
  if (available) register();
  else describe(runtime, () => it.skip(`skipped: ${reason.includes('not installed') ? missing : reason}`, () => {}));
}
