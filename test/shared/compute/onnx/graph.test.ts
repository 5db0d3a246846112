import { describe, expect, it } from 'vitest';
import { loadBackend, tf, useBackend } from '../../../../shared/compute/backend.ts';
import { fillUniform } from '../../../../shared/compute/onnx/dropout-noise.ts';
import { Graph } from '../../../../shared/compute/onnx/graph.ts';
import { encodeOnnxModel } from '../../../../shared/compute/onnx/onnx-writer.ts';
import { createSession } from '../../../../shared/compute/onnx/runtime.ts';
import { withOnnxRuntime } from '../../../support/onnx-runtime.ts';

describe('a graph under construction', () => {
  const operators = (graph: Graph, ...outputs: Parameters<Graph['finish']>[0]) => graph.finish(outputs).nodes.map(({ operator }) => operator);

  it('uses an equal node again, and tells nodes of other attributes apart', () => {
    const graph = new Graph();
    const x = graph.input('x', [2, 3]);
    const softmax = (axis: number) => graph.node('Softmax', [x], [2, 3], { attributes: { axis } });
    expect(softmax(1)).toBe(softmax(1));
    expect(softmax(0)).not.toBe(softmax(1));
  });

  it('cancels transposes that undo each other, and makes reshapes of those that move no data', () => {
    const graph = new Graph();
    const x = graph.input('x', [2, 3, 4, 5]);
    expect(graph.transpose(graph.transpose(x, [0, 3, 1, 2]), [0, 2, 3, 1])).toBe(x);
    const flat = graph.input('flat', [2, 1, 1, 5]);
    expect(graph.producerOf(graph.transpose(flat, [0, 3, 1, 2]))?.operator).toBe('Reshape');
    expect(graph.reshape(graph.reshape(x, [6, 20]), [2, 3, 4, 5])).toBe(x);
  });

  it('drops what no output needs', () => {
    const graph = new Graph();
    const [x, y] = [graph.input('x', [2]), graph.input('y', [2])];
    graph.node('Mul', [y, graph.scalar(3)], [2]);
    const finished = graph.finish([{ name: 'sum', value: graph.node('Add', [x, x], [2]) }]);
    expect(finished.inputs.map(({ name }) => name)).toEqual(['x']);
    expect(finished.constants).toEqual([]);
    expect(finished.nodes.map(({ operator, outputs }) => [operator, ...outputs])).toEqual([['Add', 'sum']]);
  });

  it('copies an output that has a name already', () => {
    const graph = new Graph();
    const x = graph.input('x', [2]);
    const sum = graph.node('Add', [x, x], [2]);
    expect(operators(graph, { name: 'a', value: sum }, { name: 'b', value: sum }, { name: 'c', value: x })).toEqual(['Add', 'Identity', 'Identity']);
  });
});

/** y = x * 2.5 */
function tinyModel(): Uint8Array {
  const graph = new Graph();
  const x = graph.input('x', [2]);
  const y = graph.node('Mul', [x, graph.scalar(2.5)], [2]);
  return encodeOnnxModel(graph.finish([{ name: 'y', value: y }]));
}

describe('the ONNX writer', () => {
  it('writes a tiny model as onnx.proto says', () => {
    // Worked out by hand: field number * 8 + wire type, then the value or its length.
    const golden = [
      '08 08', // ir_version 8
      '12 08 66 65 64 73 74 69 6c 6c', // producer_name "fedstill"
      '3a 56', // graph, 86 bytes
      '0a 16', // node, 22 bytes
      '0a 01 78', // input "x"
      '0a 09 63 6f 6e 73 74 61 6e 74 32', // input "constant2"
      '12 01 79', // output "y"
      '22 03 4d 75 6c', // op_type "Mul"
      '12 05 67 72 61 70 68', // name "graph"
      '2a 13', // initializer, 19 bytes
      '10 01', // data_type FLOAT
      '42 09 63 6f 6e 73 74 61 6e 74 32', // name "constant2"
      '4a 04 00 00 20 40', // raw_data 2.5
      '5a 0f 0a 01 78 12 0a 0a 08 08 01 12 04 0a 02 08 02', // input "x", FLOAT [2]
      '62 0f 0a 01 79 12 0a 0a 08 08 01 12 04 0a 02 08 02', // output "y", FLOAT [2]
      '42 04 0a 00 10 12', // opset_import "" 18
      '42 11 0a 0d 63 6f 6d 2e 6d 69 63 72 6f 73 6f 66 74 10 01', // opset_import "com.microsoft" 1
    ];
    expect(Buffer.from(tinyModel()).toString('hex')).toBe(golden.join('').replaceAll(' ', ''));
  });

  withOnnxRuntime(() => {
    it('writes what ONNX Runtime runs, negative integers, texts and floats included', async () => {
      const graph = new Graph();
      const x = graph.input('x', [2, 3]);
      const softmax = graph.node('Softmax', [x], [2, 3], { attributes: { axis: -1 } });
      const leaky = graph.node('LeakyRelu', [x], [2, 3], { attributes: { alpha: { float: 0.25 } } });
      const positions = graph.reshape(graph.integers([0, 0, 0]), [1, 3]);
      const added = graph.node('ScatterElements', [x, positions, graph.constant(Float32Array.of(10, 20, 30), [1, 3])], [2, 3], { attributes: { axis: 0, reduction: 'add' } });
      const session = await createSession(encodeOnnxModel(graph.finish([{ name: 'softmax', value: softmax }, { name: 'leaky', value: leaky }, { name: 'added', value: added }])));
      const outputs = { softmax: session.tensor(new Float32Array(6), [2, 3]), leaky: session.tensor(new Float32Array(6), [2, 3]), added: session.tensor(new Float32Array(6), [2, 3]) };
      await session.run({ x: session.tensor(Float32Array.of(-4, 0, 4, 1, 1, 1), [2, 3]) }, outputs);
      expect([...outputs.leaky.data]).toEqual([-1, 0, 4, 1, 1, 1]);
      expect([...outputs.added.data]).toEqual([6, 20, 34, 1, 1, 1]);
      expect([...outputs.softmax.data.subarray(3)].every((p) => Math.abs(p - 1 / 3) < 1e-6)).toBe(true);
      await session.release();
    });
  });
});

describe('dropout noise', () => {
  it('is that of tf.randomUniform', async () => {
    await loadBackend('tfjs-cpu');
    useBackend('tfjs-cpu');
    for (const seed of [1, 12345, 0xffff_ffff]) {
      const expected = tf.randomUniform([7, 11], 0, 1, 'float32', seed);
      const actual = new Float32Array(77);
      fillUniform(actual, seed);
      expect(actual).toEqual(expected.dataSync());
      expected.dispose();
    }
  });
});
