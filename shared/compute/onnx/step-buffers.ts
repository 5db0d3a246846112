/** The arrays that a step's graph reads and writes, allocated once for all steps of a training. */
import { exampleSize } from '../../types/matrix.ts';
import type { Arena } from './arena.ts';
import type { Compiled, WeightLayout } from './architecture.ts';
import { names, type StepGraph } from './compile.ts';
import { DropoutSeeds, fillUniform } from './dropout-noise.ts';
import type { TermData } from './loss-terms.ts';
import type { OrtTensors } from './runtime.ts';

/** What a step graph of either kind has. */
type AnyStepGraph = Omit<StepGraph, 'plan'>;

export interface BufferSizes {
  /** Rows of each term. */
  readonly rows: readonly number[];
  readonly exampleShape: readonly number[];
  readonly classes: number;
}

export class StepBuffers {
  /** Rows of each term. */
  readonly rows: readonly number[];
  /** Positions of the weights whose gradients a run writes. */
  readonly withGradient: readonly number[];
  readonly #compiled: Compiled<AnyStepGraph>;
  readonly #exampleSize: number;
  readonly #wanted: ReadonlySet<string>;
  readonly #inputs: OrtTensors = {};
  readonly #outputs: OrtTensors = {};
  readonly #examples: Float32Array;
  readonly #targets: readonly Float32Array[];
  readonly #rowWeights: readonly Float32Array[];
  readonly #noise: readonly { readonly layer: number; readonly term: number | undefined; readonly values: Float32Array; readonly ofBatch: Map<number, Float32Array> }[];
  readonly #updates: readonly { readonly place: Float32Array; readonly values: Float32Array }[];

  /** `vector`: all weights. Those that training changes are read from the arena, the others where they are; gradients go to the arena. */
  constructor(compiled: Compiled<AnyStepGraph>, { rows, exampleShape, classes }: BufferSizes, layout: WeightLayout, vector: Float32Array, arena: Arena) {
    this.rows = rows;
    this.#compiled = compiled;
    this.#exampleSize = exampleSize(exampleShape);
    const { traced } = compiled;
    this.withGradient = traced.gradients;
    this.#wanted = new Set(traced.graph.inputs.map(({ name }) => name));
    const updates: { place: Float32Array; values: Float32Array }[] = [];
    for (const { index, shape, offset, length, trainable } of layout.places) {
      const place = trainable ? arena.view(arena.parameters + 4 * offset, length) : vector.subarray(offset, offset + length);
      this.input(names.weight(index), place, shape);
      if (traced.gradients.includes(index)) this.output(names.gradient(index), arena.view(arena.gradients + 4 * offset, length), shape);
      if (traced.updates.includes(index)) updates.push({ place, values: this.output(names.update(index), new Float32Array(length), shape) });
    }
    this.#updates = updates;
    const allRows = rows.reduce((sum, count) => sum + count);
    this.#examples = this.input(names.examples, new Float32Array(allRows * this.#exampleSize), [allRows, ...exampleShape]);
    this.#targets = rows.map((count, term) => this.input(names.targets(term), new Float32Array(count * classes), [count, classes]));
    this.#rowWeights = rows.map((count, term) => this.input(names.rowWeights(term), new Float32Array(count), [count, 1]));
    this.#noise = traced.noise.map(({ name, shape, layer, term }) => ({ layer, term, values: this.input(name, new Float32Array(exampleSize(shape)), shape), ofBatch: new Map() }));
  }

  /** Binds an array to an input. A graph has no input that its outputs do not depend on. */
  input(name: string, data: Float32Array, shape: readonly number[]): Float32Array {
    if (this.#wanted.has(name)) this.#inputs[name] = this.#compiled.session.tensor(data, shape);
    return data;
  }

  output(name: string, data: Float32Array, shape: readonly number[]): Float32Array {
    this.#outputs[name] = this.#compiled.session.tensor(data, shape);
    return data;
  }

  /** Puts examples where the graph reads them, each with the weight of its loss; the rows that are left count nothing. */
  stage(term: number, data: TermData, positions: Uint32Array, weightOf: (position: number, row: number) => number): void {
    const rows = this.rows[term]!;
    const { start } = this.#rowsBefore(term);
    const size = this.#exampleSize;
    const [targets, rowWeights] = [this.#targets[term]!, this.#rowWeights[term]!];
    const classes = targets.length / rows;
    for (let row = 0; row < rows; row++) {
      // A row that fills the batch up is a copy of the first one, so that it computes nothing that a real row does not.
      const position = positions[row] ?? positions[0] ?? 0;
      const weight = row < positions.length ? weightOf(position, row) : 0;
      this.#examples.set(data.examples.values.subarray(position * size, (position + 1) * size), (start + row) * size);
      data.writeTarget(targets.subarray(row * classes, (row + 1) * classes), position, weight);
      rowWeights[row] = data.plan.kind === 'absoluteError' ? weight / classes : 0;
    }
  }

  /** Draws the dropout of a term's rows from the seeds of its forward pass. For a part of a batch: that of the part, drawn with all others when the first part's is asked for. */
  fillNoise(term: number, seeds: readonly number[], part = 0, parts = 1): void {
    const { start, all } = this.#rowsBefore(term);
    for (const { layer, term: only, values, ofBatch } of this.#noise) {
      if (only !== undefined && only !== term) continue;
      const perRow = values.length / (only === undefined ? all : this.rows[term]!);
      const [from, length] = [only === undefined ? start * perRow : 0, this.rows[term]! * perRow];
      const own = values.subarray(from, from + length);
      if (parts === 1) {
        fillUniform(own, seeds[layer]!);
        continue;
      }
      let drawn = ofBatch.get(term);
      if (drawn?.length !== parts * length) ofBatch.set(term, (drawn = new Float32Array(parts * length)));
      if (part === 0) fillUniform(drawn, seeds[layer]!);
      own.set(drawn.subarray(part * length, (part + 1) * length));
    }
  }

  #rowsBefore(term: number): { readonly start: number; readonly all: number } {
    const count = (rows: readonly number[]) => rows.reduce((sum, own) => sum + own, 0);
    return { start: count(this.rows.slice(0, term)), all: count(this.rows) };
  }

  async run(): Promise<void> {
    await this.#compiled.session.run(this.#inputs, this.#outputs);
  }

  /** Takes over the weights that the graph computed itself: moving averages. */
  applyUpdates(): void {
    for (const { place, values } of this.#updates) place.set(values);
  }
}

/** One seed for each dropout layer and forward pass. */
export function dropoutSeeds(seed: number, { traced }: Compiled<AnyStepGraph>): DropoutSeeds {
  return new DropoutSeeds(seed, traced.dropoutLayers);
}
