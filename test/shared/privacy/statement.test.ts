import { describe, expect, it } from 'vitest';
import { planRelease, releaseEvents } from '../../../shared/privacy/release.ts';
import type { PrivacyStatement } from '../../../shared/privacy/statement.ts';
import { buildStatement, PrivacyStatementSchema, renderStatement } from '../../../shared/privacy/statement.ts';
import type { Delta } from '../../../shared/types/units.ts';

const delta = 1e-5 as Delta;
const plan = (mechanism: 'gaussian' | 'laplace' | 'none') =>
  planRelease({ mechanism, outputKind: 'logits', rows: 50, columns: 10, rowClippingNorm: 5, gridStep: 1 / 64, epsilon: 4, delta, releases: 3 });
const build = (mechanism: 'gaussian' | 'laplace' | 'none', trustMode: 'sealed' | 'clear' = 'sealed') =>
  buildStatement({ trustMode, parameters: plan(mechanism), delta, ledger: [1, 2, 3].map(() => ({ events: releaseEvents(plan(mechanism)) })) });

describe('the privacy statement', () => {
  it.each(['gaussian', 'laplace'] as const)('%s: prints an epsilon only with everything that gives it meaning', (mechanism) => {
    const text = renderStatement(build(mechanism));
    const lines = text.split('\n').filter((line) => line.includes('epsilon'));
    expect(lines).toHaveLength(4);
    for (const line of lines) expect(line).toMatch(/^(One release|Lifetime, 3 releases charged): epsilon <= [\d.]+ at delta 0\.00001; unit client; adjacency (replace-one|zero-out) .*; accountant [a-z+-]+ version 1\.$/);
    expect(text).toMatch(/Adversary: everyone who sees/);
    expect(text).toMatch(/50 transfer rows x 10 classes per release/);
    expect(text).toMatch(/Sensitivity of the whole matrix \(L[12]\): [\d.]+ grid steps replace-one, [\d.]+ zero-out/);
    expect(text).toMatch(/fresh for every release/);
    expect(text).toMatch(/Not protected:\n {2}- that a client takes part/);
  });

  it('prints upper bounds: nothing is rounded down', () => {
    const statement = build('gaussian');
    if (statement.claim !== 'differentialPrivacy') throw new Error('expected a claim');
    const printed = [...renderStatement(statement).matchAll(/epsilon <= ([\d.]+)/g)].map((match) => Number(match[1]));
    statement.guarantees.forEach((guarantee, i) => {
      expect(printed[i]).toBeGreaterThanOrEqual(guarantee.epsilon as number);
      expect(printed[i]! / (guarantee.epsilon as number)).toBeLessThan(1.002);
    });
    expect(statement.guarantees.find((item) => item.scope === 'lifetime' && item.adjacency === 'replaceOne')!.epsilon).toBeLessThanOrEqual(4);
  });

  it('throws for every missing field, at every depth', () => {
    const drop = (value: unknown, path: readonly string[]): unknown => {
      const copy = structuredClone(value) as Record<string, unknown>;
      let target = copy;
      for (const key of path.slice(0, -1)) target = target[key] as Record<string, unknown>;
      delete target[path.at(-1)!];
      return copy;
    };
    const paths: string[][] = [];
    const walk = (value: unknown, path: string[]) => {
      if (path.length > 0 && !path.some((key) => key === 'notProtected' && path.at(-1) !== key)) paths.push(path);
      if (value !== null && typeof value === 'object') for (const [key, child] of Object.entries(value)) walk(child, [...path, key]);
    };
    const statement = build('gaussian');
    walk(statement, []);
    expect(paths.length).toBeGreaterThan(40);
    for (const path of paths) expect(() => renderStatement(drop(statement, path) as PrivacyStatement), path.join('.')).toThrow(expect.objectContaining({ code: 'internal' }));
  });

  it('says in plain words that mechanism none gives no differential privacy', () => {
    const statement = build('none');
    expect(statement).toMatchObject({ claim: 'none', epsilon: 'infinite' });
    const text = renderStatement(statement);
    expect(text).toContain('NO DIFFERENTIAL PRIVACY');
    expect(text).toContain('There is no differential privacy here: epsilon is infinite');
    expect(text).not.toMatch(/epsilon <=/);
  });

  it('claims nothing in clear mode, noise or not', () => {
    expect(build('gaussian', 'clear')).toMatchObject({ claim: 'none', reason: expect.stringContaining('clear mode') as string });
  });

  it('does not hide an earlier release without noise behind a later one with it', () => {
    const statement = buildStatement({ trustMode: 'sealed', parameters: plan('gaussian'), delta, ledger: [{ events: releaseEvents(plan('none')) }, { events: releaseEvents(plan('gaussian')) }] });
    expect(renderStatement(statement)).toMatch(/Lifetime, 2 releases charged: epsilon is infinite/);
  });

  it('goes through JSON unchanged', () => {
    for (const mechanism of ['gaussian', 'laplace', 'none'] as const) {
      const statement = build(mechanism);
      expect(PrivacyStatementSchema.parse(JSON.parse(JSON.stringify(statement)))).toEqual(statement);
    }
  });
});
