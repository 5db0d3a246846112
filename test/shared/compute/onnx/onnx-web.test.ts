/** The engine on ONNX Runtime in WebAssembly, which is there when someone has installed it. */
import { describe, expect, it } from 'vitest';
import { tf } from '../../../../shared/compute/backend.ts';
import { createOnnxEngine } from '../../../../shared/compute/onnx/onnx-engine.ts';
import { probeOnnxRuntime } from '../../../../shared/compute/onnx/runtime.ts';
import { selectEngine } from '../../../../shared/compute/select-engine.ts';
import { startWorkerEngine } from '../../../../shared/compute/worker-engine.ts';
import { computeEngineContract } from '../../../contracts/compute-engine.ts';
import { gradientParity } from '../../../support/gradient-parity.ts';
import { withOnnxRuntime } from '../../../support/onnx-runtime.ts';
import { depthwiseNetwork, lenet, recurrentClassifier, residualNetwork, textClassifier } from '../../../support/sample-models.ts';

describe('onnxruntime-web', () => {
  it('is there, or is refused with what to install', async () => {
    const { available, reason } = await probeOnnxRuntime('onnx-web');
    expect(reason).toMatch(available ? /WebAssembly/ : /npm install onnxruntime-web@/);
    if (available) return;
    await expect(createOnnxEngine(undefined, { runtime: 'onnx-web' })).rejects.toMatchObject({ code: 'engine-unavailable', got: 'onnx-web', next: expect.stringContaining('auto') });
  });
});

withOnnxRuntime(() => {
  computeEngineContract('onnx-web', { setup: () => selectEngine('onnx-web') });
  computeEngineContract('worker thread with onnx-web', { setup: () => startWorkerEngine('onnx-web') });

  const { layers } = tf;
  const manyChannels = () => tf.sequential({ layers: [layers.conv2d({ inputShape: [9, 8, 1], filters: 8, kernelSize: 2, activation: 'relu' }), layers.maxPooling2d({ poolSize: [2, 1] }), layers.conv2d({ filters: 9, kernelSize: 2, activation: 'relu' }), layers.maxPooling2d({ poolSize: 2 }), layers.flatten(), layers.dense({ units: 4 })] });
  it.each([['LeNet', () => tf.sequential({ layers: lenet() })], ['convolutions of many channels', manyChannels], ['a residual network', residualNetwork], ['a depthwise network', depthwiseNetwork], ['a text classifier', textClassifier], ['an LSTM', recurrentClassifier]] as const)(
    'gradients equal those of TF.js: %s',
    async (_, build) => {
      const position = (gaussian: number) => Math.min(4, Math.floor(Math.abs(2 * gaussian)));
      const { worst, where } = await gradientParity(build, { runtime: 'onnx-web', ...(build === textClassifier || build === recurrentClassifier ? { element: position } : {}) });
      expect(worst, where).toBeLessThan(1e-5);
    },
  );
}, 'onnx-web');
