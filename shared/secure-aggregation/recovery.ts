/**
 * Putting a secret together when some shares may be wrong. Shares carry no proof of their own; the secret does (a commitment, or a public
 * key), so sets of `threshold` shares are tried until one fits. The search is bounded: with as many shares to spare it finds any single wrong share,
 * any two up to a threshold of 98, and any number from clients that were caught on an earlier secret.
 */
import { equalBytes } from '../types/bytes.ts';
import { combineShares, lagrangeWeights } from './shamir.ts';

export interface PositionedShare {
  readonly holder: number;
  /** In [1, 255]. */
  readonly position: number;
  readonly share: Uint8Array;
}

/** Sets tried before a secret counts as lost. */
const MAX_ATTEMPTS = 5000;

/**
 * The secret that `isRight` recognizes, or `undefined`. Holders of shares that don't lie on its polynomial are added to `suspects`; known suspects are asked
 * last. `weights` keeps the Lagrange weights of first attempts between calls: in the complete graph all owners have the same.
 */
export function recoverSecret(
  shares: readonly PositionedShare[],
  threshold: number,
  isRight: (secret: Uint8Array) => boolean,
  suspects: Set<number>,
  weights: Map<string, readonly number[]>,
): Uint8Array | undefined {
  const ordered = [...shares].sort((a, b) => Number(suspects.has(a.holder)) - Number(suspects.has(b.holder)));
  let attempts = 0;
  let isFirst = true;
  for (const chosen of candidateSets(ordered, threshold)) {
    if (attempts++ >= MAX_ATTEMPTS) return undefined;
    const positions = chosen.map(({ position }) => position);
    const secret = combineShares(chosen.map(({ share }) => share), isFirst ? weightsFor(positions, weights) : lagrangeWeights(positions));
    if (isRight(secret)) {
      // The polynomial is only worth evaluating where something was wrong.
      if (!isFirst) for (const liar of liarsAmong(ordered, chosen)) suspects.add(liar);
      return secret;
    }
    isFirst = false;
  }
  return undefined;
}

function weightsFor(positions: readonly number[], known: Map<string, readonly number[]>): readonly number[] {
  const name = positions.join();
  let weights = known.get(name);
  if (weights === undefined) known.set(name, (weights = lagrangeWeights(positions)));
  return weights;
}

/** The first `threshold` shares, then the first without one of them, then without two, in every way. */
function* candidateSets(shares: readonly PositionedShare[], threshold: number): Generator<readonly PositionedShare[]> {
  yield shares.slice(0, threshold);
  const spare = shares.length - threshold;
  const without = (...left: readonly number[]) => shares.filter((_, i) => !left.includes(i)).slice(0, threshold);
  if (spare >= 1) for (let i = 0; i < threshold; i++) yield without(i);
  if (spare >= 2) for (let i = 0; i < threshold; i++) for (let j = i + 1; j <= threshold; j++) yield without(i, j);
}

function liarsAmong(shares: readonly PositionedShare[], right: readonly PositionedShare[]): number[] {
  const positions = right.map(({ position }) => position);
  const values = right.map(({ share }) => share);
  const isUsed = new Set(positions);
  return shares.filter(({ position, share }) => !isUsed.has(position) && !equalBytes(combineShares(values, lagrangeWeights(positions, position)), share)).map(({ holder }) => holder);
}
