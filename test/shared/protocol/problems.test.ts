import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FederationError, problemCodes, type ProblemCode } from '../../../shared/errors.ts';
import { fromProblem, ProblemSchema, RemoteProblem, toProblem } from '../../../shared/protocol/problems.ts';

const codes = Object.keys(problemCodes) as ProblemCode[];
const plain = fc.string({ unit: 'grapheme-ascii', maxLength: 60 });

describe('a problem', () => {
  it.each(codes.filter((code) => code !== 'internal'))('%s crosses the wire with its texts', (code) => {
    const error = new FederationError(code, 'What happened.', { field: 'rows', expected: '2', got: '3', next: 'Send 2.', cause: new Error('secret') });
    const problem = ProblemSchema.parse(JSON.parse(JSON.stringify(toProblem(error, { nextRound: 4 }))));
    expect(problem).toMatchObject({ type: `urn:fedstill:problem:${code}`, code, status: problemCodes[code].status, nextRound: 4 });
    const back = fromProblem(problem);
    expect(back).toMatchObject({ code, message: 'What happened.', field: 'rows', expected: '2', got: '3', next: 'Send 2.', nextRound: 4 });
    expect(JSON.stringify(problem)).not.toContain('secret');
    // Our fault there is a peer's failure here.
    expect(back.fault).toBe(error.fault === 'internal' ? 'peer' : error.fault);
  });

  it('leaves out the members that an error does not have', () => {
    expect(Object.keys(toProblem(new FederationError('round-closed', 'Late.')))).toEqual(['type', 'code', 'title', 'status']);
  });

  it('round trips for any texts', () => {
    fc.assert(
      fc.property(fc.constantFrom(...codes.filter((code) => code !== 'internal')), plain, plain, plain, (code, title, expected, got) => {
        const back = fromProblem(ProblemSchema.parse(toProblem(new FederationError(code, title, { expected, got }))));
        expect([back.code, back.message, back.expected, back.got]).toEqual([code, title, expected, got]);
      }),
    );
  });
});

describe('a bug of ours tells a peer nothing', () => {
  const secrets = [
    new Error('key 0xdeadbeef'),
    new TypeError('cannot read deadbeef', { cause: 'deadbeef' }),
    'deadbeef',
    { toString: () => 'deadbeef' },
    null,
    undefined,
    new FederationError('internal', 'unreachable case: {"key":"deadbeef"}', { field: 'deadbeef', expected: 'deadbeef', got: 'deadbeef', next: 'deadbeef', cause: 'deadbeef' }),
  ];
  it.each(secrets.map((secret, i) => [i, secret] as const))('thrown value %d', (_i, secret) => {
    const problem = toProblem(secret);
    expect(problem).toMatchObject({ code: 'internal', status: 500 });
    expect(JSON.stringify(problem)).not.toContain('deadbeef');
  });
});

describe('texts', () => {
  it('that are long are clipped to what a peer accepts', () => {
    const long = 'x'.repeat(100_000);
    const problem = toProblem(new FederationError('message-malformed', long, { field: long, expected: long, got: long, next: long }));
    expect(ProblemSchema.safeParse(problem).success).toBe(true);
    for (const text of [problem.title, problem.field, problem.expected, problem.got, problem.next]) expect(text!.length).toBe(1001);
  });

  it('are not cut through the middle of a character', () => {
    const problem = toProblem(new FederationError('message-malformed', `${'x'.repeat(999)}😀😀`));
    expect(problem.title).toBe(`${'x'.repeat(999)}…`);
  });

  it('from a peer cannot drive a terminal', () => {
    const evil = '\u001b[2J\u001b]0;pwned\u0007\r\n\u009b31m\u202eexe.txt';
    const error = fromProblem({ type: 't', code: 'declined', title: evil, status: 403, field: evil, expected: evil, got: evil, next: evil });
    // eslint-disable-next-line no-control-regex
    for (const text of [error.message, error.field, error.expected, error.got, error.next]) expect(text).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
  });
});

describe('a problem from a newer peer', () => {
  it.each(['code-of-the-future', '', 'constructor', '__proto__', 'toString'])('with the unknown code %j becomes "declined"', (code) => {
    const error = fromProblem({ type: 't', code, title: 'No.', status: 418 });
    expect(error).toBeInstanceOf(RemoteProblem);
    expect(error.code).toBe('declined');
    expect(error.exitStatus).toBe(4);
  });

  it('may have members that we do not know', () => {
    expect(ProblemSchema.parse({ type: 't', code: 'declined', title: 'No.', status: 403, instance: '/x' })).not.toHaveProperty('instance');
  });

  it.each([
    { code: 'x'.repeat(65) },
    { status: 99 },
    { status: 600 },
    { status: '403' },
    { title: 7 },
    { title: 'x'.repeat(4001) },
    { nextRound: 0 },
    { nextRound: 1.5 },
    { field: null },
  ])('with %j is not a problem document', (wrong) => {
    expect(ProblemSchema.safeParse({ type: 't', code: 'declined', title: 'No.', status: 403, ...wrong }).success).toBe(false);
  });
});
