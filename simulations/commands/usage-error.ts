/** Commander's complaints about a command line, in the form of all other errors: field, expected, got, what to do, and a code. */
import type { Command, CommanderError } from 'commander';
import { nearest } from '../../shared/config/load.ts';
import { FederationError, type ProblemInit } from '../../shared/errors.ts';

/** `args`: the whole command line. */
export function usageError(error: CommanderError, command: Command, args: readonly string[]): FederationError {
  const unknown = error.code === 'commander.missingMandatoryOptionValue' ? unknownOption(command, args) : undefined;
  if (unknown !== undefined) {
    // The more likely mistake: what is missing is there, misspelt.
    const near = nearest(unknown, longOptions(command));
    return fail(command, `There is no option ${unknown}.`, { field: unknown, expected: 'an option of this command', got: unknown }, near);
  }
  const text = error.message.replace(/^error: /, '');
  const [sentence = text] = text.split('\n');
  const near = /\(Did you mean (?:one of )?(.+?)\?\)/.exec(text)?.[1];
  return fail(command, asSentence(sentence), partsOf(sentence), near);
}

function fail(command: Command, message: string, parts: ProblemInit, near: string | undefined): FederationError {
  const isListTrap = parts.field !== undefined && /^https?:/.test(parts.got ?? '') && command.options.some(({ long, variadic }) => long === parts.field && variadic);
  const hint = isListTrap ? `The list of ${parts.field} goes on to the next option: put the URL before it. ` : near === undefined ? '' : `Did you mean ${near}? `;
  return new FederationError('usage-invalid', message, { ...parts, next: `${hint}All options: ${pathOf(command)} --help` });
}

/** What Commander's sentences say, by member. */
function partsOf(sentence: string): ProblemInit {
  const match = (pattern: RegExp) => pattern.exec(sentence)?.groups as Record<string, string> | undefined;
  const value = match(/^option '.*?(?<field>--[\w-]+).*?' argument '(?<got>.*?)' is invalid\. (?<why>.*)$/) ?? match(/^command-argument value '(?<got>.*?)' is invalid for argument '(?<field>.*?)'\. (?<why>.*)$/);
  if (value !== undefined) return { field: value['field']!, expected: expectation(value['why']!), got: value['got']! };
  const unknown = match(/^unknown (?<what>option|command) '(?<got>.*)'/);
  if (unknown !== undefined) return { field: unknown['got']!, expected: unknown['what'] === 'option' ? 'an option of this command' : 'a command of fedstill', got: unknown['got']! };
  const missing = match(/^required option '.*?(?<field>--[\w-]+) *(?<expected>.*)' not specified/) ?? match(/^missing required argument '(?<field>.*)'/) ?? match(/^option '.*?(?<field>--[\w-]+) *(?<expected>.*)' argument missing/);
  if (missing !== undefined) return { field: missing['field']!, expected: missing['expected'] ?? `<${missing['field']!}>`, got: 'nothing' };
  const excess = match(/Expected (?<expected>\d+ arguments?) but got (?<got>\d+)/);
  return excess === undefined ? {} : { field: 'arguments', expected: excess['expected']!, got: excess['got']! };
}

function expectation(why: string): string {
  return why.replace(/^Allowed choices are /, 'one of ').replace(/^Expected /i, '').replace(/\.$/, '');
}

function asSentence(text: string): string {
  const whole = `${text[0]!.toUpperCase()}${text.slice(1)}`;
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

function longOptions(command: Command): string[] {
  return [...command.options.flatMap(({ long }) => long ?? []), '--help'];
}

function unknownOption(command: Command, args: readonly string[]): string | undefined {
  const known = longOptions(command);
  return args.filter((arg) => arg.startsWith('--') && arg !== '--').map((arg) => arg.split('=')[0]!).find((name) => !known.includes(name));
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}
