/**
 * Degree and threshold of the neighbor graph for secure aggregation: how many neighbors a client shares its secrets with, and how
 * many of them it takes to reconstruct one.
 *
 * Bell, Bonawitz, Gascon, Lepoint & Raykova 2020 (*Secure single-server aggregation with (poly)logarithmic overhead*), with the
 * bounds that Google's federated-compute uses for a Harary graph on a random ring; written from the bounds, and compared with
 * the values of its unit test. Statistical: holds except with probability `2^-securityBits`, for rosters that the server did not
 * choose. A server that can try many rosters gets that many attempts: add their logarithm to the security bits.
 */
import { FederationError } from '../errors.ts';
import { LogSum, logBinomial, logGamma } from '../privacy/accountants/log-space.ts';

export type GraphAdversary =
  /** Follows the protocol, and colludes with the corrupt clients. */
  | 'curious'
  /** May also tell different clients different things about who dropped out. */
  | 'semiMalicious';

export interface GraphRequirements {
  readonly clients: number;
  /** Share of clients that collude with the server, in [0, 1). */
  readonly corruptRate: number;
  /** Share of clients that may drop out, in [0, 1). */
  readonly dropoutRate: number;
  readonly adversary: GraphAdversary;
  /** Default 40. */
  readonly securityBits?: number;
  /** The round fails for lack of shares with probability at most `2^-correctnessBits`. Default 20. */
  readonly correctnessBits?: number;
}

export interface GraphParameters {
  /** Neighbors of each client, even; the client itself is not counted. */
  readonly degree: number;
  /** Shares that reconstruct a secret. */
  readonly threshold: number;
}

const MAX_CLIENTS = 1_000_000;
/** Keeps `0.1 * 30 = 3.0000000000000004` from counting as a fourth client, or a third from getting lost. */
const RATE_SLACK = 1e-14;

/** The smallest degree that is secure and correct, with its threshold. Throws `config-invalid` when there is none. */
export function findGraphParameters(requirements: GraphRequirements): GraphParameters {
  checkRequirements(requirements);
  for (let degree = 2; degree < requirements.clients - 1; degree += 2) {
    const threshold = findThreshold(requirements, degree);
    if (threshold !== undefined) return { degree, threshold };
  }
  throw new FederationError('config-invalid', 'no neighbor graph meets the requirements', {
    field: 'clients',
    expected: 'more clients, or fewer corrupt ones and dropouts',
    got: `${requirements.clients} clients, ${requirements.corruptRate} corrupt, ${requirements.dropoutRate} dropping out`,
    next: 'Use the complete graph (every client is a neighbor of every other).',
  });
}

function checkRequirements({ clients, corruptRate, dropoutRate, adversary }: GraphRequirements): void {
  if (!Number.isSafeInteger(clients) || clients < 1 || clients > MAX_CLIENTS) throw invalid('clients', `a whole number from 1 to ${MAX_CLIENTS}`, clients);
  if (!(corruptRate >= 0 && corruptRate < 1)) throw invalid('corruptRate', 'a number in [0, 1)', corruptRate);
  if (!(dropoutRate >= 0 && dropoutRate < 1)) throw invalid('dropoutRate', 'a number in [0, 1)', dropoutRate);
  const load = corruptRate + (adversary === 'semiMalicious' ? 2 : 1) * dropoutRate;
  if (load > 0.9) throw invalid(adversary === 'semiMalicious' ? 'corruptRate + 2 dropoutRate' : 'corruptRate + dropoutRate', 'at most 0.9', load);
}

function invalid(field: string, expected: string, got: number): FederationError {
  return new FederationError('config-invalid', 'the requirements for a neighbor graph are not usable', { field, expected, got: String(got), next: 'Correct the value.' });
}

function findThreshold(requirements: GraphRequirements, degree: number): number | undefined {
  const { clients, corruptRate, dropoutRate, adversary } = requirements;
  // Two bad events share the security budget: a disconnected graph, and too many corrupt neighbors.
  const logSecurity = -((requirements.securityBits ?? 40) + 1) * Math.LN2;
  const logCorrectness = -(requirements.correctnessBits ?? 20) * Math.LN2;
  const corrupt = Math.floor((corruptRate + RATE_SLACK) * clients);
  const dropouts = Math.floor((dropoutRate + RATE_SLACK) * clients);
  if (logDisconnected(clients, degree, corrupt + dropouts) >= logSecurity) return undefined;

  // Union bounds over clients: more than `mostCorrupt` corrupt neighbors, or fewer than `fewestSurvivors` surviving ones, are too unlikely.
  const surviving = Math.ceil((1 - dropoutRate - RATE_SLACK) * clients);
  const mostCorrupt = smallestWithTailBelow(clients, corrupt, degree, logSecurity - Math.log(clients));
  const fewestSurvivors = largestWithHeadBelow(clients, surviving, degree, logCorrectness - Math.log(clients));
  // Against lies about dropouts, two disjoint sets of answers must not both reach the threshold: 2t > degree + corrupt neighbors.
  const below = adversary === 'semiMalicious' ? Math.ceil((mostCorrupt + degree - 1.25) / 2) : mostCorrupt;
  return fewestSurvivors > below ? Math.max(below + 1, 2) : undefined;
}

/**
 * `ln` of a bound of the probability that removing `bad` random clients disconnects a ring in which everybody knows the `degree/2`
 * next ones on either side: that takes two gaps of `degree/2` in a row, at one of `n (n - degree - 1) / 2` pairs of places.
 */
function logDisconnected(clients: number, degree: number, bad: number): number {
  if (degree > bad) return -Infinity;
  const logPairs = Math.log(clients) + Math.log(clients - degree - 1) - Math.LN2;
  return logPairs + logGamma(bad + 1) + logGamma(clients - degree + 1) - logGamma(clients + 1) - logGamma(bad - degree + 1);
}

/** `ln Pr[X = x]` for X marked ones among `drawn` of `total`, of which `marked` are. */
function logHypergeometric(total: number, marked: number, drawn: number, x: number): number {
  if (x < 0 || x > drawn || x > marked || drawn - x > total - marked) return -Infinity;
  return logBinomial(marked, x) + logBinomial(total - marked, drawn - x) - logBinomial(total, drawn);
}

/** The smallest t with `Pr[X > t] < e^logBound`. */
function smallestWithTailBelow(total: number, marked: number, drawn: number, logBound: number): number {
  const sum = new LogSum();
  for (let x = drawn; x >= 0; x--) {
    sum.add(logHypergeometric(total, marked, drawn, x));
    if (sum.log >= logBound) return x;
  }
  return -1;
}

/** The largest t with `Pr[X < t] < e^logBound`: at least t, but for that probability. */
function largestWithHeadBelow(total: number, marked: number, drawn: number, logBound: number): number {
  const sum = new LogSum();
  for (let x = 0; x <= drawn; x++) {
    sum.add(logHypergeometric(total, marked, drawn, x));
    if (sum.log >= logBound) return x;
  }
  return drawn + 1;
}
