/**
 * Clipping and grid without noise: for baselines and ablations, with NO differential privacy (epsilon is infinite), and for `dpSgd`, whose noise is in the weights
 * that predict.
 */
import { checkShape, constrainContribution } from '../clipping.ts';
import type { NoiselessRelease, PrivateTrainingRelease } from '../release.ts';
import { checkRelease, releaseEvents } from '../release.ts';
import type { PrivacyMechanism } from './mechanism.ts';
import { checkMinSurvivors } from './mechanism.ts';

export function noMechanism(parameters: NoiselessRelease | PrivateTrainingRelease): PrivacyMechanism {
  checkRelease(parameters);
  return {
    parameters,
    events: releaseEvents(parameters),
    constrainSensitivity: (...predictions) => constrainContribution(predictions, parameters),
    noiseShare(shape, minSurvivors) {
      checkShape(shape, parameters);
      checkMinSurvivors(minSurvivors);
      return new Int32Array(shape.rows * shape.columns);
    },
  };
}
