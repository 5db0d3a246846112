/** What a terminal shows of an experiment that runs: a line for each point that ends, and now and then one about those that have not. */
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { duration, percentSign } from '../report/format.ts';
import type { Point } from './points.ts';
import { isSuccess, type PointResult } from './result.ts';
import { meanOf } from './results-csv.ts';
import { statedEpsilon } from './stated-epsilon.ts';
import { describePoint, EPSILON_CAPTION, tellingPaths } from './summary-table.ts';

/** Without anything to say for this long, what is under way is said. */
const SILENCE_MS = 30_000;

export class ExperimentProgress {
  readonly #points: readonly Point[];
  readonly #paths: readonly string[];
  readonly #say: (line: string) => void;
  readonly #notes: string[] = [];
  /** Points under way, and how far each is. */
  readonly #underWay = new Map<number, string>();
  #timer: NodeJS.Timeout | undefined;
  #startedAt = 0;
  #pending = 0;
  #settled = 0;
  #found = 0;

  constructor(points: readonly Point[], say: (line: string) => void) {
    this.#points = points;
    this.#paths = tellingPaths(points);
    this.#say = say;
  }

  /** An event of `runExperiment`. */
  tell(event: RunEvent): void {
    const index = Number(event['index']);
    switch (event.event) {
      case 'experiment-started':
        this.#startedAt = performance.now();
        this.#pending = Number(event['pending']);
        this.#found = Number(event['found']);
        this.#line(`${this.#points.length} points: ${this.#found} have a result, ${this.#pending} to run, ${String(event['workers'])} at a time, engine ${String(event['engine'])}`);
        this.#line(EPSILON_CAPTION);
        break;
      case 'point-started':
        this.#underWay.set(index, 'begun');
        break;
      case 'point-round':
        this.#underWay.set(index, `round ${String(event['round'])}/${String(event['rounds'])}${typeof event['accuracy'] === 'number' ? ` at ${percentSign(event['accuracy'])}` : ''}`);
        break;
      case 'point-died':
        this.#line(`point ${index} (${describePoint(this.#points[index]!, this.#paths)}): its process ended without a result (${String(event['how'])}); it is started once more`);
        break;
      default:
    }
  }

  /** A point that was settled just now. */
  note(result: PointResult, seconds: number): void {
    this.#underWay.delete(result.index);
    this.#settled++;
    const left = this.#pending - this.#settled;
    const remaining = left === 0 ? '' : `; about ${duration(((performance.now() - this.#startedAt) / 1000 / this.#settled) * left)} left`;
    const head = `[${this.#found + this.#settled}/${this.#found + this.#pending}] ${describePoint(result, this.#paths)}: `;
    if (!isSuccess(result)) {
      this.#line(`${head}failed: ${result.error.message} (${result.error.code})${remaining}`);
      return;
    }
    const { final, clients, statement } = result.outcome;
    const { cell, note } = statedEpsilon(statement);
    if (!this.#notes.includes(note)) this.#line(`[${this.#notes.push(note)}] ${note}`);
    const clientMean = meanOf(clients.map(({ accuracy }) => accuracy));
    this.#line(`${head}final ${percentSign(final?.accuracy)}, clients ${percentSign(clientMean)}, epsilon ${cell} [${this.#notes.indexOf(note) + 1}], ${duration(seconds)}${remaining}`);
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  #line(text: string): void {
    this.#say(text);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const underWay = [...this.#underWay].map(([index, how]) => `point ${index} ${how}`);
      this.#line(`${this.#found + this.#settled}/${this.#found + this.#pending} done; under way: ${underWay.join(', ') || 'nothing'}`);
    }, SILENCE_MS).unref();
  }
}
