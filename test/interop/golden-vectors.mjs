// Reproduces test/vectors/fdp1-*.json with the independent client; prints { name, ok } a line. Exit status 1 on a difference.
import { readFileSync } from 'node:fs';
import nacl from 'tweetnacl';
import {
  b64, canonicalJson, checkRound, decodeFrame, digestText, documentHash, encodeFrame, encodePartialFrame, envelopeContext, gaussianDelta, helloTranscript,
  identityFromSeed, joinTranscript, levelsOf, openDocument, sealEnvelope, sha256, tokenProof, unb64, verifySignature,
} from './independent-client.mjs';

const read = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}`, import.meta.url), 'utf8'));
const hex = (text) => Buffer.from(text, 'hex');
function same(name, got, expected) {
  const ok = got === expected;
  console.log(JSON.stringify(ok ? { name, ok } : { name, ok, got, expected }));
  if (!ok) process.exitCode = 1;
}

for (const { name, dtype, content, shape, values, hex: text } of read('fdp1-frames.json').frames) {
  same(`encode: ${name}`, encodeFrame({ dtype, content, shape, values }).toString('hex'), text);
  const frame = decodeFrame(hex(text));
  same(`decode: ${name}`, JSON.stringify([frame.dtype, frame.content, frame.shape, frame.values]), JSON.stringify([dtype, content, shape, dtype === 'int32' ? values : values.map(Math.fround)]));
}

const { quantized, partial } = read('fdp1-frames.json');
for (const { name, dtype, row, levels } of quantized) same(`levels: ${name}`, levelsOf(row, Number(dtype.slice(4))).join(), levels.join());
for (const { name, rows, columns, dtype, shared, values, hex: text } of partial) same(`some rows: ${name}`, encodePartialFrame({ dtype, content: 'probabilities', shape: [rows, columns], values, shared }).toString('hex'), text);

const golden = read('fdp1-handshake.json');
const who = {};
for (const [name, { seed, publicKey, fingerprint }] of Object.entries(golden.identities)) {
  who[name] = identityFromSeed(hex(seed));
  same(`${name} key`, who[name].publicKey.toString('hex'), publicKey);
  same(`${name} fingerprint`, who[name].id, fingerprint);
}
for (const [kind, { value, signed, hash }] of Object.entries(golden.documents)) {
  same(`${kind} text`, canonicalJson(value), signed.document);
  same(`${kind} signature`, b64(who.coordinator.sign(`fdp/1 ${kind}\n`, signed.document)), signed.signature);
  same(`${kind} hash`, digestText(documentHash(kind, signed.document)), hash);
  same(`${kind} opens`, digestText(openDocument(kind, signed, who.coordinator.publicKey).hash), hash);
}
const taskDigest = hex(golden.documents.task.hash.slice(7));
const transcriptHash = hex(golden.documents.round.hash.slice(7));
const round = golden.documents.round.value;
same('round passes the checks but that of its noise', JSON.stringify(checkRound(round, golden.documents.task.value, taskDigest)), JSON.stringify({ query: [0, 1, 3], labels: [1, 2] }));

const { session } = golden;
const keys = {
  coordinatorKey: who.coordinator.publicKey, clientKey: who.client.publicKey, clientNonce: hex(session.clientNonce), serverNonce: hex(session.serverNonce), taskDigest,
};
same('hello transcript', helloTranscript(keys).toString('hex'), session.helloTranscript);
same('hello signature', who.coordinator.sign(helloTranscript(keys)).toString('hex'), session.helloSignature);
same('hello verifies', verifySignature(who.coordinator.publicKey, hex(session.helloTranscript), hex(session.helloSignature)), true);
same('join transcript', joinTranscript(keys).toString('hex'), session.joinTranscript);
same('join signature', who.client.sign(joinTranscript(keys)).toString('hex'), session.joinSignature);
same('token proof', tokenProof(session.token, keys).toString('hex'), session.tokenProof);

const { envelope } = golden;
const ephemeral = nacl.box.keyPair.fromSecretKey(new Uint8Array(hex(envelope.ephemeralSecret)));
same('ephemeral key', Buffer.from(ephemeral.publicKey).toString('hex'), envelope.ephemeralKey);
same('round box key', b64(hex(envelope.roundBoxKey)), round.boxKey);
const of = { taskDigest, transcriptHash, round: round.round };
same('context', envelopeContext({ ...of, senderKey: who.client.publicKey }).toString('hex'), envelope.context);
const sealed = sealEnvelope({ ...of, identity: who.client, boxKey: unb64(round.boxKey, 32), frame: hex(envelope.frame), ephemeral, nonce: hex(envelope.nonce) });
same('box', sealed.subarray(104, -64).toString('hex'), envelope.box);
same('signed message', Buffer.concat([Buffer.from('fdp/1 envelope\n'), transcriptHash, sha256(sealed.subarray(0, -64))]).toString('hex'), envelope.signedMessage);
same('envelope', sealed.toString('hex'), envelope.envelope);
same('envelope digest', digestText(sha256(sealed)), envelope.digest);
same('grid of the envelope', decodeFrame(hex(envelope.frame), { content: 'grid', shape: [3, 3] }).dtype, 'int32');

// Section 10.2, against the closed form with another erfc. (The golden announcement's noise is arbitrary: it does not keep its task's epsilon.)
same('delta of mu 1 at epsilon 1', gaussianDelta(1, 1).toFixed(8), '0.12693674');
same('delta of mu 2.5 at epsilon 7.25', gaussianDelta(2.5, 7.25).toFixed(8), '0.02606347');

// Section 2: S + L verifies arithmetically, and so does anything under the neutral element; both must be refused.
const order = 2n ** 252n + 27742317777372353535851937790883648493n;
const valid = hex(session.helloSignature);
const s = BigInt(`0x${Buffer.from(valid.subarray(32)).reverse().toString('hex')}`) + order;
const shifted = Buffer.concat([valid.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse()]);
same('S + L is refused', verifySignature(who.coordinator.publicKey, hex(session.helloTranscript), shifted), false);
const neutral = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]);
same('a key of order 1 is refused', verifySignature(neutral, Buffer.from('anything'), Buffer.concat([neutral, Buffer.alloc(32)])), false);
for (const point of ['ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f', '0000000000000000000000000000000000000000000000000000000000000000', 'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a', '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05']) {
  same(`a key of small order is refused: ${point.slice(0, 8)}`, verifySignature(hex(point), Buffer.from('m'), Buffer.concat([neutral, Buffer.alloc(32)])), false);
}
