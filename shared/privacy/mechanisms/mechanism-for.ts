/** From the parameters in a signed manifest to the mechanism that carries them out. */
import { unreachable } from '../../errors.ts';
import type { ReleaseParameters } from '../release.ts';
import { discreteGaussianMechanism } from './discrete-gaussian.ts';
import { gaussianMechanism } from './gaussian.ts';
import { laplaceMechanism } from './laplace.ts';
import type { PrivacyMechanism } from './mechanism.ts';
import { noMechanism } from './none.ts';

/** Throws `config-invalid` when the release could overflow. */
export function mechanismFor(parameters: ReleaseParameters): PrivacyMechanism {
  switch (parameters.mechanism) {
    case 'none':
    case 'dpSgd':
      return noMechanism(parameters);
    case 'gaussian':
      return gaussianMechanism(parameters);
    case 'laplace':
      return laplaceMechanism(parameters);
    case 'discreteGaussian':
      return discreteGaussianMechanism(parameters);
    default:
      return unreachable(parameters);
  }
}
