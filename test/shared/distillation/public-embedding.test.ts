/** What the proof of one vote a record takes for granted: an example's point depends on that example alone. */
import { expect, it } from 'vitest';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { embed, fitPublicEmbedding } from '../../../shared/distillation/public-embedding.ts';
import { selectExamples, type Examples } from '../../../shared/types/matrix.ts';

const odd = [NaN, Infinity, -Infinity, 1e30, -1e38, 0];

it.each([['images', [12, 12, 2]], ['vectors', [20]]] as const)('%s: a point is that of its example alone, whatever stands before it, numbers or not', (_what, shape) => {
  const generator = new SeededGenerator(3);
  const size = shape.reduce((product: number, side) => product * side, 1);
  const examples = (count: number, value: () => number): Examples => ({ count, shape, values: Float32Array.from({ length: count * size }, value) });
  const embedding = fitPublicEmbedding(examples(40, () => generator.uniform()), { seed: 1 });
  for (let trial = 0; trial < 10; trial++) {
    const records = examples(8, () => (generator.uniform() < 0.02 ? odd[generator.integer(odd.length)]! : generator.uniform()));
    const { columns, values } = embed(embedding, records);
    for (let i = 0; i < records.count; i++) expect(embed(embedding, selectExamples(records, [i])).values).toEqual(values.slice(i * columns, (i + 1) * columns));
  }
});
