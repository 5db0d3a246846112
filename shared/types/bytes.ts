/** Small byte helpers without Node: the same code runs in a browser. */

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** UTF-8 bytes of a text. A lone surrogate has none and becomes U+FFFD: see `isWellFormed`. */
export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** Text of UTF-8 bytes, a byte order mark included; throws `TypeError` on malformed UTF-8. */
export function fromUtf8(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** False for a text with a lone surrogate: two such texts can have the same UTF-8 bytes. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** Compares without an early exit, so that the time does not tell where two secrets differ. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}

const hexDigits = '0123456789abcdef';

/** Lower-case hexadecimal digits. */
export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += hexDigits[byte >> 4]! + hexDigits[byte & 15]!;
  return text;
}

/** Bytes of lower-case hexadecimal digits; `undefined` when the text is anything else. */
export function fromHex(text: string): Uint8Array | undefined {
  if (!/^(?:[0-9a-f]{2})*$/.test(text)) return undefined;
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

const base64Characters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** RFC 4648 section 4, with padding. */
export function toBase64(bytes: Uint8Array): string {
  const parts: string[] = [];
  for (let i = 0; i < bytes.length; i += 3) {
    const triple = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    const left = bytes.length - i;
    parts.push(
      base64Characters[triple >> 18]! +
        base64Characters[(triple >> 12) & 63]! +
        (left > 1 ? base64Characters[(triple >> 6) & 63]! : '=') +
        (left > 2 ? base64Characters[triple & 63]! : '='),
    );
  }
  return parts.join('');
}

const base64Values = new Int8Array(128).fill(-1);
for (let i = 0; i < 64; i++) base64Values[base64Characters.charCodeAt(i)] = i;

/** Bytes of padded base64; `undefined` unless the text is the one canonical encoding of its bytes. */
export function fromBase64(text: string): Uint8Array | undefined {
  if (text.length % 4 !== 0) return undefined;
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  let out = 0;
  for (let i = 0; i < text.length; i += 4) {
    let quad = 0;
    for (let j = 0; j < 4; j++) {
      const code = text.charCodeAt(i + j);
      const isPadding = i + j >= text.length - padding;
      const value = isPadding ? 0 : code < 128 ? base64Values[code]! : -1;
      if (value < 0) return undefined;
      quad = (quad << 6) | value;
    }
    for (let shift = 16; shift >= 0; shift -= 8) {
      if (out < bytes.length) bytes[out++] = (quad >> shift) & 0xff;
      else if (((quad >> shift) & 0xff) !== 0) return undefined; // bits beyond the last byte: not canonical
    }
  }
  return bytes;
}

const base32Characters = 'abcdefghijklmnopqrstuvwxyz234567';

/** RFC 4648 section 6 in lower case, without padding. */
export function toBase32(bytes: Uint8Array): string {
  let text = '';
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = ((buffer << 8) | byte) & 0xfff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += base32Characters[(buffer >> bits) & 31]!;
    }
  }
  if (bits > 0) text += base32Characters[(buffer << (5 - bits)) & 31]!;
  return text;
}

/** Four little-endian bytes of an unsigned 32-bit integer. */
export function uint32Bytes(value: number): Uint8Array {
  return Uint8Array.of(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24);
}
