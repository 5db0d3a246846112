import { describe, expect, it } from 'vitest';
import { FederationError } from '../../shared/errors.ts';
import { exitStatusOf, formatBytes, formatCommand, formatEpsilon, printError, printJson } from '../../shared/node/terminal.ts';

function written(work: (stream: { write(text: string): void }) => void): string {
  let all = '';
  work({ write: (text) => void (all += text) });
  return all;
}

describe('what a command says', () => {
  it('tells an error with everything that helps, and its code last', () => {
    const error = new FederationError('policy-refused', 'Too few clients.', { field: 'minCohort', expected: '>= 5', got: '2', next: 'Wait.' });
    expect(written((stream) => printError(error, {}, stream))).toBe(
      'error: Too few clients.\n  field:    minCohort\n  expected: >= 5\n  got:      2\n  next:     Wait.\n  code:     policy-refused\n',
    );
    expect(JSON.parse(written((stream) => printError(error, { json: true }, stream)))).toMatchObject({ code: 'policy-refused', exitStatus: 3 });
    expect(exitStatusOf(error)).toBe(3);
    expect(exitStatusOf(new Error('bug'))).toBe(1);
  });

  it('rounds an epsilon up, never down', () => {
    expect(formatEpsilon(1.2300001)).toBe('1.231');
    expect(formatEpsilon(2)).toBe('2');
    expect(formatEpsilon('infinite')).toBe('infinite');
  });

  it('writes sizes for people, and commands that a shell reads back', () => {
    expect([812, 1000, 80_316, 1_250_000, 999_999].map(formatBytes)).toEqual(['812 B', '1.0 kB', '80 kB', '1.3 MB', '1.0 MB']);
    expect(formatCommand(['fedstill', 'join', 'http://h:1/join/x', '--name', "it's me"])).toBe("fedstill join http://h:1/join/x --name 'it'\\''s me'");
  });

  it('writes infinity as text where JSON has none', () => {
    expect(written((stream) => printJson({ epsilon: Infinity }, stream))).toBe('{"epsilon":"infinite"}\n');
  });
});
