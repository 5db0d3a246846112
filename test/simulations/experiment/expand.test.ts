import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalJson, type Json } from '../../../shared/protocol/canonical-json.ts';
import { expandSettings, variedPaths } from '../../../simulations/experiment/expand.ts';
import { pointCount, SweepSchema, type Sweep } from '../../../simulations/experiment/sweep.ts';

const gridPaths = ['task.privacy.epsilon', 'task.distillation.temperature', 'clients.groups.0.count', 'network.latencyMs'];
const casePaths = ['task.privacy.mechanism', 'task.privacy.trustMode', 'task.student.model'];
const rangePaths = ['task.student.l2', 'task.student.dropout'];

const value = fc.oneof(fc.integer({ min: -5, max: 5 }), fc.constantFrom('a', 'b', null, true), fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 2 }));
const distinctValues = fc.uniqueArray(value, { minLength: 1, maxLength: 4, selector: (one) => canonicalJson(one as Json) });
const mappingOf = <T>(paths: readonly string[], of: fc.Arbitrary<T>) =>
  fc.subarray([...paths]).chain((keys) => fc.tuple(...keys.map(() => of)).map((values) => Object.fromEntries(keys.map((key, i) => [key, values[i]!]))));

const sweeps: fc.Arbitrary<Sweep> = fc
  .record({
    seeds: fc.uniqueArray(fc.integer({ min: 0, max: 0xffff_ffff }), { minLength: 1, maxLength: 3 }),
    vary: fc.record(
      {
        cases: fc.uniqueArray(fc.record({ label: fc.constantFrom('a', 'b', 'c'), set: mappingOf(casePaths, value) }), { minLength: 1, maxLength: 3, selector: ({ label }) => label }),
        grid: mappingOf(gridPaths, distinctValues),
        random: fc.record({
          samples: fc.integer({ min: 1, max: 5 }),
          seed: fc.nat(),
          ranges: mappingOf(rangePaths, fc.constantFrom({ from: 0.001, to: 2, scale: 'log' }, { from: 0, to: 1 }, { from: 1, to: 3, integer: true }, { among: ['x', 'y'] })),
        }),
      },
      { requiredKeys: [] },
    ),
  })
  .map(({ seeds, vary }) => SweepSchema.parse({ experiment: 'x', scenario: 'x.yaml', seeds, vary }));

describe('expansion', () => {
  it('has the product of all parts, less the samples that were drawn before', () => {
    fc.assert(
      fc.property(sweeps, (sweep) => {
        const settings = expandSettings(sweep);
        const { cases, grid, random } = sweep.vary;
        const others = (cases?.length ?? 1) * Object.values(grid ?? {}).reduce((product, values) => product * values.length, 1);
        expect(settings.length % others).toBe(0);
        expect(settings.length / others).toBeLessThanOrEqual(random?.samples ?? 1);
        if (random === undefined) expect(settings.length * sweep.seeds.length).toBe(pointCount(sweep));
      }),
    );
  });

  it('has no setting twice, each sets every path of its case, the grid and the samples once', () => {
    fc.assert(
      fc.property(sweeps, (sweep) => {
        const settings = expandSettings(sweep);
        expect(new Set(settings.map((setting) => canonicalJson([setting.case, setting.overrides]))).size).toBe(settings.length);
        for (const { case: label, overrides } of settings) {
          const ofCase = sweep.vary.cases?.find((one) => one.label === label)?.set ?? {};
          expect(overrides.map(([path]) => path)).toEqual([...Object.keys(ofCase), ...Object.keys(sweep.vary.grid ?? {}), ...Object.keys(sweep.vary.random?.ranges ?? {})]);
          for (const [path] of overrides) expect(variedPaths(sweep)).toContain(path);
        }
      }),
    );
  });

  it('has the same order every time: the last path of the grid changes fastest, the case slowest', () => {
    fc.assert(fc.property(sweeps, (sweep) => void expect(expandSettings(structuredClone(sweep))).toEqual(expandSettings(sweep))));
    const sweep = SweepSchema.parse({ experiment: 'x', scenario: 'x', vary: { cases: [{ label: 'a', set: {} }, { label: 'b', set: {} }], grid: { 'task.privacy.epsilon': [1, 2], 'network.latencyMs': [3, 4] } } });
    expect(expandSettings(sweep).map((setting) => [setting.case, ...setting.overrides.map(([, one]) => one)])).toEqual([['a', 1, 3], ['a', 1, 4], ['a', 2, 3], ['a', 2, 4], ['b', 1, 3], ['b', 1, 4], ['b', 2, 3], ['b', 2, 4]]);
  });

  it('draws within the ranges, whole numbers where asked, and the same samples whatever else is drawn', () => {
    const draws = (samples: number, ranges: object) => expandSettings(SweepSchema.parse({ experiment: 'x', scenario: 'x', vary: { random: { samples, seed: 7, ranges } } })).map(({ overrides }) => Object.fromEntries(overrides));
    const l2 = { from: 0.0001, to: 1, scale: 'log' };
    const both = draws(200, { 'task.student.l2': l2, 'task.student.digestEpochs': { from: 1, to: 3, integer: true } });
    for (const { 'task.student.l2': one, 'task.student.digestEpochs': epochs } of both) {
      expect(one).toBeGreaterThanOrEqual(0.0001);
      expect(one).toBeLessThanOrEqual(1);
      expect([1, 2, 3]).toContain(epochs);
    }
    // A logarithmic scale: as many below the geometric middle as above it, give or take (a binomial of 200 within 5 standard deviations).
    expect(Math.abs(both.filter(({ 'task.student.l2': one }) => (one as number) < 0.01).length - 100)).toBeLessThan(36);
    expect(draws(3, { 'task.student.l2': l2 }).map((sample) => sample['task.student.l2'])).toEqual(both.slice(0, 3).map((sample) => sample['task.student.l2']));
    expect(draws(50, { 'task.student.model': { among: ['mlp-small', 'cnn-small'] } })).toHaveLength(2);
  });
});
