/** What every accountant must do, whatever it can account for. */
import { describe, expect, it } from 'vitest';
import { FederationError } from '../../shared/errors.ts';
import type { PrivacyAccountant } from '../../shared/privacy/accountants/accountant.ts';
import type { DpEvent } from '../../shared/privacy/dp-event.ts';
import type { Delta } from '../../shared/types/units.ts';

export interface AccountantSetup {
  readonly name: string;
  create(): PrivacyAccountant;
  /** A supported event with finite cost. */
  readonly supported: DpEvent;
  /** Another supported event, to be mixed with the first. */
  readonly second?: DpEvent;
  /** An event that must be refused; undefined when there is none. */
  readonly unsupported?: DpEvent;
}

export function describeAccountantContract(setup: AccountantSetup): void {
  const delta = 2.718281828459045e-6 as Delta;

  describe(`accountant contract: ${setup.name}`, () => {
    it('says 0 when nothing was released', () => {
      expect(setup.create().epsilon(delta)).toBe(0);
      expect(setup.create().compose({ kind: 'composed', events: [] }).epsilon(delta)).toBe(0);
      expect(setup.create().compose(setup.supported, 0).epsilon(delta)).toBe(0);
      expect(setup.create().compose({ kind: 'selfComposed', event: { kind: 'nonPrivate' }, count: 0 }).epsilon(delta)).toBe(0);
    });

    it('says Infinity once something left without noise, and never less again', () => {
      const accountant = setup.create().compose({ kind: 'nonPrivate' });
      expect(accountant.epsilon(delta)).toBe(Infinity);
      expect(accountant.compose(setup.supported).epsilon(delta)).toBe(Infinity);
    });

    it('is immutable: composing leaves the old accountant as it was', () => {
      const before = setup.create();
      before.compose(setup.supported, 7);
      expect(before.epsilon(delta)).toBe(0);
    });

    it('grows with the number of releases and falls with delta', () => {
      let previous = 0;
      for (const count of [1, 2, 3, 10, 314]) {
        const epsilon = setup.create().compose(setup.supported, count).epsilon(delta);
        expect(epsilon).toBeGreaterThan(previous);
        expect(setup.create().compose(setup.supported, count).epsilon(1e-3 as Delta)).toBeLessThanOrEqual(epsilon);
        previous = epsilon;
      }
    });

    it('counts the same events the same, however they are grouped', () => {
      const event = setup.supported;
      const flat = setup.create().compose(event, 6).epsilon(delta);
      const nested: DpEvent = { kind: 'composed', events: [event, { kind: 'selfComposed', event: { kind: 'composed', events: [event] }, count: 5 }] };
      expect(setup.create().compose(nested).epsilon(delta) / flat).toBeCloseTo(1, 12);
      const single = [1, 2, 3, 4, 5, 6].reduce<PrivacyAccountant>((accountant) => accountant.compose(event), setup.create());
      expect(single.epsilon(delta) / flat).toBeCloseTo(1, 12);
    });

    it('treats noise multiplier 0 as no noise, and refuses one that is no number', () => {
      if (setup.supported.kind !== 'gaussian' && setup.supported.kind !== 'laplace') return;
      expect(setup.create().compose({ ...setup.supported, noiseMultiplier: 0 }).epsilon(delta)).toBe(Infinity);
      expect(() => setup.create().compose({ ...setup.supported, noiseMultiplier: NaN } as DpEvent)).toThrow(FederationError);
      expect(() => setup.create().compose({ ...setup.supported, noiseMultiplier: -1 } as DpEvent)).toThrow(FederationError);
    });

    it('stays finite and never negative at delta 1e-30', () => {
      for (const tiny of [1e-30, 1e-15, 0.5]) {
        const epsilon = setup.create().compose(setup.supported, 3).epsilon(tiny as Delta);
        expect(epsilon).toBeGreaterThanOrEqual(0);
        expect(Number.isFinite(epsilon)).toBe(true);
      }
    });

    it('does not charge for the order of events', () => {
      if (setup.second === undefined) return;
      const one = setup.create().compose(setup.supported, 2).compose(setup.second).epsilon(delta);
      const other = setup.create().compose(setup.second).compose(setup.supported, 2).epsilon(delta);
      expect(one / other).toBeCloseTo(1, 12);
      expect(one).toBeGreaterThanOrEqual(setup.create().compose(setup.supported, 2).epsilon(delta) * (1 - 1e-12));
    });

    it.each([-1, 0.5, NaN, Infinity])('refuses the count %d', (count) => {
      expect(() => setup.create().compose(setup.supported, count)).toThrow(FederationError);
    });

    it.each([-1e-9, 1, NaN])('refuses the delta %d', (bad) => {
      expect(() => setup.create().epsilon(bad as Delta)).toThrow(FederationError);
    });

    it('refuses what it has no bound for, also deep inside', () => {
      if (setup.unsupported === undefined) return;
      const nested: DpEvent = { kind: 'selfComposed', event: { kind: 'composed', events: [setup.supported, setup.unsupported] }, count: 2 };
      expect(setup.create().check(nested)?.event).toEqual(setup.unsupported);
      expect(() => setup.create().compose(nested)).toThrow(expect.objectContaining({ code: 'event-unsupported' }));
    });
  });
}
