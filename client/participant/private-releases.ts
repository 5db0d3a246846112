/**
 * The balance of a student that trains privately (`dpSgd`): how many of its steps on private records are paid for. A release charges a fixed number of steps, and a
 * student whose predictions leave must not have made more than were charged, this release included. Steps for a round that came to nothing are paid for by the next
 * release, which then has fewer of its own.
 *
 * A log in the task's store names the contributions of this very student before they are charged: the ledger may hold releases of another student, of a task of
 * the same name, and those pay for nothing here.
 */
import { z } from 'zod';
import { FederationError } from '../../shared/errors.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import type { ReleaseParameters } from '../../shared/privacy/release.ts';
import { DigestSchema, RoundIdSchema } from '../../shared/protocol/messages.ts';
import type { Digest, RoundId, TaskId } from '../../shared/types/ids.ts';
import type { Student } from './training.ts';

const logName = 'private-releases.jsonl';
const LineSchema = z.strictObject({ round: RoundIdSchema, contribution: DigestSchema });

export class PrivateReleases {
  readonly #store: DurableStore;
  readonly #task: TaskId;
  readonly #ledger: PrivacyLedger;
  /** Contributions of this student. */
  readonly #own: Set<string>;

  private constructor(store: DurableStore, task: TaskId, ledger: PrivacyLedger, own: Set<string>) {
    this.#store = store;
    this.#task = task;
    this.#ledger = ledger;
    this.#own = own;
  }

  /** Throws `state-mismatch` for a damaged log. */
  static async open(store: DurableStore, task: TaskId, ledger: PrivacyLedger): Promise<PrivateReleases> {
    const lines = z.array(LineSchema).safeParse(await store.readLog(logName));
    if (!lines.success) throw new FederationError('state-mismatch', 'The log of private releases is damaged.', { field: logName, next: 'Restore the state folder from a backup, or remove the folder of this task. Keep the ledger.' });
    return new PrivateReleases(store, task, ledger, new Set(lines.data.map(keyOf)));
  }

  /**
   * To be called before anything is trained in a process. Throws `state-mismatch` for a student that has made fewer steps than were charged for it: its file was lost, or is of an
   * earlier time. Steps that a later student had made were released, and what paid for them cannot pay for others.
   */
  checkNotOlder({ privateSteps }: Pick<Student, 'privateSteps'>): void {
    const charged = this.#chargedSteps();
    if (privateSteps >= charged) return;
    throw new FederationError('state-mismatch', 'The student is older than what was released of it.', {
      field: 'student',
      expected: `at least ${charged} private steps`,
      got: String(privateSteps),
      next: 'Restore the whole folder of this task as it was last, or remove it to start with a fresh student. Keep the ledger.',
    });
  }

  /** To be called before the contribution is charged. */
  async remember(round: RoundId, contribution: Digest): Promise<void> {
    await this.#store.append(logName, { round, contribution });
    this.#own.add(keyOf({ round, contribution }));
  }

  /** Steps on private records that the student may still make before it predicts for this release; below 0: it must not predict. */
  allowance({ privateSteps }: Pick<Student, 'privateSteps'>, release: ReleaseParameters): number {
    if (release.mechanism !== 'dpSgd') return 0;
    return release.noise.steps - (privateSteps - this.#chargedSteps());
  }

  /** Throws `policy-refused` unless this release pays for everything that the student has learned from private records. */
  check(student: Pick<Student, 'privateSteps' | 'sawRecords'>, release: ReleaseParameters): void {
    if (release.mechanism !== 'dpSgd') return;
    if (student.sawRecords) throw refused('The student has learned from private records without noise (a personal student), so nothing that it predicts may leave.', 'a student that trained privately only', 'a personal one');
    const left = this.allowance(student, release);
    if (left < 0) throw refused('The student has made more private steps than this release and all before it pay for.', `at most ${release.noise.steps} uncharged steps`, `${release.noise.steps - left}`);
  }

  #chargedSteps(): number {
    const own = this.#ledger.entries().filter((entry) => entry.task === this.#task && this.#own.has(keyOf(entry)));
    return own.reduce((sum, { parameters }) => sum + (parameters.mechanism === 'dpSgd' ? parameters.noise.steps : 0), 0);
  }
}

function keyOf({ round, contribution }: { readonly round: RoundId; readonly contribution: Digest }): string {
  return `${round} ${contribution}`;
}

function refused(reason: string, expected: string, got: string): FederationError {
  return new FederationError('policy-refused', reason, { field: 'student', expected, got, next: 'Remove the folder of this task to start with a fresh student. Keep the ledger.' });
}
