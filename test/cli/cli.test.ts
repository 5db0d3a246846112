/** What `fedstill` says to somebody who does something wrong: exit status, and a message that names what to change. */
import { execFileSync } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inParallel } from '../abuse/garbage.ts';
import { expectPlain, expectRefusal, type Refusal } from './expectations.ts';
import { eventLine, fedstill, killAll, until, type Running, type SpawnOptions } from './fedstill.ts';

let folder = '';
const mounts: string[] = [];
const at = (...parts: string[]) => join(folder, ...parts);
const run = (args: readonly string[], options: Partial<SpawnOptions> = {}) => fedstill(args, { cwd: folder, ...options });

const nowhere = `http://127.0.0.1:9/join/${'a'.repeat(26)}`;
/** Every message with its status, for a person to read: `FEDSTILL_SHOW_MESSAGES=1`. */
const shown: string[] = [];

const tasks = {
  'open.yaml': `
task: open
data: {numClasses: 3, exampleShape: [4]}
transferSet: {source: synthetic, size: 600, seed: 5}
teacher: {kind: consensus}
student: {model: softmax-regression, pretrainEpochs: 1}
schedule: {rounds: 1, minClients: 2, quorum: 2}
`,
  'token.yaml': `
task: token
data: {numClasses: 3, exampleShape: [4]}
transferSet: {source: synthetic, size: 30, seed: 5}
teacher: {kind: consensus}
privacy: {mechanism: gaussian, epsilon: 8}
schedule: {rounds: 1, minClients: 2, quorum: 2}
admission: {mode: token}
`,
  'wrong.yaml': 'task: Digits!\ndata: {numClasses: 1, exampleShape: [28, 28, 1]}\ntransferSet: {source: mnst}\ndistilation: {temperature: 3}\nschedule: {rounds: many}\n',
  'broken.yaml': 'task: [unclosed\n',
  'no-noise-target.yaml': 'task: x\ndata: {numClasses: 3, exampleShape: [4]}\ntransferSet: {source: synthetic}\nprivacy: {mechanism: gaussian}\n',
  'no-data.yaml': 'task: x\ndata: {numClasses: 3, exampleShape: [4]}\ntransferSet: {source: csv, path: missing.csv}\n',
  'bad-teacher.yaml': 'task: x\ndata: {numClasses: 3, exampleShape: [4]}\ntransferSet: {source: synthetic}\nteacher: {kind: pretrained, path: half-model}\n',
};

const csv = (header: string, rows: readonly string[]) => `${header}\n${rows.join('\n')}\n`;
const files: Readonly<Record<string, string>> = {
  ...tasks,
  'good.csv': csv('a,b,c,d,kind', ['1,2,3,4,0', '2,3,4,5,1', '3,4,5,6,2', '4,5,6,7,0', '5,6,7,8,1']),
  'words.csv': csv('a,b,c,d,kind', ['1,2,3,4,cat', '2,3,4,5,1', '3,x,5,6,2']),
  'classes.csv': csv('a,b,c,d,kind', ['1,2,3,4,0', '2,3,4,5,7']),
  'narrow.csv': csv('a,b,kind', ['1,2,0', '2,3,1']),
  'empty.csv': '',
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fedstill-cli-'));
  for (const [name, text] of Object.entries(files)) await writeFile(at(name), text);
  await mkdir(at('half-model'));
  await writeFile(at('half-model', 'model.json'), '{"format":"layers-model","modelTopology":{"a":');
  await mkdir(at('lost-weights'));
  const weights = [{ name: 'dense/kernel', shape: [4, 3], dtype: 'float32' }];
  await writeFile(at('lost-weights', 'model.json'), JSON.stringify({ format: 'layers-model', modelTopology: {}, weightsManifest: [{ paths: ['weights.bin'], weights }] }));
});
afterAll(async () => {
  killAll();
  for (const mount of mounts) execFileSync('umount', ['-l', mount]);
  if (folder !== '') await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  if (process.env['FEDSTILL_SHOW_MESSAGES'] === '1') console.log(shown.join('\n'));
});

type Case = readonly [name: string, args: readonly string[], refusal: Refusal, options?: Partial<SpawnOptions>];

/** Two at a time: starting a process is what takes the time. */
async function expectAll(cases: readonly Case[]): Promise<void> {
  await inParallel(cases.length, 2, async (i) => {
    const [name, args, refusal, options] = cases[i]!;
    const running = run(args, options);
    await expectRefusal(running, refusal).catch((error: unknown) => {
      throw new Error(`${name}: fedstill ${args.join(' ')}\n${error instanceof Error ? error.message : String(error)}`, { cause: error });
    });
    shown.push(`$ fedstill ${args.join(' ')}   (${refusal.status})\n${running.err()}`);
  });
}

const usage = (field: string | RegExp, more: Partial<Refusal> = {}): Refusal => ({ status: 2, code: 'usage-invalid', field, ...more });

it('names the option or command that is wrong, and the nearest right one', { timeout: 120_000 }, async () => {
  await expectAll([
    ['an unknown command', ['frobnicate'], usage('frobnicate')],
    ['a misspelt command', ['serv'], usage('serv', { says: /Did you mean serve\?/ })],
    ['a misspelt option', ['serve', '--task', 'open.yaml', '--prot', '1'], usage('--prot', { says: /Did you mean --port\?/ })],
    ['a misspelt option that is required', ['serve', '--taks', 'open.yaml'], usage('--taks', { says: /Did you mean --task\?/ })],
    ['a required option is missing', ['serve'], usage('--task', { got: 'nothing' })],
    ['an option without its value', ['serve', '--task'], usage('--task', { got: 'nothing' })],
    ['a missing argument', ['resume'], usage('run', { got: 'nothing' })],
    ['an argument too many', ['serve', '--task', 'open.yaml', 'more'], usage('arguments')],
    ['a port that is no number', ['serve', '--task', 'open.yaml', '--port', 'http'], usage('--port', { got: 'http', says: /0 to 65535/ })],
    ['a choice that is none', ['join', nowhere, '--data', 'mnist', '--engine', 'gpu'], usage('--engine', { got: 'gpu', says: /one of auto, / })],
    ['a list that swallows the URL', ['join', '--allow', 'none', nowhere, '--data', 'mnist'], usage('--allow', { says: /put the URL before it/ })],
    ['a negative epsilon', ['join', nowhere, '--data', 'mnist', '--max-epsilon', '-3'], usage('--max-epsilon', { got: '-3', says: /a number above 0, or "infinity"/ })],
    ['a join URL that is none', ['join', 'coordinator:7070', '--data', 'mnist'], usage('URL', { says: /FINGERPRINT/ })],
    ['a join URL cut short', ['join', 'http://127.0.0.1:9/join/abc', '--data', 'mnist'], usage('URL')],
    ['data that are nothing', ['join', nowhere, '--data', ''], usage('--data', { without: ['got'] })],
    ['an unknown split', ['join', nowhere, '--data', 'mnist:tst'], usage('--data', { got: 'mnist:tst' })],
    ['the token twice', ['join', nowhere, '--data', 'mnist', '--token', 'a', '--token-file', 'b'], usage('--token')],
    ['a partition that is none', ['data', 'split', 'mnist', '--clients', '2', '--out', 'o', '--partition', 'dirichlet'], usage('--partition', { says: /dirichlet:ALPHA/ })],
    ['no clients', ['data', 'split', 'mnist', '--clients', '0', '--out', 'o'], usage('--clients', { got: '0' })],
    ['a shape that is none', ['data', 'split', 'mnist', '--clients', '2', '--out', 'o', '--shape', '28x28'], usage('--shape', { got: '28x28' })],
    ['half of TLS', ['serve', '--task', 'open.yaml', '--tls-cert', 'cert.pem'], usage('--tls-key')],
  ]);
});

it('reports every mistake in a task file at once, each with its place', { timeout: 120_000 }, async () => {
  const invalid = (more: Partial<Refusal> = {}): Refusal => ({ status: 2, code: 'config-invalid', ...more });
  await expectAll([
    ['many mistakes', ['serve', '--task', 'wrong.yaml'], invalid({ says: /5 mistakes[\s\S]*wrong\.yaml:1:7: task[\s\S]*:2:\d+: data\.numClasses[\s\S]*did you mean `mnist`[\s\S]*did you mean `distillation`[\s\S]*schedule\.rounds/ })],
    ['not YAML', ['serve', '--task', 'broken.yaml'], invalid({ says: /broken\.yaml:\d+:\d+: expected valid YAML/ })],
    ['noise without a target', ['serve', '--task', 'no-noise-target.yaml'], invalid({ field: 'privacy.epsilon' })],
    ['a task file for a scenario', ['simulate', 'open.yaml'], invalid({ says: /did you mean `task\.schedule`/ })],
  ]);
});

it('names files and folders that cannot be used', { timeout: 120_000 }, async () => {
  await mkdir(at('loose'), { recursive: true });
  await writeFile(at('loose', 'identity'), 'fedstill identity 1\n');
  await chmod(at('loose', 'identity'), 0o644);
  await mkdir(at('damaged'), { recursive: true });
  await writeFile(at('damaged', 'identity'), 'fedstill identity 1\nAAAA\n', { mode: 0o600 });
  const unreadable = (more: Partial<Refusal> = {}): Refusal => ({ status: 2, code: 'file-unreadable', ...more });
  await expectAll([
    ['no task file', ['serve', '--task', 'missing.yaml'], unreadable({ field: '--task', got: 'no such file' })],
    ['a folder as task file, with a run folder named', ['serve', '--task', '.', '--run', 'r'], unreadable({ field: '--task', got: 'a folder' })],
    ['a data file that is missing', ['serve', '--task', 'no-data.yaml', '--run', 'no-data'], unreadable({ field: /missing\.csv$/, got: 'no such file or folder' })],
    // Root may write anywhere: a path through a file is what cannot be made.
    ['an unwritable run folder', ['serve', '--task', 'open.yaml', '--run', 'open.yaml/run'], unreadable({ without: ['expected'], got: 'ENOTDIR' })],
    ['an unwritable state folder', ['join', nowhere, '--data', 'mnist', '--state', 'open.yaml'], unreadable({ field: /open\.yaml$/, says: /--state/ })],
    ['an unwritable data folder', ['data', 'split', 'synthetic:20', '--num-classes', '3', '--shape', '2,2', '--clients', '2', '--out', 'open.yaml'], unreadable({ field: /client-1$/ })],
    ['no token file', ['join', nowhere, '--data', 'mnist', '--token-file', 'missing'], unreadable({ field: '--token-file', got: 'no such file' })],
    ['no certificate authority', ['join', nowhere, '--data', 'mnist', '--ca', 'missing.pem'], unreadable({ field: '--ca' })],
    ['an identity that others may read', ['join', nowhere, '--data', 'mnist', '--state', 'loose'], unreadable({ field: /identity$/, got: 'mode 644', says: /chmod 600/ })],
    ['a damaged identity', ['join', nowhere, '--data', 'mnist', '--state', 'damaged'], { status: 2, code: 'state-mismatch', field: /identity$/ }],
    ['no run', ['resume', 'runs/none'], unreadable({ got: 'nothing at this path', says: /fedstill ls/ })],
    ['no data to split', ['data', 'split', 'nowhere', '--clients', '2', '--out', 'o'], unreadable({ field: /nowhere$/ })],
    ['an unknown model', ['join', nowhere, '--data', 'mnist', '--model', 'cnn-smal'], { status: 2, code: 'model-invalid', field: '--model', says: /Did you mean cnn-small\?/ }],
    ['a teacher that is half a model', ['serve', '--task', 'bad-teacher.yaml', '--run', 'bad-teacher'], { status: 2, code: 'model-invalid', field: /model\.json$/, says: /is not JSON/, without: ['next'] }],
  ]);
});

it('prints errors as one JSON object on standard error for --json', { timeout: 120_000 }, async () => {
  const cases: [string[], string, number][] = [
    [['serve', '--task', 'wrong.yaml', '--json'], 'config-invalid', 2],
    [['serve', '--bogus', '--json'], 'usage-invalid', 2],
    [['join', 'nonsense', '--data', 'mnist', '--json'], 'usage-invalid', 2],
    [['resume', 'runs/none', '--json'], 'file-unreadable', 2],
  ];
  for (const [args, code, status] of cases) {
    const running = run(args);
    expect(await running.ended).toBe(status);
    expect(running.out()).toBe('');
    const lines = running.err().trim().split('\n');
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0]!)).toMatchObject({ code, exitStatus: status, error: expect.any(String), field: expect.any(String), expected: expect.any(String), got: expect.any(String), next: expect.any(String) });
  }
});

it('prints help on standard output, without arguments too, and without colors where there is no terminal', { timeout: 120_000 }, async () => {
  const commands = ['serve', 'join', 'simulate', 'data', 'demo', 'ls', 'resume', 'doctor'];
  for (const args of [[], ['--help'], ...['serve', 'join', 'simulate', 'ls'].map((name) => [name, '--help'])]) {
    for (const env of [{}, { NO_COLOR: '1' }, { FORCE_COLOR: '1' }]) {
      if (args.length > 1 && Object.keys(env).length > 0) continue;
      const running = run(args, { env });
      expect(await running.ended).toBe(0);
      expect(running.err()).toBe('');
      expect(running.out()).toMatch(/^Usage: fedstill/);
      if (args.length < 2) for (const name of commands) expect(running.out()).toMatch(new RegExp(`^  ${name}\\b`, 'm'));
      expectPlain(running);
    }
  }
});

// --- with a coordinator ---

describe('with a coordinator', () => {
  let open: Running;
  let token: Running;
  /** Nobody answers there; a client looks for a minute. */
  let alone: Running;
  let openUrl = '';
  let tokenUrl = '';
  let tokenFile = '';
  beforeAll(async () => {
    alone = run(['join', nowhere, '--data', 'synthetic:20', '--state', 'alone']);
    open = run(['serve', '--task', 'open.yaml', '--port', '0', '--json']);
    token = run(['serve', '--task', 'token.yaml', '--port', '0', '--json']);
    openUrl = String((await eventLine(open, 'listening'))['joinUrl']);
    const listening = await eventLine(token, 'listening');
    tokenUrl = String(listening['joinUrl']);
    tokenFile = String(listening['tokenFile']);
  }, 120_000);

  it('refuses what would take over another run or port, and says who has it', { timeout: 120_000 }, async () => {
    const { port } = new URL(openUrl);
    await expectAll([
      ['a port that is taken', ['serve', '--task', 'token.yaml', '--run', 'second', '--port', port], { status: 2, code: 'port-unavailable', field: `127.0.0.1:${port}`, got: 'EADDRINUSE', says: /--port/ }],
      ['an address of another machine', ['serve', '--task', 'token.yaml', '--run', 'third', '--host', '192.0.2.1', '--port', '0'], { status: 2, code: 'port-unavailable', says: /--host/ }],
      ['a run that is served already', ['serve', '--task', 'open.yaml', '--port', '0'], { status: 2, code: 'state-locked', says: new RegExp(`process ${open.pid} `) }],
      ['the run of another task', ['serve', '--task', 'token.yaml', '--run', 'runs/open', '--port', '0'], { status: 2, code: 'state-mismatch', field: '--run', without: ['expected', 'got'] }],
    ]);
  });

  it('says what a client has wrong about the coordinator', { timeout: 120_000 }, async () => {
    const join = (url: string, ...more: string[]) => ['join', url, '--data', 'synthetic:20:1', '--state', `s${more.join('').replace(/\W/g, '')}`, ...more];
    const secret = (await readFile(tokenFile, 'utf8')).trim();
    await writeFile(at('wrong-token'), 'not-the-token-at-all\n');
    await expectAll([
      ['another fingerprint', join(`${new URL(openUrl).origin}/join/${'b'.repeat(26)}`, '--name', 'x'), { status: 4, code: 'fingerprint-mismatch', field: 'URL', says: /over a channel you trust|operator/ }],
      ['no token', join(tokenUrl, '--name', 'a'), { status: 4, code: 'token-refused', field: '--token', got: 'nothing', says: /--token-file/ }],
      ['a wrong token', join(tokenUrl, '--token', 'guessed'), { status: 4, code: 'token-refused', field: '--token', got: 'another text' }],
      ['a file with a wrong token', join(tokenUrl, '--token-file', 'wrong-token'), { status: 4, code: 'token-refused', field: '--token-file' }],
      ['no noise, not allowed', join(openUrl, '--name', 'b'), { status: 3, code: 'policy-refused', field: '--allow', got: 'none', says: /--allow gaussian laplace discreteGaussian( \w+)* none/ }],
      ['a budget that is too small', join(tokenUrl, '--token-file', tokenFile, '--max-epsilon', '0.5'), { status: 3, code: 'budget-exhausted', field: '--max-epsilon', says: /--max-epsilon/ }],
      ['noise of the kind that is not allowed', join(tokenUrl, '--token-file', tokenFile, '--allow', 'laplace'), { status: 3, code: 'policy-refused', field: '--allow', got: 'gaussian' }],
    ]);
    for (const text of shown) expect(text.replaceAll(tokenFile, '')).not.toContain(secret);
    for (const text of shown) expect(text.replace(/^\$.*$/gm, '')).not.toMatch(/guessed|not-the-token-at-all/);
  });

  it('says what is wrong with a client\'s data and model, and what the task takes', { timeout: 120_000 }, async () => {
    const join = (data: string, ...more: string[]) => ['join', openUrl, '--data', data, '--allow', 'none', '--state', `d${data.replace(/\W/g, '')}${more.join('').replace(/\W/g, '')}`, ...more];
    const split = run(['data', 'split', 'synthetic:40', '--num-classes', '3', '--shape', '2,2', '--clients', '1', '--out', 'parts']);
    expect(await split.ended, split.err()).toBe(0);
    await cp(at('parts', 'client-1'), at('cut'), { recursive: true });
    const images = at('cut', 'images-idx3-ubyte');
    await truncate(images, (await stat(images)).size - 7);
    await mkdir(at('nothing'), { recursive: true });
    const wrong = (more: Partial<Refusal> = {}): Refusal => ({ status: 2, code: 'data-invalid', ...more });
    const takes = /shape \[4\] with labels 0 to 2/;
    await expectAll([
      ['a folder that is missing', join('missing'), { status: 2, code: 'file-unreadable', field: /missing$/, got: 'no such file or folder' }],
      ['an empty folder', join('nothing'), { status: 2, code: 'file-unreadable', got: 'an empty folder' }],
      ['IDX cut short', join('cut'), wrong({ field: /images-idx3-ubyte/ })],
      ['no label column', join('good.csv'), wrong({ field: 'labelColumn', says: /--data FILE\.csv#NAME/ })],
      ['a label column that is none', join('good.csv#knd'), wrong({ says: /"knd"[\s\S]*a, b, c, d, kind/ })],
      ['words where numbers belong', join('words.csv#kind'), wrong({ says: /line 2[\s\S]*line 4/ })],
      ['more classes than the task', join('classes.csv#kind'), wrong({ says: takes })],
      ['another shape', join('narrow.csv#kind'), wrong({ says: takes })],
      ['an empty file', join('empty.csv#kind'), wrong()],
      ['images for a task of tables', join('mnist'), wrong({ says: takes })],
      ['a saved model cut short', join('good.csv#kind', '--model', 'half-model'), { status: 2, code: 'model-invalid', field: /model\.json$/, says: /is not JSON/, without: ['next'] }],
      ['a saved model without its weights', join('good.csv#kind', '--model', 'lost-weights'), { status: 2, code: 'file-unreadable', field: /weights\.bin$/ }],
      ['a model for images', join('good.csv#kind', '--model', 'cnn-small'), { status: 2, code: 'model-invalid', says: /Use one of/ }],
    ]);
  });

  it('lets one process use a state folder, and names the other', { timeout: 120_000 }, async () => {
    const first = run(['join', tokenUrl, '--data', 'synthetic:20:1', '--state', 'shared', '--token-file', tokenFile, '--json']);
    await eventLine(first, 'joined');
    await expectAll([['the same state folder', ['join', tokenUrl, '--data', 'synthetic:20:2', '--state', 'shared', '--token-file', tokenFile], { status: 2, code: 'state-locked', got: new RegExp(`process ${first.pid} `), says: /--state/ }]]);
    first.child.kill('SIGTERM');
    expect(await first.ended).toBe(143);
    expect(JSON.parse(first.out().trim().split('\n').at(-1)!)).toMatchObject({ event: 'stopped' });
    // The identity now waits for nothing: the task goes on without it.
  });

  it('refuses a task with fewer clients than the owner wants', { timeout: 120_000 }, async () => {
    const join = (n: number, ...more: string[]) => ['join', openUrl, '--data', `synthetic:20:${n}`, '--allow', 'none', '--state', `cohort-${n}`, ...more];
    const modest = run(join(1));
    await expectAll([['a round with too few clients', join(2, '--min-cohort', '50'), { status: 3, code: 'policy-refused', field: '--min-cohort', says: /--min-cohort 2/ }]]);
    modest.child.kill('SIGTERM');
    await modest.ended;
  });

  it('says that the disk is full, and goes on when there is room again', { timeout: 180_000 }, async (context) => {
    const disk = smallDisk();
    if (disk === undefined) context.skip('no small disk: mounting a tmpfs is not permitted here');
    const full = (more: Partial<Refusal> = {}): Refusal => ({ status: 1, code: 'disk-full', without: ['expected', 'got'], says: /[Ff]ree some space/, ...more });
    await disk!.leave(0);
    await expectAll([
      ['a run folder on a full disk', ['serve', '--task', 'open.yaml', '--run', join(disk!.path, 'run'), '--port', '0'], full()],
      ['a state folder on a full disk', ['join', openUrl, '--data', 'synthetic:20:1', '--allow', 'none', '--state', join(disk!.path, 'state')], full()],
    ]);
    // Room for the identity and the ledger, not for the transfer set and the student.
    await disk!.leave(24 * 1024);
    await expectAll([['a state folder on a disk that fills up', ['join', openUrl, '--data', 'synthetic:20:1', '--allow', 'none', '--state', join(disk!.path, 'state')], full()]]);
    // Room for the start, not for contributions.
    await rm(join(disk!.path, 'state'), { recursive: true, force: true });
    await disk!.leave(56 * 1024);
    const server = run(['serve', '--task', 'open.yaml', '--run', join(disk!.path, 'run'), '--port', '0']);
    const url = await until(server, 'its join URL', () => /http:\S+\/join\/[a-z2-7]{26}/.exec(server.out())?.[0]);
    const clients = [1, 2].map((n) => run(['join', url, '--data', `synthetic:20:${n}`, '--allow', 'none', '--state', `full-${n}`]));
    await until(server, 'its end', () => (server.isRunning() ? undefined : true), 120_000);
    expect(await server.ended).toBe(1);
    expect(server.err()).toMatch(/^ {2}code: +disk-full$/m);
    await disk!.leave(size);
    const resumed = run(['resume', join(disk!.path, 'run')]);
    expect(await resumed.ended, resumed.err()).toBe(0);
    expect(resumed.out()).toMatch(/2 of 2 contributions/);
    for (const client of clients) expect(await client.ended, client.err()).toBe(0);
  });

  it('gives up on a coordinator that is not there', { timeout: 180_000 }, async () => {
    await expectRefusal(alone, { status: 4, code: 'unreachable', field: 'URL', without: ['expected', 'got'], says: /Check that the coordinator runs/ });
    expect(alone.out()).toMatch(/trying again in/);
    shown.push(alone.err());
  });
});

/** Of the small disk, in bytes. */
const size = 1024 * 1024;

interface SmallDisk {
  readonly path: string;
  /** Fills it but for this many bytes. */
  leave(bytes: number): Promise<void>;
}

/** A tmpfs of a megabyte; `undefined` where mounting is not permitted. */
function smallDisk(): SmallDisk | undefined {
  const path = at('small-disk');
  try {
    execFileSync('mkdir', ['-p', path]);
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'fedstill-test', path], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  mounts.push(path);
  return {
    path,
    async leave(bytes) {
      await rm(join(path, 'filler'), { force: true });
      const free = Number(execFileSync('df', ['--output=avail', '-B1', path], { encoding: 'utf8' }).split('\n')[1]);
      await writeFile(join(path, 'filler'), Buffer.alloc(Math.max(0, free - bytes)));
    },
  };
}
