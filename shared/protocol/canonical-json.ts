/** Canonical JSON (RFC 8785, JCS): one text for one value, so that two encoders give the same bytes. */
import { isWellFormed } from '../types/bytes.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined };

/** Members sorted by UTF-16 code units, no white space, numbers as ECMAScript prints them; throws on NaN, infinities and lone surrogates. */
export function canonicalJson(value: Json): string {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`"value" expected a finite number, got ${value}`);
  if (typeof value === 'string') return canonicalText(value);
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${(value as readonly Json[]).map(canonicalJson).join(',')}]`;
  const members = Object.entries(value as Readonly<Record<string, Json | undefined>>)
    .filter((entry): entry is [string, Json] => entry[1] !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return `{${members.map(([key, member]) => `${canonicalText(key)}:${canonicalJson(member)}`).join(',')}}`;
}

/** RFC 8785 section 3.2.2.2: a text without UTF-8 bytes of its own has no canonical form. */
function canonicalText(text: string): string {
  if (!isWellFormed(text)) throw new TypeError('"value" expected text without lone surrogates');
  return JSON.stringify(text);
}
