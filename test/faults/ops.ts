/** What a fault test does to a federation, as plain data: a failure shrinks to a short list that can be kept and read. */

/** Which contribution a client sends, seen from the round in progress. */
export type ContributionKind =
  /** The right round and stage; the second time it is a duplicate. */
  | 'expected'
  /** Other bytes for the right round and stage. */
  | 'conflicting'
  /** The round before. */
  | 'stale'
  /** A round that was not announced. */
  | 'future'
  /** Another stage of the same round. */
  | 'otherStage';

/** Where the process dies. `effects`: how many effects of the event were still performed. */
export type CrashPoint = { readonly at: 'beforeJournal' } | { readonly at: 'afterJournal'; readonly effects: number };

export type Op =
  | { readonly op: 'connect' | 'disconnect' | 'leave'; readonly client: number }
  | { readonly op: 'connectAll' }
  | { readonly op: 'contribute'; readonly client: number; readonly kind: ContributionKind }
  /** Judged now, stored `delayMs` later: the round may have moved on. */
  | { readonly op: 'contributeSlowly'; readonly client: number; readonly delayMs: number }
  /** Every connected client sends what is expected of it. */
  | { readonly op: 'contributeAll' }
  | { readonly op: 'decline'; readonly client: number; readonly roundOffset: number }
  | { readonly op: 'advance'; readonly ms: number }
  /** The wall clock is set; timers run on. */
  | { readonly op: 'setWall'; readonly byMs: number }
  /** `twice`: it dies again while it restarts. */
  | { readonly op: 'crash'; readonly downtimeMs: number; readonly twice: boolean }
  /** The process dies at the next event. */
  | { readonly op: 'crashAtNextEvent'; readonly point: CrashPoint; readonly downtimeMs: number }
  /** A timer that nobody is waiting for any more, or that is early. */
  | { readonly op: 'strayStageTimer'; readonly roundOffset: number; readonly stage: number }
  | { readonly op: 'strayGraceTimer'; readonly client: number }
  /** A report of work that was begun before a crash, or for a round that is over. */
  | { readonly op: 'strayReport'; readonly report: 'round-opened' | 'round-aggregated' | 'round-failed'; readonly roundOffset: number };

/** How one piece of the coordinator's own work (opening a round, aggregating) goes. */
export interface Work {
  readonly delayMs: number;
  readonly fails: boolean;
  readonly accuracy: number | null;
}
