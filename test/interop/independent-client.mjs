// A second fdp/1 client, written from docs/protocol.md alone to prove that the page is complete. It shares no code with the
// project and is no example to copy: its Gaussian sampler is plain double precision (Box-Muller over a CSPRNG), not one of
// those that docs/privacy-model.md proves, and its model is a softmax regression on data it makes up.
//
//   node independent-client.mjs JOINURL [--token T] [--seed N] [--state DIR] [--chunk BYTES] [--drop-after CHUNKS] [--crash-after CHUNKS]
//
// Prints one JSON object a line. Exit status 0 after a verified `finished`, else as in docs/errors.md. --drop-after cuts the
// connection once after so many chunks, --crash-after ends the process there: both are for tests of resuming.
import {
  createHash, createHmac, createPrivateKey, createPublicKey, randomBytes, sign as cryptoSign, timingSafeEqual, verify as cryptoVerify,
} from 'node:crypto';
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { get as httpGet } from 'node:http';
import { get as httpsGet } from 'node:https';
import { setImmediate as breathe, setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { crc32 } from 'node:zlib';
import { io } from 'socket.io-client';
import nacl from 'tweetnacl';

// ---------------------------------------------------------------- section 4: problems

/** A failure with a stable code of docs/errors.md. */
export class Problem extends Error {
  constructor(code, details = {}) {
    super(`${code} ${JSON.stringify(details)}`);
    this.code = code;
    this.details = details;
  }
  toWire() {
    const { status = 400, ...rest } = this.details;
    return { type: `urn:fedstill:problem:${this.code}`, code: this.code, title: `The client refused: ${this.code}.`, status, ...rest };
  }
}

const KNOWN_CODES = new Set(`config-invalid file-unreadable data-invalid model-invalid usage-invalid port-unavailable state-locked
  state-mismatch engine-unavailable budget-exhausted policy-refused event-unsupported ledger-corrupt protocol-unsupported
  message-malformed message-too-large event-unknown frame-malformed frame-checksum shape-mismatch value-out-of-range
  not-authenticated signature-invalid fingerprint-mismatch token-refused not-admitted not-in-cohort session-replaced
  round-unknown round-closed stage-mismatch contribution-conflict envelope-invalid context-mismatch upload-unknown
  upload-offset upload-digest digest-mismatch rate-limited not-found method-not-allowed capacity-exceeded deadline-exceeded
  disconnected unreachable task-finished quorum-missed declined disk-full worker-failed internal`.split(/\s+/));

function problemFromWire(value) {
  if (!isObject(value) || typeof value.code !== 'string') return new Problem('message-malformed', { field: 'problem' });
  const { code, status, field, expected, got, next, nextRound } = value;
  return new Problem(KNOWN_CODES.has(code) ? code : 'declined', { status, field, expected, got, next, nextRound });
}

const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v) && !Buffer.isBuffer(v);
function require(condition, code, details) {
  if (!condition) throw new Problem(code, details);
}

// ---------------------------------------------------------------- section 2: primitives

export const sha256 = (...parts) => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};
export const digestText = (hash) => `sha256:${Buffer.from(hash).toString('hex')}`;
export function digestBytes(text, field) {
  require(typeof text === 'string' && /^sha256:[0-9a-f]{64}$/.test(text), 'message-malformed', { field, expected: 'a digest' });
  return Buffer.from(text.slice(7), 'hex');
}
export const b64 = (bytes) => Buffer.from(bytes).toString('base64');
export function unb64(text, length, field) {
  require(typeof text === 'string', 'message-malformed', { field, expected: 'base64' });
  const bytes = Buffer.from(text, 'base64');
  require(bytes.toString('base64') === text && bytes.length === length, 'message-malformed', { field, expected: `${length} bytes in base64` });
  return bytes;
}

export function fingerprint(publicKey) {
  const bits = [...sha256('fdp/1 identity\n', publicKey)].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  let text = '';
  for (let i = 0; i < 26; i++) text += 'abcdefghijklmnopqrstuvwxyz234567'[parseInt(bits.slice(5 * i, 5 * i + 5), 2)];
  return text;
}

const PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex');
const SPKI = Buffer.from('302a300506032b6570032100', 'hex');

export function identityFromSeed(seed) {
  const secret = createPrivateKey({ key: Buffer.concat([PKCS8, seed]), format: 'der', type: 'pkcs8' });
  const publicKey = Buffer.from(createPublicKey(secret).export({ format: 'der', type: 'spki' }).subarray(SPKI.length));
  return { seed: Buffer.from(seed), publicKey, id: fingerprint(publicKey), sign: (...parts) => cryptoSign(null, Buffer.concat(parts.map((p) => Buffer.from(p))), secret) };
}

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const mod = (x) => ((x % P) + P) % P;
function power(base, exponent) {
  let result = 1n;
  for (let b = mod(base), e = exponent; e > 0n; e >>= 1n, b = mod(b * b)) if (e & 1n) result = mod(result * b);
  return result;
}
const D = mod(-121665n * power(121666n, P - 2n));
const ROOT_MINUS_1 = power(2n, (P - 1n) / 4n);
const littleEndian = (bytes) => BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);

/** True unless the key is a point of the curve whose order does not divide 8. */
export function isWeakEd25519Key(publicKey) {
  const y = littleEndian(publicKey) & (2n ** 255n - 1n);
  if (y >= P) return true;
  const u = mod(y * y - 1n);
  const v = mod(D * y * y + 1n);
  let x = mod(u * power(v, 3n) * power(u * power(v, 7n), (P - 5n) / 8n));
  if (mod(v * x * x) === mod(-u)) x = mod(x * ROOT_MINUS_1);
  if (mod(v * x * x) !== u) return true;
  let point = { x, y };
  for (let i = 0; i < 3; i++) {
    // Affine doubling on -x^2 + y^2 = 1 + d x^2 y^2; the denominators are never 0 on this curve.
    const k = mod(D * point.x * point.x * point.y * point.y);
    point = {
      x: mod(2n * point.x * point.y * power(1n + k, P - 2n)),
      y: mod((point.y * point.y + point.x * point.x) * power(1n - k, P - 2n)),
    };
  }
  return point.x === 0n && point.y === 1n;
}

export function verifySignature(publicKey, message, signature) {
  if (signature.length !== 64 || publicKey.length !== 32) return false;
  if (littleEndian(signature.subarray(32)) >= L || isWeakEd25519Key(publicKey)) return false;
  try {
    return cryptoVerify(null, message, createPublicKey({ key: Buffer.concat([SPKI, publicKey]), format: 'der', type: 'spki' }), signature);
  } catch {
    return false;
  }
}

export function requireUsableBoxKey(publicKey) {
  // A clamped scalar times a point of low order is zero, whatever the scalar.
  const shared = nacl.scalarMult(new Uint8Array(32).fill(0x55), new Uint8Array(publicKey));
  require(shared.some((byte) => byte !== 0), 'value-out-of-range', { field: 'boxKey', expected: 'a key that is not of low order' });
}

/** `http(s)://HOST:PORT/join/FINGERPRINT` */
export function parseJoinUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    throw new Problem('usage-invalid', { field: 'URL', got: text });
  }
  const match = /^\/join\/([a-z2-7]{26})$/.exec(url.pathname);
  require((url.protocol === 'http:' || url.protocol === 'https:') && match, 'usage-invalid', { field: 'URL', got: text });
  return { origin: url.origin, fingerprint: match[1] };
}

// ---------------------------------------------------------------- section 5: signed documents

const MAX_DOCUMENT = 12_582_912;
export const documentHash = (kind, document) => sha256(`fdp/1 ${kind}\n`, Buffer.from(document, 'utf8'));

/** RFC 8785 for the values that occur here. */
export function canonicalJson(value) {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (isObject(value)) return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonicalJson(value[key])}`).join(',')}}`;
  return JSON.stringify(value);
}

/** Verifies, then parses: { value, hash }. */
export function openDocument(kind, signed, coordinatorKey) {
  require(isObject(signed) && typeof signed.document === 'string', 'message-malformed', { field: kind, expected: 'a signed document' });
  require(signed.document.length <= MAX_DOCUMENT, 'message-too-large', { field: kind });
  require(signed.document.isWellFormed(), 'signature-invalid', { field: kind });
  const signature = unb64(signed.signature, 64, `${kind}.signature`);
  const bytes = Buffer.from(signed.document, 'utf8');
  require(verifySignature(coordinatorKey, Buffer.concat([Buffer.from(`fdp/1 ${kind}\n`), bytes]), signature), 'signature-invalid', { field: kind });
  let value;
  try {
    value = JSON.parse(signed.document);
  } catch {
    throw new Problem('message-malformed', { field: kind, expected: 'JSON' });
  }
  require(isObject(value), 'message-malformed', { field: kind, expected: 'a JSON object' });
  return { value, hash: documentHash(kind, signed.document) };
}

// ---------------------------------------------------------------- section 6: transcripts

export const helloTranscript = ({ clientKey, clientNonce, serverNonce, taskDigest }) =>
  Buffer.concat([Buffer.from('fdp/1 hello\n'), clientKey, clientNonce, serverNonce, taskDigest]);
export const joinTranscript = ({ coordinatorKey, clientKey, clientNonce, serverNonce, taskDigest }) =>
  Buffer.concat([Buffer.from('fdp/1 join\n'), coordinatorKey, clientKey, clientNonce, serverNonce, taskDigest]);
export const tokenProof = (token, { coordinatorKey, clientKey, clientNonce, serverNonce }) =>
  createHmac('sha256', Buffer.from(token, 'utf8'))
    .update(Buffer.concat([Buffer.from('fdp/1 token\n'), coordinatorKey, clientKey, clientNonce, serverNonce])).digest();

// ---------------------------------------------------------------- section 9: matrix frames

const DTYPES = { float32: 1, float16: 2, uint8: 3, int32: 4, bits1: 5, bits2: 6, bits3: 7, bits4: 8, bits5: 9, bits6: 10, bits7: 11, bits8: 12 };
const CONTENTS = { features: 1, logits: 2, probabilities: 3, grid: 4 };
const WIDTHS = { float32: 4, float16: 2, uint8: 1, int32: 4 };
const MAX_FRAME = 2 ** 30;
const nameOf = (table, code) => Object.keys(table).find((name) => table[name] === code);

export function halfFromNumber(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  require(size < 65520, 'value-out-of-range', { got: String(value) });
  if (size === 0) return sign;
  const exponent = Math.max(Math.floor(Math.log2(size)), -14);
  // In units of the last place, ties to even; a carry runs into the exponent by itself.
  const scaled = size / 2 ** (exponent - 10);
  let units = Math.floor(scaled);
  const rest = scaled - units;
  if (rest > 0.5 || (rest === 0.5 && units % 2 === 1)) units += 1;
  return sign | (units >= 1024 ? ((exponent + 14) << 10) + units : units);
}
export function numberFromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15));
}

// Section 9.1, on one big integer: value i begins at bit i * width.
const bitsOf = (dtype) => (dtype.startsWith('bits') ? Number(dtype.slice(4)) : 0);
const packedShape = (bits, [rows, columns]) => (bits === 1 ? { count: rows, width: BigInt((columns - 1).toString(2).length) } : { count: rows * columns, width: BigInt(bits) });
const valueBytes = (dtype, shape) => {
  const bits = bitsOf(dtype);
  if (bits === 0) return shape.reduce((a, b) => a * b, 1) * WIDTHS[dtype];
  const { count, width } = packedShape(bits, shape);
  return Math.ceil((count * Number(width)) / 8);
};

/** Levels of one row that sum to 2^bits - 1. */
export function levelsOf(row, bits) {
  const whole = 2 ** bits - 1;
  const positive = row.map((p) => Math.max(0, p));
  const sum = positive.reduce((a, b) => a + b, 0);
  const shares = positive.map((p) => (p / sum) * whole);
  const levels = shares.map(Math.floor);
  const missing = whole - levels.reduce((a, b) => a + b, 0);
  const byRemainder = shares.map((share, c) => ({ c, rest: share - levels[c] })).sort((a, b) => b.rest - a.rest || a.c - b.c);
  for (const { c } of byRemainder.slice(0, missing)) levels[c] += 1;
  return levels;
}

function packProbabilities(values, bits, [rows, columns], target) {
  const { width } = packedShape(bits, [rows, columns]);
  const levels = Array.from({ length: rows }, (_, row) => levelsOf(values.slice(row * columns, (row + 1) * columns), bits));
  const numbers = bits === 1 ? levels.map((row) => row.indexOf(1)) : levels.flat();
  let packed = 0n;
  numbers.forEach((number, i) => { packed |= BigInt(number) << (BigInt(i) * width); });
  for (let i = 0; i < target.length; i++) target[i] = Number((packed >> BigInt(8 * i)) & 255n);
}

function unpackProbabilities(bytes, bits, [rows, columns]) {
  const { count, width } = packedShape(bits, [rows, columns]);
  let packed = 0n;
  bytes.forEach((byte, i) => { packed |= BigInt(byte) << BigInt(8 * i); });
  require(packed >> (BigInt(count) * width) === 0n, 'frame-malformed', { field: 'padding' });
  const numbers = Array.from({ length: count }, (_, i) => Number((packed >> (BigInt(i) * width)) & ((1n << width) - 1n)));
  if (bits === 1) {
    return numbers.flatMap((label) => {
      require(label < columns, 'value-out-of-range', { got: String(label) });
      return Array.from({ length: columns }, (_, c) => (c === label ? 1 : 0));
    });
  }
  const whole = 2 ** bits - 1;
  for (let row = 0; row < rows; row++) require(numbers.slice(row * columns, (row + 1) * columns).reduce((a, b) => a + b, 0) === whole, 'value-out-of-range', { field: `row ${row}` });
  return numbers.map((level) => Math.fround(level / whole));
}

export function encodeFrame({ dtype, content, shape, values }) {
  const header = 16 + 4 * shape.length;
  const frame = Buffer.alloc(header + valueBytes(dtype, shape) + 4);
  if (bitsOf(dtype) > 0) packProbabilities(values, bitsOf(dtype), shape, frame.subarray(header, -4));
  let scale = 1;
  let offset = 0;
  frame.write('FDPM', 'latin1');
  frame.set([1, DTYPES[dtype], shape.length, CONTENTS[content]], 4);
  shape.forEach((side, i) => frame.writeUInt32LE(side, 16 + 4 * i));
  if (dtype === 'float32') values.forEach((v, i) => frame.writeFloatLE(v, header + 4 * i));
  if (dtype === 'int32') values.forEach((v, i) => frame.writeInt32LE(v, header + 4 * i));
  if (dtype === 'float16') values.forEach((v, i) => frame.writeUInt16LE(halfFromNumber(v), header + 2 * i));
  if (dtype === 'uint8') {
    const low = values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    offset = Math.fround(low);
    scale = Math.fround((high - low) / 255);
    values.forEach((v, i) => { frame[header + i] = scale === 0 ? 0 : Math.max(0, Math.min(255, Math.round((v - offset) / scale))); });
  }
  frame.writeFloatLE(scale, 8);
  frame.writeFloatLE(offset, 12);
  frame.writeUInt32LE(crc32(frame.subarray(0, -4)) >>> 0, frame.length - 4);
  return frame;
}

/** Refuses a frame that is malformed, damaged, or not of the expected content and shape. */
export function decodeFrame(frame, expected = {}) {
  const malformed = (field) => new Problem('frame-malformed', { field });
  if (frame.length < 24 || frame.toString('latin1', 0, 4) !== 'FDPM' || frame[4] !== 1) throw malformed('magic');
  const dtype = nameOf(DTYPES, frame[5]);
  const content = nameOf(CONTENTS, frame[7]);
  const rank = frame[6];
  if (!dtype || !content || rank < 1 || rank > 5 || (content === 'grid') !== (dtype === 'int32')) throw malformed('dtype');
  const header = 16 + 4 * rank;
  if (frame.length < header + 4) throw malformed('length');
  const shape = Array.from({ length: rank }, (_, i) => frame.readUInt32LE(16 + 4 * i));
  const count = shape.reduce((a, b) => a * b, 1);
  const bits = bitsOf(dtype);
  if (bits > 0 && (content !== 'probabilities' || rank !== 2 || shape[1] < 2 || shape[1] > 1000 || count > MAX_FRAME / 4)) throw malformed('shape');
  if (shape.some((side) => side === 0) || valueBytes(dtype, shape) > MAX_FRAME || frame.length !== header + valueBytes(dtype, shape) + 4) throw malformed('length');
  const scale = frame.readFloatLE(8);
  const offset = frame.readFloatLE(12);
  if (dtype === 'uint8' ? !(Number.isFinite(scale) && Number.isFinite(offset) && scale >= 0) : scale !== 1 || offset !== 0) throw malformed('scale');
  require(crc32(frame.subarray(0, -4)) >>> 0 === frame.readUInt32LE(frame.length - 4), 'frame-checksum');
  if (expected.content) require(content === expected.content, 'shape-mismatch', { expected: expected.content, got: content });
  if (expected.shape) require(shape.join('x') === expected.shape.join('x'), 'shape-mismatch', { expected: expected.shape.join('x'), got: shape.join('x') });
  if (bits > 0) return { dtype, content, shape, values: unpackProbabilities(frame.subarray(header, -4), bits, shape), scale, offset };
  const values = new Array(count);
  for (let i = 0; i < count; i++) {
    if (dtype === 'float32') values[i] = frame.readFloatLE(header + 4 * i);
    else if (dtype === 'int32') values[i] = frame.readInt32LE(header + 4 * i);
    else if (dtype === 'float16') values[i] = numberFromHalf(frame.readUInt16LE(header + 2 * i));
    else values[i] = Math.fround(offset + Math.fround(scale * frame[header + i]));
    require(Number.isFinite(values[i]), 'value-out-of-range', { got: String(values[i]) });
  }
  return { dtype, content, shape, values, scale, offset };
}

/** Section 9.2: the rows at these positions of [n x C] values. */
export function encodePartialFrame({ dtype, content, shape: [n, columns], values, shared }) {
  const mask = Buffer.alloc(Math.ceil(n / 8));
  for (const row of shared) mask[row >> 3] |= 1 << (row & 7);
  const inner = shared.length === 0 ? Buffer.alloc(0) : encodeFrame({ dtype, content, shape: [shared.length, columns], values: shared.flatMap((row) => values.slice(row * columns, (row + 1) * columns)) });
  const frame = Buffer.concat([Buffer.from('FDPP\x01\0\0\0', 'latin1'), Buffer.alloc(4), mask, inner, Buffer.alloc(4)]);
  frame.writeUInt32LE(n, 8);
  frame.writeUInt32LE(crc32(frame.subarray(0, -4)) >>> 0, frame.length - 4);
  return frame;
}

// ---------------------------------------------------------------- section 10: rounds

/** Whether `sharing` asks for this row. */
function isShared(row, kind, { minConfidence, maxEntropy }) {
  const probabilities = kind === 'logits' ? softmax(row) : row;
  const entropy = probabilities.reduce((sum, p) => sum - (p > 0 ? p * Math.log(p) : 0), 0);
  return Math.max(...probabilities) >= minConfidence && (maxEntropy >= 1 || entropy <= maxEntropy * Math.log(row.length));
}

export function decodeIndices({ count, indices, bitmap }, rows, field) {
  if (bitmap !== undefined) {
    require(indices === undefined, 'message-malformed', { field });
    const bytes = unb64(bitmap, Math.ceil(rows / 8), `${field}.bitmap`);
    const list = Array.from({ length: 8 * bytes.length }, (_, i) => i).filter((i) => (bytes[i >> 3] >> (i & 7)) & 1);
    require(list.length === count && count >= 1 && list.at(-1) < rows, 'value-out-of-range', { field: `${field}.bitmap` });
    return list;
  }
  require(Number.isSafeInteger(count) && count >= 1 && count <= rows, 'value-out-of-range', { field: `${field}.count`, got: String(count) });
  const bytes = unb64(indices, 4 * count, `${field}.indices`);
  const list = Array.from({ length: count }, (_, i) => bytes.readUInt32LE(4 * i));
  list.forEach((index, i) => require(index < rows && (i === 0 || index > list[i - 1]), 'value-out-of-range', { field: `${field}.indices`, got: String(index) }));
  return list;
}
const positiveInteger = (v) => Number.isSafeInteger(v) && v >= 1;

/** The checks of section 10 that need no history; gives query and label indices. */
export function checkRound(round, task, taskDigest) {
  const malformed = (condition, field) => require(condition, 'message-malformed', { field });
  require(round.protocol === 'fdp/1', 'protocol-unsupported', { got: String(round.protocol) });
  require(round.task === task.task, 'context-mismatch', { field: 'task' });
  require(digestBytes(round.taskDigest, 'taskDigest').equals(taskDigest), 'context-mismatch', { field: 'taskDigest' });
  malformed(positiveInteger(round.round) && round.round < 2 ** 32, 'round');
  if (round.previous !== null) digestBytes(round.previous, 'previous');
  require(round.trustMode === task.privacy.trustMode, 'context-mismatch', { field: 'trustMode' });
  malformed(round.trustMode === 'sealed' || round.trustMode === 'clear', 'trustMode');
  require(Array.isArray(round.stages) && round.stages.length === 1 && round.stages[0] === 'contribution', 'stage-mismatch', { field: 'stages' });
  requireUsableBoxKey(unb64(round.boxKey, 32, 'boxKey'));
  const release = round.release;
  malformed(isObject(release) && isObject(round.query) && isObject(round.cohort), 'release');
  const known = ['mechanism', 'outputKind', 'rows', 'columns', 'rowClippingNorm', 'gridStep', 'noise'];
  malformed(Object.keys(release).every((key) => known.includes(key)), 'release');
  malformed(['none', 'gaussian', 'laplace'].includes(release.mechanism), 'release.mechanism');
  require(release.mechanism === task.privacy.mechanism, 'context-mismatch', { field: 'release.mechanism' });
  malformed(['probabilities', 'logits'].includes(release.outputKind), 'release.outputKind');
  require(release.rows === round.query.count && release.columns === task.numClasses, 'shape-mismatch', { field: 'release' });
  malformed(release.gridStep >= 2 ** -24 && release.gridStep <= 1, 'release.gridStep');
  malformed(release.outputKind === 'logits' ? release.rowClippingNorm > 0 && release.rowClippingNorm <= 1e6 : release.rowClippingNorm === undefined, 'release.rowClippingNorm');
  if (release.mechanism === 'none') malformed(release.noise === null, 'release.noise');
  else {
    const noise = release.noise?.[release.mechanism === 'gaussian' ? 'sigmaGrid' : 'scaleGrid'];
    malformed(isObject(release.noise) && Object.keys(release.noise).length === 1 && positiveInteger(noise) && noise < 2 ** 31, 'release.noise');
  }
  malformed(['float32', 'float16', 'uint8'].includes(round.encoding) || (bitsOf(String(round.encoding)) >= 1 && bitsOf(round.encoding) <= 8 && release.mechanism === 'none' && release.outputKind === 'probabilities'), 'encoding');
  if (round.sharing != null) malformed(release.mechanism === 'none' && round.sharing.minConfidence >= 0 && round.sharing.minConfidence <= 1 && round.sharing.maxEntropy >= 0 && round.sharing.maxEntropy <= 1, 'sharing');
  const query = decodeIndices(round.query, task.transferSet.rows, 'query');
  return { query, labels: round.labels === null ? null : checkLabels(round.labels, task) };
}
function checkLabels(labels, task) {
  require(isObject(labels) && ['logits', 'probabilities'].includes(labels.kind), 'message-malformed', { field: 'labels' });
  digestBytes(labels.digest, 'labels.digest');
  return decodeIndices(labels, task.transferSet.rows, 'labels');
}

/** e^(x^2) erfc(x) for x >= 0, by Simpson's rule on 2/sqrt(pi) times the integral of e^(-t^2 - 2xt). */
function erfcx(x) {
  const steps = 4000;
  const width = 7 / steps;
  let sum = 0;
  for (let i = 0; i <= steps; i++) {
    const t = i * width;
    sum += Math.exp(-t * t - 2 * x * t) * (i === 0 || i === steps ? 1 : i % 2 === 1 ? 4 : 2);
  }
  return (2 / Math.sqrt(Math.PI)) * (width / 3) * sum;
}

/** Section 10.2: the delta of a Gaussian mechanism with this mu at this epsilon. */
export function gaussianDelta(mu, epsilon) {
  const a = mu / 2 - epsilon / mu;
  const tail = erfcx((mu / 2 + epsilon / mu) / Math.SQRT2);
  const density = Math.exp((-a * a) / 2) / 2; // e^epsilon times that of -mu/2 - epsilon/mu is the same
  return a < 0 ? density * (erfcx(-a / Math.SQRT2) - tail) : 1 - density * (erfcx(a / Math.SQRT2) + tail);
}

/** Section 10: refuses a release with less noise than its task promises. */
export function checkNoise({ mechanism, outputKind, rows, columns, rowClippingNorm = 1, gridStep, noise }, { epsilon, delta, releases }) {
  if (mechanism === 'none') return;
  const limit = epsilon * (1 + 1e-6);
  const slack = 1 + 2 ** -36;
  const isLogits = outputKind === 'logits';
  if (mechanism === 'gaussian') {
    const sensitivity = ((isLogits ? 2 * rowClippingNorm : Math.SQRT2) * Math.sqrt(rows) * slack) / gridStep;
    const cost = gaussianDelta((Math.sqrt(releases) * sensitivity) / noise.sigmaGrid, limit);
    require(cost <= delta, 'context-mismatch', { field: 'release.noise', expected: `delta ${delta}`, got: `delta ${cost}` });
  } else {
    const sensitivity = ((isLogits ? 2 * rowClippingNorm * Math.sqrt(columns) : 2) * rows * slack) / gridStep;
    const cost = (releases * sensitivity) / noise.scaleGrid;
    require(cost <= limit, 'context-mismatch', { field: 'release.noise', expected: `epsilon ${epsilon}`, got: `epsilon ${cost}` });
  }
}

/** Section 10.1, steps 1 to 3: integers of bounded sensitivity. */
export function toGrid(values, release) {
  const { rows, columns, outputKind, rowClippingNorm, gridStep } = release;
  const out = [...values];
  const shrink = (from, to, bound) => {
    const norm = Math.hypot(...out.slice(from, to));
    if (norm > bound) for (let i = from; i < to; i++) out[i] *= bound / norm;
  };
  for (let r = 0; r < rows; r++) {
    const [from, to] = [r * columns, (r + 1) * columns];
    if (outputKind === 'logits') shrink(from, to, rowClippingNorm);
    else {
      for (let i = from; i < to; i++) out[i] = Math.max(0, out[i]);
      const sum = out.slice(from, to).reduce((a, b) => a + b, 0);
      for (let i = from; i < to; i++) out[i] = sum > 0 ? out[i] / sum : 1 / columns;
    }
  }
  const bound = (outputKind === 'logits' ? rowClippingNorm : 1) * Math.sqrt(rows);
  let square = 0;
  for (const v of out) square += v * v;
  const factor = Math.sqrt(square) > bound ? bound / Math.sqrt(square) : 1;
  return out.map((v) => Math.trunc((v * factor) / gridStep));
}

/** In (0, 1), 53 bits of the operating system's generator. */
const secureUniform = () => {
  const bytes = randomBytes(8);
  return (Number(bytes.readBigUInt64LE() >> 11n) + 0.5) / 2 ** 53;
};
const roundedGaussian = (sigma) => Math.round(sigma * Math.sqrt(-2 * Math.log(secureUniform())) * Math.cos(2 * Math.PI * secureUniform()));
const discreteLaplace = (scale) => {
  const geometric = () => Math.floor(-scale * Math.log(secureUniform()));
  return geometric() - geometric();
};

/** Predictions to the frame of a contribution. */
export function contributionFrame(predictions, round) {
  const { release } = round;
  const shape = [release.rows, release.columns];
  require(predictions.every(Number.isFinite), 'data-invalid');
  if (release.mechanism === 'none') {
    const frame = { dtype: round.encoding, content: release.outputKind, shape, values: predictions };
    if (round.sharing == null) return encodeFrame(frame);
    const shared = Array.from({ length: shape[0] }, (_, row) => row).filter((row) => isShared(predictions.slice(row * shape[1], (row + 1) * shape[1]), release.outputKind, round.sharing));
    return encodePartialFrame({ ...frame, shared });
  }
  const noise = release.mechanism === 'gaussian' ? () => roundedGaussian(release.noise.sigmaGrid) : () => discreteLaplace(release.noise.scaleGrid);
  const values = toGrid(predictions, release).map((v) => (v + noise()) | 0);
  return encodeFrame({ dtype: 'int32', content: 'grid', shape, values });
}

// ---------------------------------------------------------------- section 11: the sealed envelope

export const envelopeContext = ({ taskDigest, round, senderKey, transcriptHash }) => {
  const middle = Buffer.alloc(8);
  middle.writeUInt32LE(round, 0);
  middle[4] = 1;
  return Buffer.concat([taskDigest, middle, senderKey, transcriptHash]);
};

export function sealEnvelope({ identity, taskDigest, transcriptHash, round, boxKey, frame, ephemeral, nonce, context }) {
  const pair = ephemeral ?? nacl.box.keyPair();
  const fresh = nonce ?? randomBytes(24);
  const plain = Buffer.concat([context ?? envelopeContext({ taskDigest, round, senderKey: identity.publicKey, transcriptHash }), frame]);
  const box = nacl.box(new Uint8Array(plain), new Uint8Array(fresh), new Uint8Array(boxKey), pair.secretKey);
  const header = Buffer.alloc(104);
  header.write('FDPE', 'latin1');
  header[4] = 1;
  header[5] = 1;
  header.writeUInt32LE(round, 8);
  header.set(identity.publicKey, 12);
  header.set(pair.publicKey, 44);
  header.set(fresh, 76);
  header.writeUInt32LE(box.length, 100);
  const unsigned = Buffer.concat([header, box]);
  return Buffer.concat([unsigned, identity.sign('fdp/1 envelope\n', transcriptHash, sha256(unsigned))]);
}

// ---------------------------------------------------------------- sections 3, 6, 8, 12: one connection

const ACK_MS = 20_000;
const MAX_CHUNK = 262_144;
const MEMBERS_OF_EVENTS = {
  round: ['document', 'signature'],
  finished: ['document', 'signature'],
  'round-closed': ['round', 'outcome', 'code', 'contributions', 'nextRound'],
  problem: ['problem'],
};

/** One Socket.IO connection: hello, join, calls. `onEvent(name, argument)` answers with nothing, or throws a Problem. */
export class Connection {
  static async open({ url, identity, token, onEvent, adopt = () => {} }) {
    const connection = await Connection.dial({ url, identity, onEvent });
    try {
      await connection.hello();
      await connection.join(token);
      adopt(connection);
      connection.setReady();
      return connection;
    } catch (error) {
      connection.socket.disconnect();
      throw error;
    }
  }

  /** Connects, without hello and join. */
  static async dial({ url, identity, onEvent = () => {} }) {
    const connection = new Connection();
    const { origin, fingerprint: pinned } = parseJoinUrl(url);
    Object.assign(connection, { origin, pinned, identity });
    const socket = io(origin, { transports: ['websocket'], reconnection: false, forceNew: true, timeout: ACK_MS });
    connection.socket = socket;
    connection.ready = new Promise((resolve) => { connection.setReady = resolve; });
    connection.closed = new Promise((resolve) => socket.once('disconnect', resolve));
    socket.onAny(async (name, ...args) => {
      const answer = typeof args.at(-1) === 'function' ? args.pop() : () => {};
      try {
        require(name in MEMBERS_OF_EVENTS, 'event-unknown', { got: name });
        require(args.length === 1 && isObject(args[0]), 'message-malformed', { field: name });
        const unknown = Object.keys(args[0]).find((key) => !MEMBERS_OF_EVENTS[name].includes(key));
        require(unknown === undefined, 'message-malformed', { field: unknown });
        if (name !== 'problem') await connection.ready; // an announcement may come right behind the acknowledgement of join
        await onEvent(name, args[0], connection);
        answer({ ok: true });
      } catch (error) {
        answer({ ok: false, problem: (error instanceof Problem ? error : new Problem('internal', { status: 500 })).toWire() });
        if (!(error instanceof Problem)) throw error;
      }
    });
    await new Promise((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('connect_error', (error) => reject(new Problem('unreachable', { got: error.message })));
    });
    return connection;
  }

  /** Sends an event; the acknowledgement, or its problem thrown. */
  async call(event, argument, milliseconds = ACK_MS) {
    require(this.socket.connected, 'disconnected');
    const ack = await new Promise((resolve, reject) => {
      void this.closed.then((reason) => reject(new Problem('disconnected', { got: reason })));
      this.socket.timeout(milliseconds).emit(event, argument, (error, value) => (error ? reject(new Problem('deadline-exceeded', { got: event })) : resolve(value)));
    });
    require(isObject(ack) && typeof ack.ok === 'boolean', 'message-malformed', { field: event });
    if (!ack.ok) throw problemFromWire(ack.problem);
    return ack;
  }

  async hello() {
    const pinned = this.pinned;
    const clientNonce = randomBytes(32);
    const clientKey = this.identity.publicKey;
    const ack = await this.call('hello', { protocols: ['fdp/1'], clientKey: b64(clientKey), clientNonce: b64(clientNonce) });
    const coordinatorKey = unb64(ack.coordinatorKey, 32, 'coordinatorKey');
    const found = Buffer.from(fingerprint(coordinatorKey));
    require(timingSafeEqual(found, Buffer.from(pinned)), 'fingerprint-mismatch', { expected: pinned, got: found.toString() });
    require(ack.protocol === 'fdp/1', 'protocol-unsupported', { got: String(ack.protocol) });
    const serverNonce = unb64(ack.serverNonce, 32, 'serverNonce');
    const taskText = ack.task?.document;
    require(typeof taskText === 'string' && taskText.isWellFormed(), 'signature-invalid', { field: 'task' });
    const taskDigest = documentHash('task', taskText);
    this.keys = { coordinatorKey, clientKey, clientNonce, serverNonce, taskDigest };
    require(verifySignature(coordinatorKey, helloTranscript(this.keys), unb64(ack.signature, 64, 'signature')), 'signature-invalid', { field: 'hello' });
    this.task = openDocument('task', ack.task, coordinatorKey).value;
    this.taskDigest = taskDigest;
    this.coordinatorKey = coordinatorKey;
    checkTask(this.task, pinned);
  }

  async join(token) {
    const signature = this.identity.sign(joinTranscript(this.keys));
    const ack = await this.call('join', { signature: b64(signature), ...(token === undefined ? {} : { tokenProof: b64(tokenProof(token, this.keys)) }) });
    require(ack.clientId === this.identity.id, 'message-malformed', { field: 'clientId' });
    require(typeof ack.sessionToken === 'string' && positiveInteger(ack.nextRound), 'message-malformed', { field: 'join' });
    this.joined = ack;
  }

  /** GET with the digest of the body checked. */
  async fetchFrame(path, digest, expected) {
    const body = await new Promise((resolve, reject) => {
      const get = this.origin.startsWith('https:') ? httpsGet : httpGet;
      const request = get(new URL(path, this.origin), { headers: { authorization: `Bearer ${this.joined.sessionToken}` } }, (response) => {
        const chunks = [];
        let size = 0;
        response.on('data', (chunk) => {
          size += chunk.length;
          if (size > MAX_FRAME) request.destroy(new Problem('message-too-large', { field: path }));
          else chunks.push(chunk);
        });
        response.on('error', reject);
        response.on('end', () => {
          const bytes = Buffer.concat(chunks);
          if (response.statusCode === 200) return resolve(bytes);
          let problem;
          try {
            problem = problemFromWire(JSON.parse(bytes.toString()));
          } catch {
            problem = new Problem('internal', { got: `HTTP ${response.statusCode}` });
          }
          return reject(problem);
        });
      });
      request.on('error', (error) => reject(error instanceof Problem ? error : new Problem('unreachable', { got: error.message })));
    });
    require(digestText(sha256(body)) === digest, 'digest-mismatch', { field: path });
    return decodeFrame(body, expected);
  }

  /** Section 12; `afterChunk(k)` is a hook of tests. */
  async upload({ round, envelope, chunk = MAX_CHUNK, digest = digestText(sha256(envelope)), afterChunk = () => {} }) {
    const begun = await this.call('upload-begin', { round, stage: 'contribution', bytes: envelope.length, digest });
    if (begun.accepted) return { ...begun, from: envelope.length };
    require(typeof begun.upload === 'string' && Number.isSafeInteger(begun.offset) && begun.offset >= 0 && begun.offset <= envelope.length, 'message-malformed', { field: 'upload-begin' });
    for (let at = begun.offset, sent = 0; at < envelope.length;) {
      const data = envelope.subarray(at, at + chunk);
      const ack = await this.call('upload-chunk', { upload: begun.upload, offset: at, data });
      require(ack.offset === at + data.length, 'message-malformed', { field: 'offset', got: String(ack.offset) });
      at = ack.offset;
      afterChunk(++sent);
    }
    const ended = await this.call('upload-end', { upload: begun.upload });
    require(ended.accepted === true, 'message-malformed', { field: 'upload-end' });
    return { ...ended, from: begun.offset };
  }

  async leave() {
    await this.call('leave', {});
    this.socket.disconnect();
  }
}

function checkTask(task, pinned) {
  const malformed = (condition, field) => require(condition, 'message-malformed', { field: `task.${field}` });
  require(task.protocol === 'fdp/1', 'protocol-unsupported', { got: String(task.protocol) });
  require(task.coordinator === pinned, 'context-mismatch', { field: 'task.coordinator' });
  malformed(typeof task.task === 'string', 'task');
  malformed(positiveInteger(task.numClasses) && task.numClasses >= 2, 'numClasses');
  malformed(Array.isArray(task.exampleShape) && task.exampleShape.length <= 4 && task.exampleShape.every(positiveInteger), 'exampleShape');
  malformed(isObject(task.transferSet) && positiveInteger(task.transferSet.rows), 'transferSet');
  digestBytes(task.transferSet.digest, 'transferSet.digest');
  malformed(isObject(task.privacy) && positiveInteger(task.privacy.releases), 'privacy');
  malformed(task.privacy.mechanism === 'none' || (task.privacy.epsilon > 0 && task.privacy.delta > 0 && task.privacy.delta < 1), 'privacy.epsilon');
  malformed(isObject(task.distillation) && task.distillation.temperature > 0 && ['kl', 'logitMae'].includes(task.distillation.loss), 'distillation');
  malformed(['open', 'token', 'allow-list'].includes(task.admission), 'admission');
}

// ---------------------------------------------------------------- a model of our own: softmax regression

function seededUniform(seed) {
  let state = (seed >>> 0) ^ 0x9e3779b9;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
const softmax = (logits, temperature = 1) => {
  const top = Math.max(...logits);
  const weights = logits.map((v) => Math.exp((v - top) / temperature));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
};

class SoftmaxRegression {
  constructor(classes, features) {
    this.weights = Array.from({ length: classes }, () => new Float64Array(features + 1));
  }
  logits(x) {
    return this.weights.map((w) => {
      let sum = w[x.length];
      for (let i = 0; i < x.length; i++) sum += w[i] * x[i];
      return sum;
    });
  }
  step(x, gradient, rate) {
    gradient.forEach((g, c) => {
      for (let i = 0; i < x.length; i++) this.weights[c][i] -= rate * g * x[i];
      this.weights[c][x.length] -= rate * g;
    });
  }
  async fit(examples, gradient, epochs, rate = 0.05) {
    for (let epoch = 0; epoch < epochs; epoch++) {
      examples.forEach(({ x, y }) => this.step(x, gradient(this.logits(x), y), rate));
      await breathe(); // heartbeats are answered while training
    }
  }
}

/** Blobs around random centers: labelled data that only this client has. */
function ownData(classes, features, seed) {
  const uniform = seededUniform(seed);
  const centers = Array.from({ length: classes }, () => Array.from({ length: features }, uniform));
  return Array.from({ length: 20 * classes }, (_, i) => ({
    x: centers[i % classes].map((v) => v + (uniform() - 0.5) / 2),
    y: Array.from({ length: classes }, (_, c) => (c === i % classes ? 1 : 0)),
  }));
}

// ---------------------------------------------------------------- durable state

function writeDurably(folder, name, bytes) {
  const path = `${folder}/${name}`;
  const file = openSync(`${path}.new`, 'w', 0o600);
  writeSync(file, bytes);
  fsyncSync(file);
  closeSync(file);
  renameSync(`${path}.new`, path);
  const directory = openSync(folder, 'r');
  fsyncSync(directory);
  closeSync(directory);
}

/** Identity, highest round and its envelope: in a folder, or in memory when the identity is to end with the process. */
class Store {
  constructor(folder) {
    this.folder = folder;
    this.memory = new Map();
    if (folder !== undefined) mkdirSync(folder, { recursive: true });
  }
  read(name) {
    if (this.folder === undefined) return this.memory.get(name);
    return existsSync(`${this.folder}/${name}`) ? readFileSync(`${this.folder}/${name}`) : undefined;
  }
  write(name, bytes) {
    if (this.folder === undefined) this.memory.set(name, Buffer.from(bytes));
    else writeDurably(this.folder, name, bytes);
  }
  identity() {
    if (this.read('identity') === undefined) this.write('identity', randomBytes(32));
    return identityFromSeed(this.read('identity'));
  }
}

// ---------------------------------------------------------------- the participant

/** Problems after which trying again with the same input is of use. */
const TRANSIENT = new Set(['disconnected', 'unreachable', 'deadline-exceeded', 'rate-limited', 'capacity-exceeded', 'upload-unknown', 'upload-digest', 'upload-offset']);

export class Participant {
  #store; #options; #log; #connection; #task; #model; #data; #transfer; #working; #outcome; #end; #dropped = false; #ledger; #prepared;

  constructor(options, log) {
    this.#options = options;
    this.#log = log;
    this.#store = new Store(options.state);
    this.identity = this.#store.identity();
    this.#ledger = JSON.parse(this.#store.read('ledger')?.toString() ?? '[]');
    this.#outcome = new Promise((resolve, reject) => { this.#end = { resolve, reject }; });
    this.#outcome.catch(() => {});
  }

  /** Resolves with the reason of `finished`. */
  async run() {
    let waits = 0;
    for (;;) {
      try {
        await this.#connect();
        waits = 0;
        const ended = await Promise.race([this.#outcome, this.#connection.closed.then(() => undefined)]);
        if (ended !== undefined) {
          await this.#connection.closed; // after `leave` is acknowledged, or the coordinator is gone
          return ended;
        }
        this.#log({ event: 'connection-lost' });
      } catch (error) {
        if (!(error instanceof Problem) || !TRANSIENT.has(error.code) || ++waits > 8) {
          this.#connection?.socket.disconnect();
          throw error;
        }
        this.#log({ event: 'waiting', code: error.code });
      }
      await delay(100 * 2 ** waits);
    }
  }

  async #connect() {
    const connection = await Connection.open({
      url: this.#options.url,
      identity: this.identity,
      token: this.#options.token,
      onEvent: (name, argument, on) => this.#event(name, argument, on),
      adopt: (joined) => this.#adopt(joined),
    });
    const { joined } = connection;
    this.#log({ event: 'joined', clientId: joined.clientId, nextRound: joined.nextRound, inRound: joined.round !== null });
    await this.#prepared;
    if (joined.finished !== null) await this.#finished(joined.finished, connection);
    else if (joined.round !== null) await this.#roundOfJoin(joined.round, connection);
  }

  /** The session stands; from here on its events are handled. */
  #adopt(connection) {
    const { task, taskDigest } = connection;
    if (this.#task !== undefined) require(this.#task.digest.equals(taskDigest), 'context-mismatch', { field: 'taskDigest' });
    this.#task = { ...task, digest: taskDigest };
    this.#connection = connection;
    if (this.#transfer !== undefined) return;
    this.#prepared = this.#prepare(connection);
    this.#prepared.catch(() => {}); // whoever awaits it sees it
  }

  async #prepare(connection) {
    const { numClasses, exampleShape, transferSet } = this.#task;
    const frame = await connection.fetchFrame('/transfer-set', transferSet.digest, { content: 'features', shape: [transferSet.rows, ...exampleShape] });
    const features = exampleShape.reduce((a, b) => a * b, 1);
    this.#transfer = Array.from({ length: transferSet.rows }, (_, i) => frame.values.slice(i * features, (i + 1) * features));
    this.#model = new SoftmaxRegression(numClasses, features);
    this.#data = ownData(numClasses, features, this.#options.seed ?? 1);
    this.#log({ event: 'transfer-set', rows: transferSet.rows, dtype: frame.dtype });
    await this.#revisit(5);
  }

  #revisit(epochs) {
    return this.#model.fit(this.#data, (logits, y) => softmax(logits).map((p, c) => p - y[c]), epochs);
  }

  async #event(name, argument, connection) {
    if (name === 'round') return this.#accept(argument, connection);
    if (name === 'finished') return void this.#finished(argument, connection).catch(this.#end.reject);
    if (name === 'round-closed') {
      this.#log({ event: 'round-closed', round: argument.round, outcome: argument.outcome, code: argument.code, contributions: argument.contributions });
      const progress = this.#progress();
      if (progress.round === argument.round) this.#saveProgress({ ...progress, closed: true });
      return undefined;
    }
    const problem = problemFromWire(argument.problem);
    this.#log({ event: 'problem', code: problem.code });
    if (problem.code === 'session-replaced') this.#end.reject(problem);
    return undefined;
  }

  // A refusal of an announcement that came with `join` has no acknowledgement to travel in.
  async #roundOfJoin(signed, connection) {
    try {
      this.#accept(signed, connection);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#log({ event: 'refused', code: error.code });
      const { value } = openDocument('round', signed, connection.coordinatorKey);
      await connection.call('decline', { round: value.round, code: error.code });
    }
  }

  #progress() {
    const text = this.#store.read(`progress-${this.#task.digest.toString('hex')}`);
    return text === undefined ? { round: 0, transcript: '', closed: true } : JSON.parse(text.toString());
  }
  #saveProgress(progress) {
    this.#store.write(`progress-${this.#task.digest.toString('hex')}`, JSON.stringify(progress));
  }

  /** Verifies an announcement and starts the work; what it throws is the refusal. */
  #accept(signed, connection) {
    const { value: round, hash } = openDocument('round', signed, connection.coordinatorKey);
    const { query, labels } = checkRound(round, this.#task, this.#task.digest);
    checkNoise(round.release, this.#task.privacy);
    const progress = this.#progress();
    const transcript = hash.toString('hex');
    require(round.round > progress.round || (round.round === progress.round && !progress.closed), 'round-closed', { got: String(round.round) });
    if (round.round === progress.round) require(transcript === progress.transcript, 'context-mismatch', { field: 'round' });
    if (round.round === progress.round + 1 && progress.round > 0) {
      require(round.previous === `sha256:${progress.transcript}`, 'context-mismatch', { field: 'previous' });
    }
    this.#saveProgress({ round: round.round, transcript, closed: false });
    if (this.#working === round.round) return;
    this.#working = round.round;
    this.#log({ event: 'round', round: round.round, labels: round.labels?.kind ?? null, mechanism: round.release.mechanism, outputKind: round.release.outputKind });
    this.#work(round, query, labels, hash).catch((error) => this.#giveUp(round, error)).catch(this.#end.reject);
  }

  async #giveUp(round, error) {
    if (!(error instanceof Problem)) throw error;
    this.#log({ event: 'round-failed', round: round.round, code: error.code, ...error.details });
    if (this.#working === round.round) this.#working = undefined;
    if (error.code !== 'round-closed') await this.#connection.call('decline', { round: round.round, code: error.code }).catch(() => {});
  }

  async #work(round, query, labelIndices, hash) {
    await this.#prepared; // an announcement is acknowledged before the transfer set is here
    const name = `envelope-${hash.toString('hex')}`;
    let envelope = this.#store.read(name);
    if (envelope === undefined) {
      if (round.labels !== null) await this.#distil(`/rounds/${round.round}/soft-labels`, round.labels, labelIndices);
      await this.#revisit(1);
      const predictions = query.flatMap((i) => {
        const logits = this.#model.logits(this.#transfer[i]);
        return round.release.outputKind === 'logits' ? logits : softmax(logits);
      });
      envelope = sealEnvelope({
        identity: this.identity, taskDigest: this.#task.digest, transcriptHash: hash, round: round.round,
        boxKey: unb64(round.boxKey, 32, 'boxKey'), frame: contributionFrame(predictions, round),
      });
      this.#charge(round.release);
      this.#store.write(name, envelope);
    }
    const { from, duplicate } = await this.#send(round.round, envelope);
    this.#log({ event: 'accepted', round: round.round, bytes: envelope.length, resumedAt: from, duplicate, digest: digestText(sha256(envelope)) });
  }

  async #send(round, envelope) {
    for (let tries = 0; ; tries++) {
      const connection = this.#connection;
      try {
        return await connection.upload({ round, envelope, chunk: this.#options.chunk, afterChunk: (count) => this.#interrupt(count, connection) });
      } catch (error) {
        if (!(error instanceof Problem) || !TRANSIENT.has(error.code) || tries > 20) throw error;
        // The main loop connects again; wait for another connection, or a while for a coordinator that is busy.
        for (let i = 0; i < 100 && this.#connection === connection && !connection.socket.connected; i++) await delay(100);
        await delay(100 * Math.min(tries, 10));
      }
    }
  }

  #interrupt(count, connection) {
    if (count === this.#options.crashAfter) {
      this.#log({ event: 'crash' });
      process.exit(9);
    }
    if (count !== this.#options.dropAfter || this.#dropped) return;
    this.#dropped = true;
    this.#log({ event: 'dropping' });
    connection.socket.io.engine.close();
  }

  /** The least that a client must keep: what it released, durably, before it sends. */
  #charge(release) {
    this.#ledger.push(release);
    this.#store.write('ledger', JSON.stringify(this.#ledger));
  }

  async #distil(path, labels, indices) {
    const { numClasses, distillation } = this.#task;
    const frame = await this.#connection.fetchFrame(path, labels.digest, { content: labels.kind, shape: [labels.count, numClasses] });
    const temperature = labels.kind === 'logits' ? distillation.temperature : 1;
    const mae = labels.kind === 'logits' && distillation.loss === 'logitMae';
    const examples = indices.map((index, i) => ({ x: this.#transfer[index], y: frame.values.slice(i * numClasses, (i + 1) * numClasses) }));
    const gradient = (logits, y) => {
      if (mae) return logits.map((v, c) => Math.sign(v - y[c]) / numClasses);
      const target = labels.kind === 'logits' ? softmax(y, temperature) : y;
      return softmax(logits, temperature).map((p, c) => (p - target[c]) * temperature);
    };
    await this.#model.fit(examples, gradient, 2, 0.02);
    this.#log({ event: 'distilled', path, kind: labels.kind, rows: labels.count, dtype: frame.dtype });
  }

  async #finished(signed, connection) {
    const { value } = openDocument('finished', signed, connection.coordinatorKey);
    require(value.protocol === 'fdp/1' && value.task === this.#task.task && digestBytes(value.taskDigest, 'taskDigest').equals(this.#task.digest), 'context-mismatch', { field: 'finished' });
    await this.#prepared;
    if (value.labels !== null) await this.#distil('/finished/soft-labels', value.labels, checkLabels(value.labels, this.#task));
    this.#end.resolve({ reason: value.reason, rounds: value.rounds, releases: this.#ledger.length });
    await connection.leave().catch(() => {}); // it is over either way
  }
}

// ---------------------------------------------------------------- command line

async function main() {
  const log = (line) => console.log(JSON.stringify(line));
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: Object.fromEntries(['token', 'seed', 'state', 'chunk', 'drop-after', 'crash-after'].map((name) => [name, { type: 'string' }])),
    });
    require(positionals.length === 1, 'usage-invalid', { expected: 'one join URL' });
    const number = (text) => (text === undefined ? undefined : Number(text));
    const participant = new Participant({
      url: positionals[0], token: values.token, state: values.state, seed: number(values.seed), chunk: number(values.chunk),
      dropAfter: number(values['drop-after']), crashAfter: number(values['crash-after']),
    }, log);
    log({ event: 'finished', ...(await participant.run()) });
  } catch (error) {
    log({ event: 'failed', code: error instanceof Problem ? error.code : 'internal', message: error.message });
    process.exitCode = error instanceof Problem ? (error.code === 'usage-invalid' ? 2 : 4) : 1;
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
