/**
 * The session of the moment, for work that outlives connections: who needs the coordinator waits here until there is one, and repeats
 * what was lost with a connection.
 */
import type { Clock } from '../../shared/ports/clock.ts';
import { sleep } from '../../shared/ports/clock.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import type { CoordinatorConnection } from '../../shared/ports/transport.ts';
import { backoffMs } from './backoff.ts';
import { isBusy, isConnectionLost } from './faults.ts';

/** A connection after `join`. */
export interface Session {
  readonly connection: CoordinatorConnection;
  /** The bearer token for frames. */
  readonly token: string;
  /** Closes the connection, as if it had been lost. */
  abandon(reason: string): void;
}

/** Attempts on a coordinator that answers, but not with what was asked for, before the error is passed on. */
const maxBusyAttempts = 30;

export class SessionSlot {
  readonly #clock: Clock;
  readonly #random: RandomSource;
  readonly #waiting = new Set<{ resolve(session: Session): void; reject(error: unknown): void }>();
  #current: Session | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(clock: Clock, random: RandomSource) {
    this.#clock = clock;
    this.#random = random;
  }

  get current(): Session | undefined {
    return this.#current;
  }

  set(session: Session): void {
    this.#current = session;
    for (const waiter of [...this.#waiting]) waiter.resolve(session);
  }

  /** Forgets a session that is gone; a newer one stays. */
  clear(session: Session): void {
    if (this.#current === session) this.#current = undefined;
  }

  /** There will be no session any more. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#current = undefined;
    for (const waiter of [...this.#waiting]) waiter.reject(error);
  }

  /** Runs `work` with a session, again with the next one when the connection is lost meanwhile. `work` must not mind to be repeated. */
  async use<T>(signal: AbortSignal, work: (session: Session) => Promise<T>): Promise<T> {
    let busyAttempts = 0;
    for (;;) {
      const session = await this.#next(signal);
      try {
        return await work(session);
      } catch (error) {
        signal.throwIfAborted();
        if (isConnectionLost(error)) {
          session.abandon(error.message);
          this.clear(session);
        } else if (isBusy(error) && ++busyAttempts < maxBusyAttempts) {
          await sleep(this.#clock, backoffMs(busyAttempts - 1, this.#random), signal);
        } else {
          throw error;
        }
      }
    }
  }

  #next(signal: AbortSignal): Promise<Session> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.#current !== undefined) {
        resolve(this.#current);
        return;
      }
      const settle = () => {
        this.#waiting.delete(waiter);
        signal.removeEventListener('abort', onAbort);
      };
      const waiter = {
        resolve: (session: Session) => {
          settle();
          resolve(session);
        },
        reject: (error: unknown) => {
          settle();
          reject(error instanceof Error ? error : new Error(String(error)));
        },
      };
      const onAbort = () => waiter.reject(signal.reason);
      this.#waiting.add(waiter);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}
