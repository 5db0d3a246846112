/**
 * Putting a secret together when some shares may be wrong. Shares carry no proof of their own; the secret does (a commitment, or a public
 * key). First the first `threshold` shares, then a decoder that finds as many wrong shares as half of those to spare, without and with the clients that were caught on an earlier secret. Since the
 * secret proves itself, more can be found than any decoder could: at last, a bounded search for one or two wrong shares among few.
 */
import { equalBytes } from '../types/bytes.ts';
import { combineShares, lagrangeWeights } from './shamir.ts';
import { decodeWithErrors } from './share-decoding.ts';

export interface PositionedShare {
  readonly holder: number;
  /** In [1, 255]. */
  readonly position: number;
  readonly share: Uint8Array;
}

/** Sets tried before a secret counts as lost: at most a few seconds. */
const MAX_ATTEMPTS = 2000;

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
  if (ordered.length < threshold) return undefined;
  const first = ordered.slice(0, threshold);
  const secret = combineShares(first.map(({ share }) => share), weightsFor(first.map(({ position }) => position), weights));
  if (isRight(secret)) return secret;

  const trusted = ordered.filter(({ holder }) => !suspects.has(holder));
  for (const candidates of trusted.length < ordered.length ? [trusted, ordered] : [ordered]) {
    const decoded = decodeWithErrors(candidates.map(({ share }) => share), candidates.map(({ position }) => position), threshold);
    if (decoded === undefined || !isRight(decoded.secret)) continue;
    for (const place of decoded.wrong) suspects.add(candidates[place]!.holder);
    return decoded.secret;
  }

  let attempts = 0;
  for (const chosen of candidateSets(ordered, threshold)) {
    if (attempts++ >= MAX_ATTEMPTS) return undefined;
    const found = combineShares(chosen.map(({ share }) => share), lagrangeWeights(chosen.map(({ position }) => position)));
    if (!isRight(found)) continue;
    for (const liar of liarsAmong(ordered, chosen)) suspects.add(liar);
    return found;
  }
  return undefined;
}

function weightsFor(positions: readonly number[], known: Map<string, readonly number[]>): readonly number[] {
  const name = positions.join();
  let weights = known.get(name);
  if (weights === undefined) known.set(name, (weights = lagrangeWeights(positions)));
  return weights;
}

/** The first `threshold` shares without one, then without two of them, in every way. */
function* candidateSets(shares: readonly PositionedShare[], threshold: number): Generator<readonly PositionedShare[]> {
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
