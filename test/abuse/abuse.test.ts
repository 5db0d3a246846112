/** More than ten thousand malformed messages against a real `fedstill serve` while a real round is in progress. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { fromBase64, toBase32, toBase64, toHex, utf8 } from '../../shared/types/bytes.ts';
import { eventLine, fedstill, jsonLines, killAll, until, type Running } from '../cli/fedstill.ts';
import { flood, httpGarbage, inParallel, oversized, packetGarbage, slowRequests, tcpGarbage, webSocketGarbage, wrongEvents, type Abuse } from './garbage.ts';
import { forgedJoins, forgedUploads, Insider, leave, replaceSession } from './insider.ts';
import { RawSocket, Received, type Target } from './raw-peer.ts';
import { Tally } from './tally.ts';

// The noise-free mechanism keeps the clients' own work small; what is tested is what strangers can do to it.
const task = `
task: abused
data: {numClasses: 3, exampleShape: [4]}
transferSet: {source: synthetic, size: 50, seed: 5}
teacher: {kind: consensus}
student: {model: softmax-regression, pretrainEpochs: 1, digestEpochs: 1, revisitEpochs: 1}
schedule: {rounds: 2, minClients: 3, quorum: 3, roundDeadlineSeconds: 900}
admission: {mode: token}
`;

/**
 * How much the server's resident memory may grow over everything below, and between the first and the last of three equal phases. Each phase moves about 60 MB
 * through the server, so keeping any of it would show; V8 and malloc settle within the first.
 */
const maxGrowthMiB = 128;
const maxTrendMiB = 48;

let folder = '';
afterEach(async () => {
  killAll();
  if (folder !== '') await rm(folder, { recursive: true, force: true, maxRetries: 5 });
});

it('survives ten thousand malformed messages in the middle of a round: every event answered once, nothing leaked, the task completed', { timeout: 240_000 }, async () => {
  folder = await mkdtemp(join(tmpdir(), 'fedstill-abuse-'));
  await writeFile(join(folder, 'task.yaml'), task);
  const server = fedstill(['serve', '--task', 'task.yaml', '--port', '0', '--json', '--log-level', 'debug'], { cwd: folder });
  const listening = await eventLine(server, 'listening');
  const target: Target = { host: '127.0.0.1', port: Number(new URL(String(listening['origin'])).port) };
  const runFolder = join(folder, String(listening['run']));
  const token = (await readFile(String(listening['tokenFile']), 'utf8')).trim();

  const clients = [1, 2].map((n) =>
    fedstill(['join', String(listening['joinUrl']), '--data', `synthetic:60:${n}`, '--state', `client-${n}`, '--allow', 'none', '--token-file', String(listening['tokenFile']), '--json'], { cwd: folder }),
  );
  const received = new Received();
  const insider = await (await Insider.hello(target, received)).join(token);
  const round = await insider.nextRound();
  await eventLine(server, 'contribution', ({ contributions }) => contributions === 2);
  // From here on round 1 is in progress: two contributions are stored, the third is kept back.
  const secrets = await readSecrets(folder, runFolder, token);
  const stored = await readContributions(runFolder);
  expect(stored).toHaveLength(2);

  const tally = new Tally();
  const abuseOf = (seed: number): Abuse => ({ target, received, tally, random: new SeededGenerator(seed) });
  const memory = [await settledMemory(server)];
  for (const seed of [1, 2, 3]) {
    await onePhase(abuseOf(seed), token);
    await forgedUploads(insider, round, abuseOf(seed), stored);
    memory.push(await settledMemory(server));
    expect(server.isRunning()).toBe(true);
  }

  // The round and the next one end while the abuse goes on.
  const envelope = insider.honestEnvelope(round);
  expect(await insider.upload(1, envelope)).toMatchObject({ ok: true, accepted: true, duplicate: false });
  const meanwhile = inParallel(4, 2, async (i) => {
    const abuse = abuseOf(100 + i);
    await tcpGarbage(abuse, 10);
    await packetGarbage(abuse, 10);
    await httpGarbage(abuse, 20);
  });
  const second = await insider.nextRound();
  for (const stale of [envelope, ...stored]) {
    const answer = await insider.upload(1, stale);
    tally.count('stale uploads');
    tally.acknowledged(answer, 'a contribution to a round that is over');
    expect(answer).not.toMatchObject({ accepted: true, duplicate: false });
  }
  tally.count('stale uploads');
  const moved = await insider.upload(2, envelope);
  tally.acknowledged(moved, 'the envelope of round 1 in round 2');
  expect(moved?.ok).toBe(false);
  await meanwhile;
  expect(await insider.upload(2, insider.honestEnvelope(second))).toMatchObject({ ok: true, accepted: true, duplicate: false });
  await insider.socket.nextEvent('finished');
  await leave(insider, tally);

  const everyone = await Promise.all([server, ...clients].map(({ ended }) => ended));
  console.log(`${tally.table()}\nresident memory before and after each phase: ${memory.map((bytes) => (bytes / 2 ** 20).toFixed(0)).join(', ')} MiB`);
  expect(tally.faults).toEqual([]);
  expect(tally.total).toBeGreaterThanOrEqual(10_000);
  expect(everyone, server.err()).toEqual([0, 0, 0]);
  const events = jsonLines(server.out());
  expect(events.filter(({ event }) => event === 'round-released')).toMatchObject([{ round: 1, contributions: 3, cohort: 3 }, { round: 2, contributions: 3, cohort: 3 }]);
  expect(events.filter(({ event }) => event === 'round-aborted')).toEqual([]);
  for (const client of clients) expect(jsonLines(client.out()).at(-1)).toMatchObject({ event: 'summary', reason: 'rounds-done', contributedRounds: 2 });

  // A bug of ours would have left an error in the log.
  expect(jsonLines(server.err()).filter(({ level }) => level === 'error' || level === 'fatal' || Number(level) >= 50)).toEqual([]);
  const said = Buffer.concat([received.all(), ...[server, ...clients].flatMap(({ out, err }) => [Buffer.from(out()), Buffer.from(err())]), await readFile(join(runFolder, 'events.jsonl'))]);
  const needles = secrets.flatMap(({ name, bytes }) => formsOf(bytes).map((form) => ({ name, form })));
  expect(needles.filter(({ form }) => said.includes(form)).map(({ name }) => name)).toEqual([]);
  expect(said.includes(insider.sessionToken)).toBe(true); // the search finds what is there

  const [before, first, , last] = memory.map((bytes) => bytes / 2 ** 20) as [number, number, number, number];
  expect(last - before).toBeLessThan(maxGrowthMiB);
  expect(last - first).toBeLessThan(maxTrendMiB);
});

/** About 3,600 messages of every kind. */
async function onePhase(abuse: Abuse, token: string): Promise<void> {
  const { target, received, tally } = abuse;
  const endSlow = await slowRequests(abuse, 20);
  const strangers = async () => {
    for (let i = 0; i < 5; i++) {
      const socket = await RawSocket.open(target, received);
      await wrongEvents(abuse, socket, 300, 'events of strangers');
      socket.peer.destroy();
    }
  };
  const participants = async () => {
    for (let i = 0; i < 2; i++) {
      const participant = await (await Insider.hello(target, received)).join(token);
      await wrongEvents(abuse, participant.socket, 300, 'events of participants');
      await leave(participant, tally);
    }
    await replaceSession(abuse, token);
    await forgedJoins(abuse, token, 30);
  };
  await Promise.all([strangers(), participants(), tcpGarbage(abuse, 160), webSocketGarbage(abuse, 160), packetGarbage(abuse, 130), httpGarbage(abuse, 500)]);
  await flood(abuse, 900);
  await oversized(abuse, 20);
  endSlow();
}

// --- secrets ---

interface Secret {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Keys of the coordinator and of the honest clients, the join token, and the secret of the round in progress. */
async function readSecrets(root: string, runFolder: string, token: string): Promise<Secret[]> {
  const identities = [join(runFolder, 'identity.key'), ...[1, 2].map((n) => join(root, `client-${n}`, 'identity'))];
  const seeds = await Promise.all(identities.map(async (path) => ({ name: path, bytes: fromBase64((await readFile(path, 'utf8')).split('\n')[1]!)! })));
  const boxSecret = await readFile(join(runFolder, 'rounds', '1', 'box-secret'));
  expect(boxSecret).toHaveLength(32);
  expect(seeds.map(({ bytes }) => bytes.length)).toEqual([32, 32, 32]);
  return [...seeds, { name: 'box-secret', bytes: Uint8Array.from(boxSecret) }, { name: 'join-token', bytes: utf8(token) }];
}

/** How a secret could be written down. */
function formsOf(bytes: Uint8Array): Buffer[] {
  const hex = toHex(bytes);
  const base64 = toBase64(bytes).replace(/=+$/, '');
  const base32 = toBase32(bytes).replace(/=+$/, '');
  const texts = [hex, hex.toUpperCase(), base64, base64.replaceAll('+', '-').replaceAll('/', '_'), base32, base32.toUpperCase(), [...bytes].join(','), bytes.toString()];
  return [Buffer.from(bytes), ...texts.map((text) => Buffer.from(text))];
}

async function readContributions(runFolder: string): Promise<Uint8Array[]> {
  const directory = join(runFolder, 'rounds', '1', 'contributions');
  return Promise.all((await readdir(directory)).map((name) => readFile(join(directory, name))));
}

// --- memory ---

/** Resident memory in bytes, once it has stopped to fall. */
async function settledMemory(server: Running): Promise<number> {
  let lowest = Infinity;
  for (let unchanged = 0; unchanged < 4; ) {
    await delay(250);
    const now = await residentBytes(server);
    unchanged = now < lowest * 0.99 ? 0 : unchanged + 1;
    lowest = Math.min(lowest, now);
  }
  return lowest;
}

async function residentBytes(server: Running): Promise<number> {
  return until(server, 'its memory', async () => {
    const status = await readFile(`/proc/${server.pid}/status`, 'utf8').catch(() => '');
    const match = /^VmRSS:\s+(\d+) kB$/m.exec(status);
    return match === null ? undefined : Number(match[1]) * 1024;
  });
}
