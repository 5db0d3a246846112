/**
 * Views: public, deterministic functions of one example. Clients of one federation may see different ones of the same public examples (one half of a picture; the
 * words of a message, or its counts), train students of different input shapes, and still distil each other, because predictions on an example mean the same
 * whatever they were made from.
 *
 * A view looks at nothing but the example: no statistics of a dataset, so that viewing private records costs no privacy and one record still changes one record.
 */
import { ViewSchema, type View, type ViewStep } from '../config/view-config.ts';
import { FederationError } from '../errors.ts';
import { exampleSize, type Examples, type LabelledExamples } from '../types/matrix.ts';

/** Shape of an example seen through the view. Throws `config-invalid` when the view does not fit the shape. */
export function viewShape(view: View, exampleShape: readonly number[]): readonly number[] {
  return view.reduce(stepShape, exampleShape);
}

/** The examples as the view shows them, copied; without steps, the very same ones. Throws as `viewShape`. */
export function applyView(view: View, examples: Examples): Examples {
  viewShape(view, examples.shape); // before anything is allocated
  return view.reduce((seen, step) => applyStep(step, seen), examples);
}

/** Labels stay as they are. */
export function viewLabelled(view: View, data: LabelledExamples): LabelledExamples {
  return { ...data, examples: applyView(view, data.examples) };
}

function stepShape(shape: readonly number[], step: ViewStep): readonly number[] {
  const refused = (expected: string, next: string) =>
    new FederationError('config-invalid', `The view ${formatView([step])} does not fit examples of shape [${shape.join(', ')}].`, { field: 'view', expected, got: `shape [${shape.join(', ')}]`, next });
  const [height, width, channels] = shape;
  if (step.kind === 'crop') {
    const { rows, columns } = step;
    if (rows === undefined && columns === undefined) throw refused('rows, columns or both', 'Say what to keep, e.g. rows: [0, 14].');
    if (shape.length === 1 && rows === undefined && columns !== undefined) {
      if (columns[1] > height!) throw refused(`columns up to ${height!}`, 'Keep a part that is there: [from, to) counts from 0.');
      return [columns[1] - columns[0]];
    }
    if (shape.length !== 3) throw refused('images [height, width, channels], or vectors [n] and columns alone', 'Choose another view.');
    if ((rows?.[1] ?? 0) > height! || (columns?.[1] ?? 0) > width!) throw refused(`rows up to ${height!} and columns up to ${width!}`, 'Keep a part that is there: [from, to) counts from 0.');
    return [rows === undefined ? height! : rows[1] - rows[0], columns === undefined ? width! : columns[1] - columns[0], channels!];
  }
  if (shape.length !== 3) throw refused('images [height, width, channels]', 'Choose another view; vectors can be cropped by columns.');
  if (step.kind === 'gradient') return [height!, width!, 2 * channels!];
  const { factor } = step;
  if (height! % factor !== 0 || width! % factor !== 0) throw refused(`sides that are multiples of ${factor}`, 'Choose another factor, or crop first.');
  return [height! / factor, width! / factor, channels!];
}

function applyStep(step: ViewStep, examples: Examples): Examples {
  const shape = [...stepShape(examples.shape, step)];
  const { count } = examples;
  const values = new Float32Array(count * exampleSize(shape));
  const from = examples.values;
  // A vector is an image of one row and one channel.
  const [height, width, channels] = examples.shape.length === 1 ? [1, examples.shape[0]!, 1] : (examples.shape as [number, number, number]);
  let at = 0;
  for (let example = 0; example < count; example++) {
    const start = example * height * width * channels;
    const pixel = (row: number, column: number, channel: number) => from[start + (row * width + column) * channels + channel]!;
    switch (step.kind) {
      case 'crop': {
        const [top, bottom] = step.rows ?? [0, height];
        const [left, right] = step.columns ?? [0, width];
        for (let row = top; row < bottom; row++) {
          const kept = from.subarray(start + (row * width + left) * channels, start + (row * width + right) * channels);
          values.set(kept, at);
          at += kept.length;
        }
        break;
      }
      case 'downsample': {
        const { factor } = step;
        for (let row = 0; row < height; row += factor) {
          for (let column = 0; column < width; column += factor) {
            for (let channel = 0; channel < channels; channel++) {
              let sum = 0;
              for (let i = 0; i < factor; i++) for (let j = 0; j < factor; j++) sum += pixel(row + i, column + j, channel);
              values[at++] = sum / (factor * factor);
            }
          }
        }
        break;
      }
      case 'gradient':
        for (let row = 0; row < height; row++) {
          for (let column = 0; column < width; column++) {
            for (let channel = 0; channel < channels; channel++) {
              // Beyond the border, the border goes on.
              values[at++] = (pixel(Math.min(row + 1, height - 1), column, channel) - pixel(Math.max(row - 1, 0), column, channel)) / 2;
              values[at++] = (pixel(row, Math.min(column + 1, width - 1), channel) - pixel(row, Math.max(column - 1, 0), channel)) / 2;
            }
          }
        }
        break;
    }
  }
  return { count, shape, values };
}

/**
 * A view from the command line: steps joined by `+`.
 *
 *     crop:rows=0-14   crop:rows=0-14,columns=7-21   crop:columns=0-1024   downsample:2   gradient   crop:rows=0-14+downsample:2
 *
 * Throws `usage-invalid`.
 */
export function parseView(text: string): View {
  const steps = text.split('+').map((part): unknown => {
    const [kind, options] = part.trim().split(/:(.*)/s) as [string, string?];
    if (kind === 'gradient') return options === undefined ? { kind } : undefined;
    if (kind === 'downsample') return { kind, factor: /^\d{1,6}$/.test(options ?? '') ? Number(options) : undefined };
    if (kind !== 'crop' || options === undefined) return undefined;
    const sides = options.split(',').map((side) => /^(rows|columns)=(\d{1,6})-(\d{1,6})$/.exec(side.trim()));
    const isComplete = sides.every((side) => side !== null) && new Set(sides.map((side) => side[1])).size === sides.length;
    return isComplete ? { kind, ...Object.fromEntries(sides.map(([, side, from, to]) => [side!, [Number(from), Number(to)]])) } : undefined;
  });
  const parsed = ViewSchema.safeParse(steps);
  if (parsed.success) return parsed.data;
  const expected = 'steps joined by +: crop:rows=FROM-TO,columns=FROM-TO (from 0, TO not included), downsample:FACTOR, gradient';
  throw new FederationError('usage-invalid', `The view ${JSON.stringify(text)} cannot be read.`, { field: 'view', expected, got: text, next: 'Try crop:rows=0-14 for the upper half of an image of 28 rows, or crop:columns=0-1024 for a part of a vector.' });
}

/** As `parseView` reads it; `whole` for a view without steps. */
export function formatView(view: View): string {
  const sides = (step: Extract<ViewStep, { kind: 'crop' }>) => (['rows', 'columns'] as const).flatMap((side) => (step[side] === undefined ? [] : `${side}=${step[side].join('-')}`));
  return view.map((step) => (step.kind === 'crop' ? `crop:${sides(step).join(',')}` : step.kind === 'downsample' ? `downsample:${step.factor}` : step.kind)).join('+') || 'whole';
}
