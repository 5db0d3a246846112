import { afterEach, describe, expect, it, vi } from 'vitest';
import { benchCommand } from '../../../simulations/commands/bench.ts';

afterEach(() => vi.restoreAllMocks());

/** What the command prints for a tiny measurement in plain JavaScript. */
async function bench(...flags: string[]): Promise<string> {
  let output = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    output += String(text);
    return true;
  });
  const tiny = ['--engines', 'tfjs-cpu', '--models', 'softmax-regression', '--batches', '2,4', '--predict', '8', '--rounds', '2', '--budget-ms', '1'];
  await benchCommand().parseAsync(['compute', ...tiny, ...flags], { from: 'user' });
  return output;
}

describe('fedstill bench compute', () => {
  it('prints a row for each step and prediction of each engine', async () => {
    const lines = (await bench('--engines', 'tfjs-cpu,tfjs-wasm')).trimEnd().split('\n');
    const rows = lines.slice(lines.findIndex((line) => line.startsWith('work')) + 1).map((line) => line.split(/ {2,}/));
    expect(rows.map(([work, model, engine]) => [work, model, engine])).toEqual(
      ['step of 2', 'step of 4', '8 rows'].flatMap((work) => ['tfjs-cpu', 'tfjs-wasm'].map((engine) => [work, 'softmax-regression', engine])),
    );
    for (const [, , , milliseconds] of rows) expect(Number(milliseconds)).toBeGreaterThan(0);
  });

  it('prints one JSON object, whose rates fit its times', async () => {
    const { results, machine } = JSON.parse(await bench('--json')) as { results: { work: string; batch: number; milliseconds: { median: number }; stepsPerSecond?: number; rowsPerSecond?: number }[]; machine: { cores: number } };
    expect(machine.cores).toBeGreaterThan(0);
    expect(results.map(({ work, batch }) => [work, batch])).toEqual([['train', 2], ['train', 4], ['predict', 8]]);
    for (const { batch, milliseconds, stepsPerSecond, rowsPerSecond } of results) expect(stepsPerSecond ?? rowsPerSecond! / batch).toBeCloseTo(1000 / milliseconds.median, 6);
  });

  it('names a model and an engine that it does not know', async () => {
    await expect(bench('--models', 'mlp-huge')).rejects.toMatchObject({ code: 'config-invalid', field: 'models', got: 'mlp-huge' });
    await expect(bench('--engines', 'abacus')).rejects.toMatchObject({ code: 'engine-unavailable', got: 'abacus' });
  });
});
