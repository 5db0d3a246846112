/** Reference values from dp_accounting, IBM's cdp2adp, and mpmath: test/vectors/README.md. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { accountantFor } from '../../../shared/privacy/accountants/composite-accountant.ts';
import { calibrateNoiseMultiplier, gaussianEpsilon } from '../../../shared/privacy/accountants/numerics.ts';
import { planRelease, releaseEvent, releaseSensitivity } from '../../../shared/privacy/release.ts';
import type { Delta } from '../../../shared/types/units.ts';

interface GoldenCase {
  id: string;
  group: string;
  mechanism: string;
  params: Record<string, number> & { adjacency?: string };
  expected: Record<string, number>;
  rel_tol?: number;
}
const golden = JSON.parse(readFileSync(new URL('../../vectors/dp-golden.json', import.meta.url), 'utf8')) as { cases: GoldenCase[] };
const group = (name: string) => {
  const cases = golden.cases.filter((item) => item.group === name);
  if (cases.length === 0) throw new Error(`no golden group ${name}`);
  return cases;
};
function expectClose(got: number, expected: number, relativeTolerance: number): void {
  expect(Math.abs(got - expected)).toBeLessThanOrEqual(relativeTolerance * Math.abs(expected));
}

describe('golden values', () => {
  it.each(group('agm-sigma'))('$id: analytic Gaussian calibration', ({ params, expected, rel_tol }) => {
    const got = calibrateNoiseMultiplier(params['epsilon']!, params['delta']!);
    expectClose(got, expected['sigma_mpmath']!, rel_tol!);
    expect(got).toBeGreaterThanOrEqual(expected['sigma_mpmath']! * (1 - 1e-13));
  });

  it.each(group('agm-eps'))('$id: analytic Gaussian epsilon, below zCDP', ({ params, expected, rel_tol }) => {
    const got = gaussianEpsilon(params['delta']!, 1 / params['noise_multiplier']!);
    expectClose(got, expected['epsilon_mpmath']!, rel_tol!);
    expect(got).toBeLessThan(expected['epsilon_from_zcdp']!);
  });

  it.each(group('gauss-comp'))('$id: composed Gaussians, exact and below RDP, PLD and zCDP', ({ params, expected, rel_tol }) => {
    const run = { kind: 'selfComposed', event: { kind: 'gaussian', noiseMultiplier: params['noise_multiplier']! }, count: params['steps']! } as const;
    const got = accountantFor([run], 'replaceOne').epsilon(params['delta'] as Delta);
    expectClose(got, expected['epsilon_exact']!, rel_tol!);
    expect(got).toBeLessThanOrEqual(expected['epsilon_rdp']!);
    expect(got).toBeLessThanOrEqual(expected['epsilon_zcdp']!);
    expect(got).toBeLessThanOrEqual(expected['epsilon_pld']! * (1 + 1e-9));
  });

  it.each(group('conv').filter((item) => item.mechanism === 'zcdp_to_adp'))('$id: a Gaussian of this rho costs at most the zCDP conversion', ({ params, expected }) => {
    const got = gaussianEpsilon(params['delta']!, Math.sqrt(2 * params['rho']!));
    expect(got).toBeLessThanOrEqual(expected['epsilon_cks']!);
    expect(got).toBeGreaterThan(0.8 * expected['epsilon_cks']!);
  });

  it.each(group('laplace').filter((item) => 'epsilon_pure' in item.expected))('$id: pure epsilon of composed Laplace, above PLD', ({ params, expected }) => {
    const noiseMultiplier = params['scale_over_l1_sensitivity'] ?? 1 / (params['a']! * params['sensitivity']!);
    const got = accountantFor([{ kind: 'selfComposed', event: { kind: 'laplace', noiseMultiplier }, count: params['steps']! }], 'replaceOne').epsilon(params['delta'] as Delta);
    expectClose(got, expected['epsilon_pure']!, 1e-12);
    expect(got).toBeGreaterThanOrEqual(expected['epsilon_pure']! * (1 - 1e-15));
    expect(got).toBeGreaterThanOrEqual(expected['epsilon_pld']!);
  });

  it.each(group('release'))('$id: sensitivity and noise of a soft-label matrix', ({ params, expected, rel_tol }) => {
    const gridStep = 1 / 4096;
    const isReplaceOne = params.adjacency === 'replace_one';
    const plan = planRelease({
      mechanism: 'gaussian', outputKind: 'probabilities', rows: params['n_pub']!, columns: params['classes']!, gridStep,
      epsilon: params['epsilon'], delta: params['delta']!, releases: params['releases']!,
    });
    // The golden zero-out matrices are centered by 1/C and ours are not: a factor sqrt(1 - 1/C).
    const centering = isReplaceOne ? 1 : Math.sqrt(1 - 1 / params['classes']!);
    const l2 = releaseSensitivity(plan).l2[isReplaceOne ? 'replaceOne' : 'zeroOut'] * gridStep;
    expectClose(l2 * centering, expected['l2_sensitivity']!, rel_tol!);
    const noiseMultiplier = calibrateNoiseMultiplierOverReleases(params['epsilon']!, params['delta']!, params['releases']!);
    expectClose(noiseMultiplier, expected['noise_multiplier']!, rel_tol!);
    expectClose(noiseMultiplier * l2 * centering, expected['sum_noise_std']!, rel_tol!);
    // The plan rounds sigma up to an integer number of grid steps, and calibrates for replace-one.
    const event = releaseEvent(plan, 'replaceOne');
    if (event.kind !== 'gaussian') throw new Error('expected a gaussian event');
    expect(event.noiseMultiplier).toBeGreaterThanOrEqual(noiseMultiplier * (1 - 1e-12));
    expectClose(event.noiseMultiplier, noiseMultiplier, 1e-4);
  });
});

function calibrateNoiseMultiplierOverReleases(epsilon: number, delta: number, releases: number): number {
  return calibrateNoiseMultiplier(epsilon, delta) * Math.sqrt(releases);
}
