/**
 * The local Gaussian mechanism on integers: every coordinate gets `round(N(0, sigmaGrid^2))`. Because the data are
 * integers, `g + round(N) = round(g + N)`: a function of the continuous Gaussian mechanism's output, so that mechanism's
 * exact accounting holds (docs/privacy-model.md, section 4).
 *
 * Protects the values of the matrix, one release at a time. Not who sent it, when, or how long the sampling took.
 */
import { checkShape, constrainContribution } from '../clipping.ts';
import type { GaussianRelease } from '../release.ts';
import { checkRelease, releaseEvents } from '../release.ts';
import { sampleRoundedGaussians } from '../sampling/rounded-gaussian.ts';
import type { PrivacyMechanism } from './mechanism.ts';
import { checkMinSurvivors } from './mechanism.ts';

export function gaussianMechanism(parameters: GaussianRelease): PrivacyMechanism {
  checkRelease(parameters);
  return {
    parameters,
    events: releaseEvents(parameters),
    constrainSensitivity: (...predictions) => constrainContribution(predictions, parameters),
    noiseShare(shape, minSurvivors, random) {
      checkShape(shape, parameters);
      checkMinSurvivors(minSurvivors);
      return sampleRoundedGaussians(shape.rows * shape.columns, parameters.noise.sigmaGrid, random);
    },
  };
}
