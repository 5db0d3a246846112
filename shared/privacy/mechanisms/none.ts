/** Clipping and grid without noise: for baselines and ablations. Gives NO differential privacy: epsilon is infinite. */
import { checkShape, constrainContribution } from '../clipping.ts';
import type { NoiselessRelease } from '../release.ts';
import { checkRelease, releaseEvents } from '../release.ts';
import type { PrivacyMechanism } from './mechanism.ts';
import { checkMinSurvivors } from './mechanism.ts';

export function noMechanism(parameters: NoiselessRelease): PrivacyMechanism {
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
