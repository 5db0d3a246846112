/**
 * Calibration: the smallest parameter for which an accountant says that a target is met. A search over the accountant that also
 * accounts for the run, with no formula of its own, so planning and accounting can't disagree.
 *
 * One-sided: the answer is a value at which the bound was computed and held.
 */
import { FederationError } from '../../errors.ts';
import type { Delta } from '../../types/units.ts';
import type { DpEvent } from '../dp-event.ts';
import type { PrivacyAccountant } from './accountant.ts';
import { checkDelta } from './accountant.ts';

export interface CalibrationRequest {
  /** An accountant that has seen nothing, or what was already released. */
  readonly accountant: PrivacyAccountant;
  /** The run at this parameter. Epsilon must fall as the parameter grows. */
  readonly event: (parameter: number) => DpEvent;
  readonly epsilon: number;
  readonly delta: number;
  /** Where to search: both ends > 0. Default 1e-3 to 1e9. */
  readonly range?: readonly [low: number, high: number];
  /** Relative width at which the search ends. Default 1e-6. */
  readonly tolerance?: number;
}

/** The smallest parameter (a noise multiplier, say) that meets the target, up to the tolerance, never below. */
export function calibrateParameter(request: CalibrationRequest): number {
  const { accountant, event, epsilon, delta } = request;
  checkDelta(delta);
  if (!(epsilon > 0)) throw new FederationError('config-invalid', 'a target epsilon is needed', { field: 'epsilon', expected: 'a number > 0', got: String(epsilon), next: 'Choose a target epsilon, e.g. 2.' });
  const [low, high] = request.range ?? [1e-3, 1e9];
  const tolerance = request.tolerance ?? 1e-6;
  /** `ln(epsilon / target)`: at most 0 where the target is met. NaN never is. */
  const excess = (parameter: number) => {
    const reached = accountant.compose(event(parameter)).epsilon(delta as Delta);
    return reached <= epsilon ? Math.min(0, Math.log(reached / epsilon)) : Math.max(Number.MIN_VALUE, Math.log(reached / epsilon));
  };
  // Outward from 1, by factors: the ends of the range can be as slow as they are unlikely.
  let parameter = Math.min(high, Math.max(low, 1));
  let at = excess(parameter);
  let [tooSmall, atTooSmall] = [parameter, at];
  while (!(at <= 0)) {
    if (parameter >= high) {
      throw new FederationError('config-invalid', 'no noise within the searched range meets the target', {
        field: 'epsilon',
        expected: `an epsilon that a parameter up to ${high} reaches`,
        got: String(epsilon),
        next: 'Raise epsilon or delta, or release less: fewer rounds, fewer rows.',
      });
    }
    [tooSmall, atTooSmall] = [parameter, at];
    parameter = Math.min(high, parameter * 2);
    at = excess(parameter);
  }
  let [enough, atEnough] = [parameter, at];
  while (!(atTooSmall > 0)) {
    [enough, atEnough] = [tooSmall, atTooSmall];
    if (tooSmall <= low) return enough;
    tooSmall = Math.max(low, tooSmall / 2);
    atTooSmall = excess(tooSmall);
  }
  // Epsilon falls nearly like a power of the noise, so the chord of the logarithms hits close; a nudge past it, alternately to either
  // side, closes the bracket, and every third step halves it whatever the curve.
  for (let step = 0; step < 300 && enough - tooSmall > tolerance * enough; step++) {
    const [left, right] = [Math.log(tooSmall), Math.log(enough)];
    const isChordUsable = Number.isFinite(atTooSmall) && Number.isFinite(atEnough) && step % 3 !== 2;
    const chord = left + ((right - left) * atTooSmall) / (atTooSmall - atEnough);
    const nudged = chord + (step % 3 === 0 ? 0.4 : -0.4) * tolerance;
    const middle = Math.exp(isChordUsable && nudged > left && nudged < right ? nudged : (left + right) / 2);
    if (!(middle > tooSmall && middle < enough)) break;
    const atMiddle = excess(middle);
    if (atMiddle <= 0) [enough, atEnough] = [middle, atMiddle];
    else [tooSmall, atTooSmall] = [middle, atMiddle];
  }
  return enough;
}
