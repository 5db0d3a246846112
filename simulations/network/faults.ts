/** Clients that vanish in the middle of a round, and slow ones: seeded, in virtual time (docs/simulate.md, `faults`). */
import { deriveSeed, SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import type { Network } from './memory-transport.ts';

export interface FaultPlan {
  /** Share of all clients that vanishes in each round. */
  readonly dropoutRate: number;
  /** How long a client that vanished cannot reach the coordinator, in virtual milliseconds. */
  readonly awayMs: number;
  /** This share of the clients takes `factor` times as long for everything, in every round. */
  readonly stragglers: { readonly share: number; readonly factor: number };
}

/** How many of so many clients vanish in a round. */
export function dropoutCount(dropoutRate: number, clients: number): number {
  return Math.round(dropoutRate * clients);
}

/** Who does what, the same for every order of events: drawn from the seed, the round and the client alone. */
export class Faults {
  readonly #plan: FaultPlan;
  readonly #clients: number;
  readonly #stages: readonly string[];
  readonly #seed: number;
  readonly #slow: ReadonlySet<number>;
  /** By round: the stage in which a client vanishes. */
  readonly #dropouts = new Map<number, ReadonlyMap<number, string>>();

  /** `stages`: those of a round, in order. */
  constructor(plan: FaultPlan, clients: number, stages: readonly string[], seed: number) {
    this.#plan = plan;
    this.#clients = clients;
    this.#stages = stages;
    this.#seed = seed;
    this.#slow = new Set(this.#draw(Math.round(plan.stragglers.share * clients), 'stragglers'));
  }

  /** How much slower than others of its group a client is; `client`: its index, from 0. */
  slowness(client: number): number {
    return this.#slow.has(client) ? this.#plan.stragglers.factor : 1;
  }

  /** The clients that vanish in a round, and the stage whose message they do not get away any more. */
  dropouts(round: number): ReadonlyMap<number, string> {
    let found = this.#dropouts.get(round);
    if (found === undefined) {
      const chosen = this.#draw(dropoutCount(this.#plan.dropoutRate, this.#clients), 'dropouts', round);
      const generator = new SeededGenerator(deriveSeed(this.#seed, 'dropout-stages', round));
      found = new Map(chosen.map((client) => [client, this.#stages[Math.floor(generator.uniform() * this.#stages.length)]!]));
      this.#dropouts.set(round, found);
    }
    return found;
  }

  /** A client's network: its own, until it vanishes. `vanished`: told when it does. */
  network(client: number, through: Network, vanished: (round: number, stage: string) => void = () => undefined): Network {
    let last = 0;
    const slowness = this.slowness(client);
    return (message) => {
      const fate = through(message);
      const delayMs = fate.delayMs * slowness;
      const { begins } = message;
      if (begins === undefined || begins.round <= last || this.dropouts(begins.round).get(client) !== begins.stage) return { ...fate, delayMs };
      last = begins.round; // once a round, however often it tries to send this message
      vanished(begins.round, begins.stage);
      return { delayMs, breaksConnection: true, awayMs: this.#plan.awayMs };
    };
  }

  #draw(count: number, ...purpose: [string, ...number[]]): number[] {
    return count === 0 ? [] : [...new SeededGenerator(deriveSeed(this.#seed, ...purpose)).permutation(this.#clients).slice(0, count)];
  }
}
