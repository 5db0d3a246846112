import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CommanderError } from 'commander';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { FederationError } from '../../../shared/errors.ts';
import { planRelease } from '../../../shared/privacy/release.ts';
import { privacyCommand } from '../../../simulations/commands/privacy.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fedstill-privacy-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = 0;
});

async function run(...args: string[]): Promise<string> {
  let output = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    output += String(chunk);
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
  const command = privacyCommand();
  for (const part of [command, ...command.commands]) part.exitOverride();
  await command.parseAsync(args, { from: 'user' });
  return output;
}
async function file(name: string, content: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}
const meaning = ['--unit', 'record', '--adjacency', 'addOrRemoveRecord', '--adversary', 'malicious-coordinator', '--delta', '1e-5', '--releases', '20', '--transfer-size', '1000'];
const dpsgd = ['--mechanism', 'dpsgd', '--noise-multiplier', '1', '--sampling-probability', '0.01', '--steps', '1000'];

describe('privacy account', () => {
  it('prints an epsilon with everything that gives it its meaning', async () => {
    const text = await run('account', ...dpsgd, ...meaning);
    expect(text).toContain('epsilon <= 1.8283');
    for (const part of ['unit          record', 'add or remove one record', 'arbitrary messages', 'delta         0.00001', 'releases      20', '1000 rows', 'pld version 1', 'renyi', '2.1014']) expect(text).toContain(part);
  });

  it.each(['--unit', '--adjacency', '--adversary', '--delta', '--releases', '--transfer-size'])('refuses without %s, and prints no epsilon', async (option) => {
    const at = meaning.indexOf(option);
    const refused = run('account', ...dpsgd, ...meaning.slice(0, at), ...meaning.slice(at + 2));
    const name = option === '--transfer-size' ? 'transferRows' : option.slice(2);
    await expect(refused).rejects.toThrow(expect.objectContaining({ code: 'usage-invalid', field: name, exitStatus: 2 }));
  });

  it('reads events from YAML and from JSON, filling what is missing from options', async () => {
    const yaml = await file('run.yaml', 'unit: client\nadjacency: replaceOne\nadversary: curious-coordinator\ndelta: 1e-5\nreleases: 5\nevents:\n  - { kind: selfComposed, count: 5, event: { kind: gaussian, noiseMultiplier: 4.5 } }\n');
    const result = JSON.parse(await run('account', yaml, '--transfer-size', '500', '--json'));
    expect(result).toMatchObject({ unit: 'client', releases: 5, transferRows: 500, events: 5, accountant: { name: 'exact-gaussian', version: 1 } });
    expect(result.epsilon).toBeCloseTo(1.98, 2);
    const json = await file('run.json', JSON.stringify({ ...result, events: [{ kind: 'gnMax', sigma: 40, queries: 100 }], epsilon: undefined, accountant: undefined, all: undefined }));
    expect(JSON.parse(await run('account', json, '--json')).events).toBe(1);
  });

  it('says infinite for what left without noise', async () => {
    const path = await file('open.yaml', 'unit: client\nadjacency: replaceOne\nadversary: outsider\ndelta: 1e-5\nreleases: 1\ntransferRows: 10\nevents: [{ kind: nonPrivate }]\n');
    expect(await run('account', path)).toContain('epsilon is infinite: there is no differential privacy');
    expect(JSON.parse(await run('account', path, '--json')).epsilon).toBeNull();
  });

  it.each([
    ['text', 'hello', 'data-invalid'],
    ['broken', '{"events": [', 'data-invalid'],
    ['unknown-event', 'unit: client\nadjacency: replaceOne\nadversary: outsider\ndelta: 1e-5\nreleases: 1\ntransferRows: 1\nevents: [{ kind: magic }]\n', 'data-invalid'],
    ['wrong-delta', 'unit: client\nadjacency: replaceOne\nadversary: outsider\ndelta: 1\nreleases: 1\ntransferRows: 1\nevents: [{ kind: nonPrivate }]\n', 'data-invalid'],
    ['contradiction', 'unit: client\nadjacency: replaceRecord\nadversary: outsider\ndelta: 1e-5\nreleases: 1\ntransferRows: 1\nevents: [{ kind: nonPrivate }]\n', 'usage-invalid'],
  ])('refuses bad input with exit status 2: %s', async (name, content, code) => {
    const error: unknown = await run('account', await file(`${name}.yaml`, content)).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(FederationError);
    expect(error).toMatchObject({ code, exitStatus: 2 });
  });

  it('refuses sampling of clients, which amplifies nothing against the coordinator', async () => {
    const client = ['--unit', 'client', '--adjacency', 'replaceOne', ...meaning.slice(4)];
    await expect(run('account', ...dpsgd, ...client)).rejects.toThrow(expect.objectContaining({ code: 'event-unsupported' }));
  });

  it('refuses a file that is not there, and options that are no numbers', async () => {
    await expect(run('account', join(folder, 'none.yaml'))).rejects.toThrow(expect.objectContaining({ code: 'file-unreadable', exitStatus: 2 }));
    await expect(run('account', '--delta', 'small')).rejects.toThrow(CommanderError);
    await expect(run('account')).rejects.toThrow(expect.objectContaining({ code: 'usage-invalid' }));
  });
});

describe('privacy calibrate', () => {
  it('finds a noise multiplier whose account stays within the target', async () => {
    const client = ['--unit', 'client', '--adjacency', 'replaceOne', ...meaning.slice(4)];
    const result = JSON.parse(await run('calibrate', '--mechanism', 'gaussian', '--steps', '5', '--epsilon', '2', ...client, '--json'));
    expect(result.noiseMultiplier / (1.993_812_445_6 * Math.sqrt(5))).toBeCloseTo(1, 5);
    expect(result.epsilon).toBeLessThanOrEqual(2);
    const text = await run('account', '--mechanism', 'gaussian', '--steps', '5', '--noise-multiplier', String(result.noiseMultiplier), ...client);
    expect(text).toMatch(/epsilon <= (1\.9999\d*|2)\n/);
  });

  it('refuses without the meaning of its epsilon, and mechanisms without a noise multiplier', async () => {
    await expect(run('calibrate', '--mechanism', 'gaussian', '--epsilon', '2')).rejects.toThrow(expect.objectContaining({ code: 'usage-invalid' }));
    await expect(run('calibrate', '--mechanism', 'randomized-response', '--epsilon', '2', ...meaning)).rejects.toThrow(expect.objectContaining({ field: '--mechanism' }));
  });
});

describe('privacy plan', () => {
  const size = ['--transfer-size', '1000', '--classes', '10'];
  it('says what a task would do: noise per averaged probability, and in votes of shards', async () => {
    const item = JSON.parse(await run('plan', '--clients', '40', '--honest', '30', '--shards', '25', '--transfer-size', '100', '--classes', '10', '--epsilon', '4', '--releases', '2', '--json')) as { mechanisms: { mechanism: string; meanStddev: number; countStddev: number | null; unit: string; accountant: string }[] };
    const find = (name: string) => item.mechanisms.find(({ mechanism }) => mechanism === name)!;
    const planned = (change: object) => {
      const release = planRelease({ mechanism: 'discreteGaussian', outputKind: 'probabilities', rows: 100, columns: 10, gridStep: 1 / 4096, epsilon: 4, delta: 1e-5, releases: 2, shares: 30, ...change });
      if (release.mechanism !== 'discreteGaussian') throw new Error('expected discreteGaussian');
      return (release.noise.sigmaGrid * Math.sqrt(40)) / 4096; // of the sum of all 40 clients' noise
    };
    expect(find('distributed noise on soft labels').meanStddev / (planned({}) / 40)).toBeCloseTo(1, 2);
    const votes = find('votes of shards, distributed noise');
    expect(votes).toMatchObject({ unit: 'record', accountant: 'renyi' });
    expect(votes.countStddev! / planned({ shards: 25, votes: true })).toBeCloseTo(1, 2);
    expect(votes.meanStddev * 40 * 25).toBeCloseTo(votes.countStddev!, 6);
    expect(await run('plan', '--clients', '40', '--shards', '25', '--transfer-size', '100', '--classes', '10', '--epsilon', '4')).toMatch(/GOOD: votes of shards, distributed noise\n.*1000 votes.*\n.*Each class's count is off by about [\d.]+ of 1000 votes/);
  });

  it('applies the feasibility rule: 40 sqrt(rows) clients at epsilon 2, 12 sqrt(rows) at 8 (zero-out)', async () => {
    const two = JSON.parse(await run('plan', '--clients', '2000', ...size, '--epsilon', '2', '--json'));
    const eight = JSON.parse(await run('plan', '--clients', '2000', ...size, '--epsilon', '8', '--json'));
    expect(two.fewestClients.zeroOut / Math.sqrt(1000)).toBeCloseTo(40, 0);
    expect(eight.fewestClients.zeroOut / Math.sqrt(1000)).toBeCloseTo(12, 0);
    expect(two.fewestClients.replaceOne / two.fewestClients.zeroOut).toBeCloseTo(Math.SQRT2, 2);
    expect(two.mechanisms[0]).toMatchObject({ unit: 'client', adjacency: 'replaceOne', verdict: 'good' });
  });

  it('says in words what is not feasible, and what would be', async () => {
    const text = await run('plan', '--clients', '5', ...size, '--epsilon', '1');
    expect(text).toContain('NOT FEASIBLE: distributed noise on soft labels');
    expect(text).toContain('You have 5.');
    expect(text).toMatch(/off by about \d/);
    for (const part of ['unit client', 'replace-one', 'delta 0.00001', 'accountant exact-gaussian', '1 release of 1000 rows']) expect(text).toContain(part);
  });

  it('counts only noise that is certainly there', async () => {
    const all = JSON.parse(await run('plan', '--clients', '100', ...size, '--epsilon', '2', '--json'));
    const few = JSON.parse(await run('plan', '--clients', '100', '--honest', '25', ...size, '--epsilon', '2', '--json'));
    expect(few.mechanisms[0].meanStddev / all.mechanisms[0].meanStddev).toBeCloseTo(2, 9);
  });

  it.each([['--honest', '11'], ['--records', '100'], ['--delta', '0'], ['--classes', '1']])('refuses %s %s', async (option, value) => {
    await expect(run('plan', '--clients', '10', ...size, '--epsilon', '2', option, value)).rejects.toThrow(expect.objectContaining({ code: 'usage-invalid', exitStatus: 2 }));
  });
});

describe('privacy verify', () => {
  const golden = fileURLToPath(new URL('../../vectors/dp-golden.json', import.meta.url));
  it('counts case by case, and ends with status 1 when one misses', async () => {
    const all = JSON.parse(await readFile(golden, 'utf8')) as { cases: Array<{ id: string; group: string; expected: Record<string, unknown> }> };
    const some = all.cases.filter((item) => ['conv', 'rounding', 'secagg-graph'].includes(item.group));
    const conversion = some.find((item) => item.group === 'conv')!;
    const good = await file('good.json', JSON.stringify({ cases: some }));
    expect(await run('verify', good)).toContain(`All ${some.length} cases agree.`);
    expect(process.exitCode ?? 0).toBe(0);

    const bad = await file('bad.json', JSON.stringify({ cases: [...some, { ...conversion, id: 'wrong', expected: { epsilon_cks: 1 } }, { ...conversion, id: 'strange', group: 'tea-leaves' }] }));
    const text = await run('verify', bad);
    expect(text).toContain('FAIL  tea-leaves');
    expect(text).toContain('epsilon_cks: expected 1');
    expect(text).toContain(`2 of ${some.length + 2} cases do not agree.`);
    expect(process.exitCode).toBe(1);
    expect(JSON.parse(await run('verify', bad, '--json'))).toMatchObject({ failed: 2, passed: some.length });
  });

  it('refuses a file that is no list of cases', async () => {
    await expect(run('verify', await file('none.json', '{}'))).rejects.toThrow(expect.objectContaining({ code: 'data-invalid', exitStatus: 2 }));
  });
});
