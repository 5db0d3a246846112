/**
 * Where a client computes its part of one round of secure aggregation: in its own thread, or, when many clients live in one process (simulations), in another. The same functions
 * and the same order of calls either way: `SecureRound` refuses any other.
 */
import type { ParticipantPolicy, RoundContext } from '../../shared/secure-aggregation/parameters.ts';
import type { ParticipantTools } from '../../shared/secure-aggregation/participant.ts';
import { SecureRound } from '../../shared/secure-aggregation/participant-round.ts';
import { contributionGrid, type GridRequest } from './contribution.ts';

type Awaitable<T> = T | Promise<T>;

/** The steps of `SecureRound`, and the integers that it masks. */
export interface SecureExchange {
  advertiseKeys(): Awaitable<Uint8Array>;
  shareKeys(roster: Uint8Array): Awaitable<Uint8Array>;
  /** `contributionGrid`: draws fresh noise. */
  contribution(request: Omit<GridRequest, 'random'>): Awaitable<Int32Array>;
  maskInput(delivery: Uint8Array, input: Int32Array): Awaitable<Uint8Array>;
  signSurvivors(survivors: Uint8Array): Awaitable<Uint8Array>;
  unmask(signatures: Uint8Array): Awaitable<Uint8Array>;
  leave(): void;
}

export type OpenExchange = (context: RoundContext, policy: ParticipantPolicy, tools: ParticipantTools) => SecureExchange;

/** In this thread, at once. */
export const exchangeHere: OpenExchange = (context, policy, tools) => {
  const round = new SecureRound(context, policy, tools);
  return {
    advertiseKeys: () => round.advertiseKeys(),
    shareKeys: (roster) => round.shareKeys(roster),
    contribution: (request) => contributionGrid({ ...request, random: tools.random }),
    maskInput: (delivery, input) => round.maskInput(delivery, input),
    signSurvivors: (survivors) => round.signSurvivors(survivors),
    unmask: (signatures) => round.unmask(signatures),
    leave: () => round.leave(),
  };
};
