/** Checks the reference group `secagg-graph`: degree and threshold of the neighbor graph, exactly. */
import type { GroupChecker } from '../privacy/golden-verify.ts';
import { numberParameter } from '../privacy/golden-verify.ts';
import { findGraphParameters } from './graph.ts';

export const graphChecker: GroupChecker = (item, checks) => {
  const adversary = item.params['adversary'];
  if (adversary !== 'curious' && adversary !== 'semi_malicious') throw new Error(`params.adversary expected curious or semi_malicious, got ${JSON.stringify(adversary)}`);
  const found = findGraphParameters({
    clients: numberParameter(item, 'n'),
    corruptRate: numberParameter(item, 'adversarial_rate'),
    dropoutRate: numberParameter(item, 'dropout_rate'),
    adversary: adversary === 'curious' ? 'curious' : 'semiMalicious',
    securityBits: numberParameter(item, 'security_bits'),
    correctnessBits: numberParameter(item, 'correctness_bits'),
  });
  checks.equal('degree', () => found.degree);
  checks.equal('own_port_degree', () => found.degree);
  checks.equal('threshold', () => found.threshold);
  checks.equal('own_port_threshold', () => found.threshold);
  checks.notAbove('threshold_max', () => found.threshold, 0);
};
