/** Problem documents after RFC 9457 (docs/protocol.md section 4): how an error crosses the wire, and comes back as an error. */
import { z } from 'zod';
import { FederationError, problemCodes, type FaultClass, type ProblemCode, type ProblemInit } from '../errors.ts';

const shortText = z.string().max(4000);

export const ProblemSchema = z.object({
  type: shortText,
  code: z.string().max(64),
  title: shortText,
  status: z.int().min(100).max(599),
  field: shortText.optional(),
  expected: shortText.optional(),
  got: shortText.optional(),
  next: shortText.optional(),
  nextRound: z.int().min(1).optional(),
});
export type Problem = z.infer<typeof ProblemSchema>;

const maxTextLength = 1000;
/** At most `maxTextLength` characters and a mark, without half a surrogate pair at the cut. */
const clip = (text: string) => (text.length > maxTextLength ? `${text.slice(0, maxTextLength).replace(/\p{Surrogate}$/u, '')}…` : text);
/** A peer's text may reach a terminal: control characters (C0, DEL, C1) and bidirectional overrides become spaces. */
const printable = (text: string) => text.replace(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, ' ');

/**
 * The problem document of an error. What is not a `FederationError`, and what has the code `internal`, is a bug of ours: nobody
 * has looked at its text, so it stays here.
 */
export function toProblem(error: unknown, extra: { readonly nextRound?: number } = {}): Problem {
  const known = error instanceof FederationError && error.code !== 'internal' ? error : new FederationError('internal', 'Something went wrong here; the log of this process has the details.');
  const { field, expected, got, next } = known;
  return {
    type: `urn:fedstill:problem:${known.code}`,
    code: known.code,
    title: clip(known.message),
    status: problemCodes[known.code].status,
    ...(field === undefined ? {} : { field: clip(field) }),
    ...(expected === undefined ? {} : { expected: clip(expected) }),
    ...(got === undefined ? {} : { got: clip(got) }),
    ...(next === undefined ? {} : { next: clip(next) }),
    ...extra,
  };
}

/** The error of a problem document that a peer sent. An unknown code, of a newer peer, becomes `declined`. */
export function fromProblem(problem: Problem): RemoteProblem {
  return new RemoteProblem(problem);
}

/** A problem that the peer reported. */
export class RemoteProblem extends FederationError {
  readonly nextRound: number | undefined;
  constructor(problem: Problem) {
    const code: ProblemCode = Object.hasOwn(problemCodes, problem.code) ? (problem.code as ProblemCode) : 'declined';
    const init: { -readonly [K in keyof ProblemInit]: ProblemInit[K] } = {};
    if (problem.field !== undefined) init.field = printable(problem.field);
    if (problem.expected !== undefined) init.expected = printable(problem.expected);
    if (problem.got !== undefined) init.got = printable(problem.got);
    if (problem.next !== undefined) init.next = printable(problem.next);
    super(code, printable(problem.title), init);
    this.nextRound = problem.nextRound;
  }

  /** The peer's bug is a peer's failure here, not ours. */
  override get fault(): FaultClass {
    return super.fault === 'internal' ? 'peer' : super.fault;
  }
}
