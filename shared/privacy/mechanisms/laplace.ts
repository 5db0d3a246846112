/**
 * The local Laplace mechanism on integers: every coordinate gets discrete Laplace noise of scale `scaleGrid`. Pure
 * epsilon `Delta_1 / scaleGrid` exactly (Ghosh, Roughgarden & Sundararajan 2012, per coordinate; the L1 norm sums them).
 *
 * Its sensitivity grows with rows, the Gaussian's with their square root: rarely the better choice for a matrix.
 */
import { checkShape, constrainContribution } from '../clipping.ts';
import type { LaplaceRelease } from '../release.ts';
import { checkRelease, releaseEvents } from '../release.ts';
import { sampleDiscreteLaplaces } from '../sampling/discrete-laplace.ts';
import type { PrivacyMechanism } from './mechanism.ts';
import { checkMinSurvivors } from './mechanism.ts';

export function laplaceMechanism(parameters: LaplaceRelease): PrivacyMechanism {
  checkRelease(parameters);
  return {
    parameters,
    events: releaseEvents(parameters),
    constrainSensitivity: (...predictions) => constrainContribution(predictions, parameters),
    noiseShare(shape, minSurvivors, random) {
      checkShape(shape, parameters);
      checkMinSurvivors(minSurvivors);
      return sampleDiscreteLaplaces(shape.rows * shape.columns, parameters.noise.scaleGrid, random);
    },
  };
}
