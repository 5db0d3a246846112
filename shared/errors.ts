/**
 * One error type for everything that is somebody's to handle. The code is a stable label (it is a metrics label and
 * part of the wire protocol, so it never holds a value); the details are fields. docs/errors.md is the table of codes.
 */

/** Whose fault it is, which decides what happens next. */
export type FaultClass =
  /** The user gave something unusable: say what, exit 2. */
  | 'badInput'
  /** A privacy policy or budget says no: exit 3. */
  | 'refused'
  /** A peer broke the protocol, is gone, or a quorum was missed: reply, go on, or exit 4. */
  | 'peer'
  /** Our bug, or the machine's failure (disk full): log, exit 1. */
  | 'internal';

const badInput = (status: number) => ({ fault: 'badInput', status }) as const;
const refused = (status: number) => ({ fault: 'refused', status }) as const;
const peer = (status: number) => ({ fault: 'peer', status }) as const;
const internal = (status: number) => ({ fault: 'internal', status }) as const;

/** Every problem code, with its fault class and the HTTP status that goes with it. Codes are never renamed or reused. */
export const problemCodes = {
  // What a user typed, or a file that a user named.
  'config-invalid': badInput(400),
  'file-unreadable': badInput(400),
  'data-invalid': badInput(400),
  'model-invalid': badInput(400),
  'usage-invalid': badInput(400),
  'port-unavailable': badInput(400),
  'state-locked': badInput(409),
  'state-mismatch': badInput(409),
  'engine-unavailable': badInput(400),
  // A privacy policy or a budget.
  'budget-exhausted': refused(403),
  'policy-refused': refused(403),
  'event-unsupported': refused(403),
  'ledger-corrupt': refused(409),
  // What came over the wire.
  'protocol-unsupported': peer(400),
  'message-malformed': peer(400),
  'message-too-large': peer(413),
  'event-unknown': peer(404),
  'frame-malformed': peer(400),
  'frame-checksum': peer(400),
  'shape-mismatch': peer(422),
  'value-out-of-range': peer(422),
  'not-authenticated': peer(401),
  'signature-invalid': peer(401),
  'fingerprint-mismatch': peer(401),
  'token-refused': peer(403),
  'not-admitted': peer(403),
  'not-in-cohort': peer(403),
  'session-replaced': peer(409),
  'round-unknown': peer(409),
  'round-closed': peer(409),
  'stage-mismatch': peer(409),
  'contribution-conflict': peer(409),
  'envelope-invalid': peer(422),
  'context-mismatch': peer(422),
  'upload-unknown': peer(404),
  'upload-offset': peer(409),
  'upload-digest': peer(422),
  'digest-mismatch': peer(422),
  'rate-limited': peer(429),
  'not-found': peer(404),
  'method-not-allowed': peer(405),
  'capacity-exceeded': peer(503),
  'deadline-exceeded': peer(504),
  'disconnected': peer(503),
  'unreachable': peer(503),
  'task-finished': peer(410),
  'quorum-missed': peer(503),
  'declined': peer(403),
  // Ours.
  'disk-full': internal(507),
  'worker-failed': internal(500),
  'internal': internal(500),
} as const satisfies Record<string, { fault: FaultClass; status: number }>;

/** A stable problem code, e.g. `round-closed`. */
export type ProblemCode = keyof typeof problemCodes;

export interface ProblemInit {
  /** Field or place at fault, e.g. `privacy.epsilon` or `contribution.rows`. */
  readonly field?: string;
  readonly expected?: string;
  readonly got?: string;
  /** What to do about it: one sentence in the imperative. */
  readonly next?: string;
  readonly cause?: unknown;
}

/** The exit status for each fault class (design: 0 done, 1 internal, 2 bad input, 3 refused, 4 quorum or peer failure). */
export const exitStatus: Record<FaultClass, number> = { internal: 1, badInput: 2, refused: 3, peer: 4 };

/**
 * Thrown for every condition that has a code. `message` is one sentence without secrets: it may go to a log, a terminal
 * and a peer.
 */
export class FederationError extends Error {
  override readonly name = 'FederationError';
  readonly code: ProblemCode;
  readonly field: string | undefined;
  readonly expected: string | undefined;
  readonly got: string | undefined;
  readonly next: string | undefined;

  constructor(code: ProblemCode, message: string, init: ProblemInit = {}) {
    super(message, init.cause === undefined ? undefined : { cause: init.cause });
    this.code = code;
    this.field = init.field;
    this.expected = init.expected;
    this.got = init.got;
    this.next = init.next;
  }

  get fault(): FaultClass {
    return problemCodes[this.code].fault;
  }

  get exitStatus(): number {
    return exitStatus[this.fault];
  }
}

/** For the `default` of a switch over a union: compiles only when every case was handled. */
export function unreachable(value: never): never {
  throw new FederationError('internal', `unreachable case: ${JSON.stringify(value)}`);
}
