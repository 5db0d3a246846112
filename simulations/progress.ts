/** How far a simulation is, for its terminal: a line every few seconds, from the events that it writes anyway. */
import type { RunEvent } from '../shared/ports/event-sink.ts';

export interface ProgressOptions {
  /** Rounds that the task plans. */
  readonly rounds: number;
  /** Real time in milliseconds, from any start. */
  readonly now: () => number;
  readonly say: (line: string) => void;
  /** At most one line in so many milliseconds; default 5000. */
  readonly everyMs?: number;
}

const doing: Readonly<Record<string, string>> = { contribution: 'trained and sent', advertiseKeys: 'trained', shareKeys: 'shared keys', maskedInput: 'sent masked inputs', consistencyCheck: 'agreed', unmask: 'unmasked' };

export class Progress {
  readonly #options: Required<ProgressOptions>;
  #lastLine: number;
  /** When the round before this one ended, and how long it took; rounds after the first have no pretraining. */
  #roundBegan: number;
  #roundMs: number | undefined;
  #round = 0;
  #released = 0;
  #cohort = 0;
  #joined = 0;
  #stage = '';
  #done = 0;
  #epsilon: unknown;

  constructor(options: ProgressOptions) {
    this.#options = { everyMs: 5000, ...options };
    this.#lastLine = this.#roundBegan = options.now();
  }

  /** To be told every event. */
  see(event: RunEvent): void {
    const { event: name, party } = event;
    if (name === 'charged' || name === 'contributed') this.#epsilon = event['epsilonSpent'] ?? this.#epsilon;
    if (party === 'coordinator') this.#seeCoordinator(event);
    const now = this.#options.now();
    if (now - this.#lastLine < this.#options.everyMs) return;
    this.#lastLine = now;
    this.#options.say(this.#line(now));
  }

  #seeCoordinator(event: RunEvent): void {
    const now = this.#options.now();
    switch (event.event) {
      case 'client-joined':
        this.#joined++;
        break;
      case 'round-opened':
        this.#round = Number(event['round']);
        this.#cohort = Number(event['cohort']);
        this.#done = 0;
        this.#stage = '';
        this.#roundBegan = now;
        break;
      case 'contribution':
        this.#stage = String(event['stage']);
        this.#done = Number(event['contributions']);
        break;
      case 'round-aggregated':
        this.#released++;
        this.#roundMs = now - this.#roundBegan;
        break;
      default:
    }
  }

  #line(now: number): string {
    const { rounds } = this.#options;
    if (this.#round === 0) return `${this.#joined} clients have joined`;
    const parts = [`round ${this.#round} (${this.#released} of ${rounds} released)`, this.#stage === '' ? `${this.#cohort} clients train` : `${this.#done} of ${this.#cohort} clients have ${doing[this.#stage] ?? `finished ${this.#stage}`}`];
    if (typeof this.#epsilon === 'number') parts.push(`epsilon ${this.#epsilon.toFixed(2)} spent`);
    if (this.#roundMs !== undefined) {
      const left = Math.max(0, this.#roundMs * (rounds - this.#released) - (now - this.#roundBegan));
      parts.push(`about ${duration(left)} left`);
    }
    return parts.join(', ');
  }
}

function duration(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  return seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}
