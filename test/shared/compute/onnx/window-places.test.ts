/** Max pools by place against a loop over windows, on small integers, so that most windows have ties: only the first maximum gets the gradient. */
import { expect, it } from 'vitest';
import { tf } from '../../../../shared/compute/backend.ts';
import { Graph } from '../../../../shared/compute/onnx/graph.ts';
import { gradientOfMaximum, maximumOfPlaces, sortedByPlace, sortedByPosition } from '../../../../shared/compute/onnx/kernels/window-places.ts';
import { encodeOnnxModel } from '../../../../shared/compute/onnx/onnx-writer.ts';
import { createSession } from '../../../../shared/compute/onnx/runtime.ts';
import { SeededGenerator } from '../../../../shared/datasets/seeded-generator.ts';
import { withOnnxRuntime } from '../../../support/onnx-runtime.ts';

const [batch, height, width, channels] = [2, 7, 6, 8] as const;

/** Maxima, and the gradient of the input, of windows side by side. */
function expected(x: Float32Array, dy: Float32Array, windowHeight: number, windowWidth: number): { readonly y: number[]; readonly dx: Float32Array } {
  const dx = new Float32Array(x.length);
  const y: number[] = [];
  for (let example = 0; example < batch; example++) {
    for (let row = 0; row + windowHeight <= height; row += windowHeight) {
      for (let column = 0; column + windowWidth <= width; column += windowWidth) {
        for (let channel = 0; channel < channels; channel++) {
          const places = Array.from({ length: windowHeight * windowWidth }, (_, place) => ((example * height + row + Math.floor(place / windowWidth)) * width + column + (place % windowWidth)) * channels + channel);
          const largest = Math.max(...places.map((place) => x[place]!));
          dx[places.find((place) => x[place] === largest)!] = dy[y.length]!;
          y.push(largest);
        }
      }
    }
  }
  return { y, dx };
}

withOnnxRuntime(() => {
  it.each([[2, 2], [3, 3], [2, 3], [1, 2], [7, 1], [4, 4]] as const)('maxima by place and their gradient, window %i x %i', async (windowHeight, windowWidth) => {
    const window: [number, number] = [windowHeight, windowWidth];
    const info = tf.backend_util.computePool2DInfo([batch, height, width, channels], window, window, 1, 'valid');
    const generator = new SeededGenerator(10 * windowHeight + windowWidth);
    const graph = new Graph();
    const [xShape, yShape] = [[batch, height, width, channels], info.outShape];
    const windows = info.outHeight * info.outWidth * channels;
    const byPlace = sortedByPlace(graph, graph.input('x', xShape), info)!;
    const y = graph.reshape(maximumOfPlaces(graph, byPlace, 1), yShape);
    const dx = sortedByPosition(graph, gradientOfMaximum(graph, graph.reshape(graph.input('dy', yShape), [batch, 1, windows]), byPlace, 1), info);
    const session = await createSession(encodeOnnxModel(graph.finish([{ name: 'y', value: y }, { name: 'dx', value: dx }])));
    const inputs = { x: Float32Array.from({ length: batch * height * width * channels }, () => Math.round(generator.gaussian())), dy: Float32Array.from({ length: batch * windows }, () => generator.gaussian()) };
    const outputs = { y: new Float32Array(inputs.dy.length), dx: new Float32Array(inputs.x.length) };
    await session.run({ x: session.tensor(inputs.x, xShape), dy: session.tensor(inputs.dy, yShape) }, { y: session.tensor(outputs.y, yShape), dx: session.tensor(outputs.dx, xShape) });
    await session.release();
    const wanted = expected(inputs.x, inputs.dy, windowHeight, windowWidth);
    // Without the sign of zeros.
    expect(Array.from(outputs.y, (value) => value + 0)).toEqual(wanted.y.map((value) => value + 0));
    expect(outputs.dx.map((value) => value + 0)).toEqual(wanted.dx);
  });
});
