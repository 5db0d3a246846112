/** Runs the baseline that a scenario names. Simulation only: weights or records move, nothing is protected, nothing is claimed. */
import { setMaxListeners } from 'node:events';
import { unreachable } from '../../shared/errors.ts';
import type { Outcome } from '../outcome.ts';
import type { BaselineConfig } from './algorithm.ts';
import { runCentralized } from './centralized.ts';
import { runFedAvg } from './fed-avg.ts';
import { runFedKt } from './fed-kt.ts';
import { runLocalOnly } from './local-only.ts';
import { runPate } from './pate.ts';
import type { BaselineOptions } from './setting.ts';

export async function runBaseline(algorithm: BaselineConfig, options: BaselineOptions): Promise<Outcome> {
  if (options.signal !== undefined) setMaxListeners(0, options.signal); // every training listens to it
  switch (algorithm.kind) {
    case 'centralized':
      return runCentralized(algorithm, options);
    case 'localOnly':
      return runLocalOnly(algorithm, options);
    case 'fedAvg':
    case 'fedDf':
      return runFedAvg(algorithm, options);
    case 'fedKt':
      return runFedKt(algorithm, options);
    case 'pate':
      return runPate(algorithm, options);
    default:
      return unreachable(algorithm);
  }
}

/** What a baseline moves and claims, in one sentence for the user. */
export function baselineNotice(kind: BaselineConfig['kind']): string {
  const moved: Record<BaselineConfig['kind'], string> = {
    centralized: 'the records of all clients would move',
    localOnly: 'nothing would move',
    fedAvg: 'the weights of all clients would move',
    fedDf: 'the weights of all clients would move',
    fedKt: 'class ids of students without noise would move',
    pate: 'the records of all clients would move',
  };
  return `The algorithm ${kind} is a baseline and exists in simulations only: ${moved[kind]}, nothing is protected and nothing is claimed.`;
}
