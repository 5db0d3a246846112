/**
 * The ledger's rules: which entry follows, what a valid chain is, what has been spent. Pure; `node/file-ledger.ts` makes it
 * durable, `memory-ledger.ts` serves simulations.
 *
 * Entries are chained by SHA-256, so that an entry can't be changed, dropped from the middle or reordered unnoticed. The
 * chain has no secret: it reveals damage and honest mistakes, not an owner who rewrites the whole ledger to spend more of
 * their own privacy; and a cut-off tail is only visible with the anchor (`node/file-ledger.ts`).
 */
import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex, utf8ToBytes } from '@noble/hashes/utils.js';
import { z } from 'zod';
import { FederationError } from '../errors.ts';
import type { Digest, Instant, RoundId, TaskId } from '../types/ids.ts';
import type { Delta, Epsilon } from '../types/units.ts';
import type { PrivacyAccountant } from './accountants/accountant.ts';
import { accountantFor } from './accountants/composite-accountant.ts';
import type { NeighboringRelation, ReleaseEvent } from './dp-event.ts';
import { ReleaseEventSchema } from './dp-event.ts';
import type { PrivacyUnit, ReleaseEvents, ReleaseParameters } from './release.ts';
import { accountedRelation, ReleaseParametersSchema, releaseEvents, releaseUnit } from './release.ts';

/** Hashed in front of every entry, so that its hash can't be taken for the hash of anything else. */
const HASH_CONTEXT = 'fedstill/privacy-ledger/1\n';
/** What the first entry has as `previousHash`. */
export const GENESIS_HASH = `sha256:${'0'.repeat(64)}` as Digest;

/** What a client is about to send. */
export interface ReleaseCharge {
  readonly task: TaskId;
  readonly round: RoundId;
  /** Digest of the noised matrix, exactly as it is sent. */
  readonly contribution: Digest;
  readonly parameters: ReleaseParameters;
  readonly at: Instant;
}

const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/);
export const LedgerEntrySchema = z.strictObject({
  /** 1 for the first entry. */
  sequence: z.int().min(1),
  /** Milliseconds since the Unix epoch, by the client's clock. Informational. */
  at: z.int(),
  task: z.string().min(1).max(64),
  round: z.int().min(0),
  contribution: digest,
  parameters: ReleaseParametersSchema,
  events: z.strictObject({ zeroOut: ReleaseEventSchema, replaceOne: ReleaseEventSchema }),
  previousHash: digest,
  hash: digest,
});

export interface LedgerEntry extends ReleaseCharge {
  readonly sequence: number;
  /** As accounted when it was charged; later versions of the formulas don't rewrite history. */
  readonly events: ReleaseEvents;
  readonly previousHash: Digest;
  /** SHA-256 over all of the above. */
  readonly hash: Digest;
}

/**
 * The entry that charges this release: an existing one when the same contribution was charged before, else a new one.
 * Throws `state-mismatch` when the same contribution was charged under other parameters.
 */
export function nextEntry(entries: readonly LedgerEntry[], charge: ReleaseCharge): { readonly entry: LedgerEntry; readonly isNew: boolean } {
  const existing = entries.find((entry) => entry.task === charge.task && entry.round === charge.round && entry.contribution === charge.contribution);
  if (existing) {
    if (!isSameRelease(existing.parameters, charge.parameters)) {
      throw new FederationError('state-mismatch', 'this contribution was charged under other release parameters', {
        field: 'parameters',
        expected: canonicalJson(existing.parameters),
        got: canonicalJson(charge.parameters),
        next: 'Compute a new contribution (a new release) for the new parameters.',
      });
    }
    return { entry: existing, isNew: false };
  }
  const last = entries.at(-1);
  const content = {
    sequence: (last?.sequence ?? 0) + 1,
    at: charge.at,
    task: charge.task,
    round: charge.round,
    contribution: charge.contribution,
    parameters: charge.parameters,
    events: releaseEvents(charge.parameters),
    previousHash: last?.hash ?? GENESIS_HASH,
  };
  const entry = { ...content, hash: hashEntry(content) };
  // What could not be read back must not be written.
  const parsed = LedgerEntrySchema.safeParse(entry);
  if (!parsed.success) {
    throw new FederationError('internal', 'a release could not be described for the ledger; nothing was charged or sent', {
      field: parsed.error.issues[0]?.path.join('.') ?? 'entry',
      expected: parsed.error.issues[0]?.message ?? 'a valid entry',
    });
  }
  return { entry, isNew: true };
}

/** One line of the ledger file, without the line break. */
export function formatEntry(entry: LedgerEntry): string {
  return canonicalJson(entry);
}

/** Reads a ledger back. Throws `ledger-corrupt` at the first line that is not the valid successor of the lines before. */
export function verifyLedger(lines: readonly string[]): readonly LedgerEntry[] {
  const entries: LedgerEntry[] = [];
  const seen = new Set<string>();
  let previousHash = GENESIS_HASH;
  for (const [index, line] of lines.entries()) {
    const entry = parseEntry(line, index + 1);
    const { hash, ...content } = entry;
    if (entry.sequence !== index + 1) throw corrupt(index + 1, `sequence ${index + 1}`, `sequence ${entry.sequence}`);
    if (entry.previousHash !== previousHash) throw corrupt(index + 1, 'the hash of the line before', 'another hash');
    if (hashEntry(content) !== hash) throw corrupt(index + 1, 'a hash over the line', 'another hash');
    const key = canonicalJson([entry.task, entry.round, entry.contribution]);
    if (seen.has(key)) throw corrupt(index + 1, 'each contribution once', 'one for the second time');
    seen.add(key);
    previousHash = hash;
    entries.push(entry);
  }
  return entries;
}

/** What a total needs to know of an entry. */
export type ChargedRelease = Pick<LedgerEntry, 'events' | 'parameters'>;

/** A release as a ledger would hold it. */
export function chargedRelease(parameters: ReleaseParameters): ChargedRelease {
  return { parameters, events: releaseEvents(parameters) };
}

/**
 * What a total over these entries protects: the client when all of them do, else the record. A guarantee for everything of a client holds for one of its
 * records too; the other way round it does not.
 */
export function ledgerUnit(entries: readonly Pick<LedgerEntry, 'parameters'>[]): PrivacyUnit {
  return entries.some(({ parameters }) => releaseUnit(parameters) === 'record') ? 'record' : 'client';
}

/**
 * An entry's event in a total for `unit`. A record that is taken away leaves another dataset behind, not an all-zero contribution: in a total for records, what protects
 * clients counts with its replace-one event under both relations.
 */
export function eventFor(entry: ChargedRelease, unit: PrivacyUnit, adjacency: NeighboringRelation): ReleaseEvent {
  return entry.events[unit === 'record' && releaseUnit(entry.parameters) === 'client' ? 'replaceOne' : adjacency];
}

/** The accountant of all these entries, for `ledgerUnit(entries)`. */
export function ledgerAccountant(entries: readonly ChargedRelease[], adjacency: NeighboringRelation): PrivacyAccountant {
  const unit = ledgerUnit(entries);
  return accountantFor(
    entries.map((entry) => eventFor(entry, unit, adjacency)),
    accountedRelation(unit, adjacency),
  );
}

/**
 * Upper bound of the epsilon that all these entries have cost together, for `ledgerUnit(entries)`. A pure sum over time: it never shrinks. Valid as
 * a spending limit also when later parameters were chosen after seeing earlier outputs, for purely Gaussian ledgers
 * (Smith & Thakurta 2022) and purely Laplace ones (Rogers et al. 2016).
 */
export function spent(entries: readonly ChargedRelease[], adjacency: NeighboringRelation, delta: Delta): Epsilon {
  return ledgerAccountant(entries, adjacency).epsilon(delta);
}

function parseEntry(line: string, lineNumber: number): LedgerEntry {
  let raw: unknown;
  try {
    raw = JSON.parse(line);
  } catch {
    throw corrupt(lineNumber, 'JSON', 'something else');
  }
  const parsed = LedgerEntrySchema.safeParse(raw);
  if (!parsed.success) throw corrupt(lineNumber, parsed.error.issues[0]?.message ?? 'a ledger entry', parsed.error.issues[0]?.path.join('.') ?? 'something else');
  return parsed.data as LedgerEntry;
}

function corrupt(lineNumber: number, expected: string, got: string): FederationError {
  return new FederationError('ledger-corrupt', `line ${lineNumber} of the privacy ledger is damaged; nothing is sent while it is`, {
    field: `ledger[${lineNumber}]`,
    expected,
    got,
    next: 'Restore the ledger and its anchor from a backup that holds every release, or stop taking part with this private dataset.',
  });
}

function hashEntry(content: Omit<LedgerEntry, 'hash'>): Digest {
  return `sha256:${bytesToHex(sha256(utf8ToBytes(HASH_CONTEXT + canonicalJson(content))))}` as Digest;
}

/** Whether two releases have the same parameters. */
export function isSameRelease(a: ReleaseParameters, b: ReleaseParameters): boolean {
  return canonicalJson(a) === canonicalJson(b);
}

/** JSON with sorted keys and without spaces; numbers in ECMAScript's shortest form. */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const fields = Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, field]) => `${JSON.stringify(key)}:${canonicalJson(field)}`);
    return `{${fields.join(',')}}`;
  }
  return JSON.stringify(value);
}
