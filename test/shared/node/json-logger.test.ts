import { expect, it } from 'vitest';
import { FederationError } from '../../../shared/errors.ts';
import { createJsonLogger, type LogLevel } from '../../../shared/node/json-logger.ts';

function logged(fields: Record<string, unknown>, level: LogLevel = 'debug') {
  const lines: string[] = [];
  createJsonLogger({ level, destination: { write: (line: string) => void lines.push(line) } }).warn(fields, 'said');
  return { text: lines.join(''), lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

it('writes one JSON line with level, time, message and fields', () => {
  expect(logged({ round: 3, code: 'round-closed' }).lines).toEqual([{ level: 'warn', time: expect.stringMatching(/^\d{4}-.*Z$/) as string, pid: process.pid, round: 3, code: 'round-closed', msg: 'said' }]);
});

it('keeps quiet below its level', () => {
  expect(logged({}, 'error').lines).toEqual([]);
  expect(logged({}, 'silent').lines).toEqual([]);
});

it('hides what is secret by its name, at any depth, and numbers that could be predictions', () => {
  const fields = { token: 'hush', sessionToken: 'hush', boxKey: 'hush', identity: { seed: 'hush', secretKey: new Uint8Array(3) }, predictions: ['hush'], list: [{ password: 'hush' }], logits: 'hush', weights: [0.25, 0.75], raw: Float32Array.of(0.25), cause: new Error('outer', { cause: { joinToken: 'hush' } }) };
  const { text, lines } = logged(fields);
  expect(text).not.toMatch(/hush|0\.25/);
  expect(lines[0]).toMatchObject({ token: '[redacted]', weights: '[2 numbers]', raw: '[4 bytes]' });
});

it('describes errors with code, place and cause, and survives odd values', () => {
  const error = new FederationError('disk-full', 'The disk is full.', { field: 'log', next: 'Free some space.', cause: new TypeError('inner') });
  expect(logged({ err: error }).lines[0]).toMatchObject({ err: { code: 'disk-full', message: 'The disk is full.', field: 'log', cause: { type: 'TypeError', message: 'inner' } } });
  const cyclic: Record<string, unknown> = { big: 10n, call: () => 1, nothing: undefined, none: null };
  cyclic['self'] = cyclic;
  expect(logged({ cyclic }).lines[0]).toMatchObject({ cyclic: { big: '10', call: '[function]', none: null } });
});
