/** The help texts as they are, one file a command: a change to an option shows up in review. `npx vitest run test/e2e/help.test.ts -u` writes them anew. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { fedstill } from './support/processes.ts';

const golden = (name: string) => fileURLToPath(new URL(`help/${name}.txt`, import.meta.url));

async function help(...command: string[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'fedstill-help-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const process = fedstill([...command, '--help'], { cwd: folder, env: { COLUMNS: '100' } });
  expect(await process.ended).toBe(0);
  expect(process.err).toBe('');
  return process.out;
}

/** Names of the commands that a help text lists. */
function commandsIn(text: string): string[] {
  const list = /\nCommands:\n([\s\S]*?)(?:\n\n|$)/.exec(text)?.[1] ?? '';
  return [...list.matchAll(/^ {2}([a-z-]+)/gm)].map(([, name]) => name!).filter((name) => name !== 'help');
}

it('every command says what it can do', { timeout: 120_000 }, async () => {
  const pending: string[][] = [[]];
  let seen = 0;
  for (let command = pending.shift(); command !== undefined; command = pending.shift()) {
    const text = await help(...command);
    await expect(text).toMatchFileSnapshot(golden(['fedstill', ...command].join('-')));
    for (const name of commandsIn(text)) pending.push([...command, name]);
    seen++;
  }
  expect(seen).toBeGreaterThan(8);
});

it('a mistake on the command line has exit status 2 and points to the help', { timeout: 60_000 }, async () => {
  for (const args of [['serve'], ['nonsense'], ['join', '--data', 'mnist'], ['ls', '--nonsense']]) {
    const process = fedstill(args, { cwd: tmpdir() });
    expect(await process.ended).toBe(2);
    expect(process.err).toContain('--help');
    expect(process.out).toBe('');
  }
});
