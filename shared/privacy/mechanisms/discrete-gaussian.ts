/**
 * The distributed discrete Gaussian: every client adds a SHARE of the noise, and only sums of at least `noise.shares` honest shares are ever opened
 * (Kairouz, Liu & Steinke 2021). One share alone protects next to nothing: this is for masked inputs of secure aggregation only.
 *
 * The sum of shares is not itself a discrete Gaussian; the accountant charges for the difference, which is below 1e-35 from a sigma of 3 on.
 */
import { FederationError } from '../../errors.ts';
import { checkShape, constrainContribution } from '../clipping.ts';
import type { DiscreteGaussianRelease } from '../release.ts';
import { checkRelease, releaseEvents } from '../release.ts';
import { sampleDiscreteGaussians } from '../sampling/discrete-gaussian.ts';
import type { PrivacyMechanism } from './mechanism.ts';
import { checkMinSurvivors } from './mechanism.ts';

export function discreteGaussianMechanism(parameters: DiscreteGaussianRelease): PrivacyMechanism {
  checkRelease(parameters);
  const { sigmaGrid, shares } = parameters.noise;
  return {
    parameters,
    events: releaseEvents(parameters),
    constrainSensitivity: (...predictions) => constrainContribution(predictions, parameters),
    noiseShare(shape, minSurvivors, random) {
      checkShape(shape, parameters);
      checkMinSurvivors(minSurvivors);
      if (minSurvivors < shares) {
        throw new FederationError('policy-refused', 'The release counts more noise than is certainly in a sum.', {
          field: 'release.noise.shares',
          expected: `at most the ${minSurvivors} honest survivors`,
          got: String(shares),
          next: 'The coordinator promises noise that may not be there; ask its operator.',
        });
      }
      return sampleDiscreteGaussians(shape.rows * shape.columns, sigmaGrid, random);
    },
  };
}
