/** The scenarios of docs/semi-supervised.md promise what its table says: epsilon, unit, adversary, data, and noise by the accountant that charges it. */
import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { planTaskRelease } from '../../server/coordinator/coordinator.ts';
import { secureCohortOf } from '../../shared/config/secure-cohort.ts';
import { gaussianEpsilon } from '../../shared/privacy/accountants/numerics.ts';
import { chargedRelease } from '../../shared/privacy/ledger.ts';
import { releaseSensitivity } from '../../shared/privacy/release.ts';
import { buildStatement } from '../../shared/privacy/statement.ts';
import type { Delta } from '../../shared/types/units.ts';
import { parseScenario } from '../../simulations/scenario.ts';

describe.each([
  { file: 'headline-eps2', epsilon: 2, exact: 1.839, queries: 200, noise: 973 },
  { file: 'headline-eps1', epsilon: 1, exact: 0.915, queries: 100, noise: 1295 },
  { file: 'headline-record-votes', epsilon: 0.1, exact: 0.09, queries: 100, noise: 1088 },
])('$file.yaml', ({ file, epsilon, exact, queries, noise }) => {
  it(`guarantees every record an epsilon of at most ${epsilon} against the coordinator and one client with it`, async () => {
    const name = `${file}.yaml`;
    const { task, clients } = parseScenario(await readFile(new URL(`../../simulations/scenarios/${name}`, import.meta.url), 'utf8'), name);
    expect(task).toMatchObject({ transferSet: { source: 'mnist', split: 'train', offset: 50_000, size: 10_000 }, evaluationSet: { source: 'mnist', split: 'test', offset: 0 }, schedule: { rounds: 1, quorum: 9 } });
    expect(clients).toMatchObject({ groups: [{ count: 10 }], data: { source: 'mnist', split: 'train', offset: 0, size: 50_000 }, partition: { kind: 'iid' } });

    const parameters = planTaskRelease(task, 10_000);
    expect(parameters).toMatchObject({ mechanism: 'discreteGaussian', rows: queries, noise: { sigmaGrid: noise, shares: 8 } });
    const statement = buildStatement({ trustMode: task.privacy.trustMode, parameters, secureAggregation: secureCohortOf(task), delta: task.privacy.delta as Delta, ledger: [chargedRelease(parameters)] });
    expect(statement).toMatchObject({ claim: 'differentialPrivacy', unit: 'record', trustMode: 'secure-aggregation', secureAggregation: { minSurvivors: 9, maxCorrupt: 1 } });
    const guarantees = statement.claim === 'differentialPrivacy' ? statement.guarantees.filter(({ adjacency, adversary }) => adjacency === 'replaceOne' && adversary === 'coordinator') : [];
    expect(guarantees).toHaveLength(2);
    for (const guarantee of guarantees) {
      expect(guarantee).toMatchObject({ unit: 'record', delta: 1e-5, accountant: { name: 'renyi' } });
      expect(guarantee.epsilon).toBeLessThanOrEqual(epsilon);
      expect(guarantee.epsilon).toBeGreaterThan(0.999 * epsilon);
    }
    // What docs/semi-supervised.md gives for comparison: one continuous Gaussian with the standard deviation of the eight shares.
    expect(gaussianEpsilon(1e-5, releaseSensitivity(parameters).l2.replaceOne / (Math.sqrt(8) * noise))).toBeCloseTo(exact, 3);
  });
});
