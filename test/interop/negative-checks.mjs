// What a coordinator must refuse, tried by the independent client: node negative-checks.mjs JOINURL
// The task: mechanism none, float32, probabilities, open admission, 2 rounds, at least 3 clients. Prints { check, expected, got }.
import nacl from 'tweetnacl';
import { randomBytes } from 'node:crypto';
import {
  b64, Connection, contributionFrame, digestText, encodeFrame, envelopeContext, identityFromSeed, joinTranscript, openDocument, Problem, sealEnvelope, sha256, unb64,
} from './independent-client.mjs';

const url = process.argv[2];
const report = (check, expected, got) => console.log(JSON.stringify({ check, expected, got }));
async function refused(check, expected, action) {
  try {
    const value = await action();
    report(check, expected, value?.duplicate === undefined ? 'no problem' : `accepted, duplicate ${value.duplicate}`);
    return undefined;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    report(check, expected, error.code);
    return error.details;
  }
}
const newIdentity = () => identityFromSeed(randomBytes(32));
const dial = (identity = newIdentity(), to = url) => Connection.dial({ url: to, identity });

/** A joined client whose events can be awaited in order. */
async function member(identity = newIdentity()) {
  const queue = [];
  const waiting = [];
  const push = (name, argument) => {
    const at = waiting.findIndex((w) => w.name === name);
    if (at >= 0) waiting.splice(at, 1)[0].resolve(argument);
    else queue.push({ name, argument });
  };
  const connection = await Connection.open({ url, identity, onEvent: push });
  const next = (name) => {
    const at = queue.findIndex((q) => q.name === name);
    return at >= 0 ? Promise.resolve(queue.splice(at, 1)[0].argument) : new Promise((resolve) => { waiting.push({ name, resolve }); });
  };
  return { connection, identity, next };
}

// ---- before a session
const wrong = url.replace(/.$/, (last) => (last === 'a' ? 'b' : 'a'));
await refused('another fingerprint in the join URL', 'fingerprint-mismatch', async () => (await dial(undefined, wrong)).hello());

let raw = await dial();
await refused('an event before hello', 'not-authenticated', () => raw.call('upload-begin', { round: 1, stage: 'contribution', bytes: 1, digest: digestText(sha256('')) }));
await refused('a join before hello', 'not-authenticated', () => raw.call('join', { signature: b64(Buffer.alloc(64)) }));
raw.socket.disconnect();

raw = await dial();
const hello = { clientKey: b64(raw.identity.publicKey), clientNonce: b64(randomBytes(32)) };
await refused('another protocol', 'protocol-unsupported', () => raw.call('hello', { protocols: ['fdp/9'], ...hello }));
raw.socket.disconnect();

raw = await dial();
await refused('an unknown member of an event', 'message-malformed', () => raw.call('hello', { protocols: ['fdp/1'], ...hello, name: 'me' }));
raw.socket.disconnect();

raw = await dial();
await raw.hello();
await refused('a join signed over another nonce', 'signature-invalid', () => raw.call('join', { signature: b64(raw.identity.sign(joinTranscript({ ...raw.keys, clientNonce: randomBytes(32) }))) }));
raw.socket.disconnect();

raw = await dial();
await raw.hello();
const valid = raw.identity.sign(joinTranscript(raw.keys));
const order = 2n ** 252n + 27742317777372353535851937790883648493n;
const shifted = (BigInt(`0x${Buffer.from(valid.subarray(32)).reverse().toString('hex')}`) + order).toString(16).padStart(64, '0');
await refused('a join whose S is not below L', 'signature-invalid', () => raw.call('join', { signature: b64(Buffer.concat([valid.subarray(0, 32), Buffer.from(shifted, 'hex').reverse()])) }));
await refused('another join on the same connection', 'not-authenticated', () => raw.call('join', { signature: b64(valid) }));
await refused('another hello on the same connection', 'not-authenticated', () => raw.call('hello', { protocols: ['fdp/1'], ...hello }));
raw.socket.disconnect();

// ---- a session
const a = await member();
const b = await member();
await refused('an unknown event', 'event-unknown', () => a.connection.call('gradients', {}));
await refused('a contribution before the first round', 'round-unknown', () => a.connection.upload({ round: 1, envelope: randomBytes(300) }));
const silent = a.next('problem');
a.connection.socket.emit('leave', { unknown: 1 });
report('an event that asks for no acknowledgement', 'problem', (await silent).problem === undefined ? 'nothing' : 'problem');
const c = await member();

const opened = async (m) => {
  const { value, hash } = openDocument('round', await m.next('round'), m.connection.coordinatorKey);
  return { round: value, hash };
};
const [{ round, hash }] = [await opened(a), await opened(b), await opened(c)];
const { connection } = a;
const base = { identity: a.identity, taskDigest: connection.taskDigest, transcriptHash: hash, round: round.round, boxKey: unb64(round.boxKey, 32) };
const { rows, columns } = round.release;
const prior = Array.from({ length: rows * columns }, () => 1 / columns);
const frame = contributionFrame(prior, round);
const honest = sealEnvelope({ ...base, frame });
const send = (envelope, more) => connection.upload({ round: round.round, envelope, ...more });
const flipped = (bytes, at) => {
  const copy = Buffer.from(bytes);
  copy[at] ^= 1;
  return copy;
};
const withFrame = (values, content = 'probabilities') => sealEnvelope({ ...base, frame: encodeFrame({ dtype: 'float32', content, shape: [rows, columns], values }) });
const changedPrior = (value) => prior.map((v, i) => (i === 0 ? value : v));

await refused('one bit of the box flipped', 'signature-invalid', () => send(flipped(honest, 150)));
await refused('one bit of the nonce flipped', 'signature-invalid', () => send(flipped(honest, 80)));
await refused('one bit of the signature flipped', 'signature-invalid', () => send(flipped(honest, honest.length - 30)));
await refused('one bit of the magic flipped', 'context-mismatch', () => send(flipped(honest, 0)));
await refused('one bit of the header\'s round flipped', 'context-mismatch', () => send(flipped(honest, 8)));
await refused('one bit of the header\'s sender flipped', 'context-mismatch', () => send(flipped(honest, 20)));
await refused('an envelope of another client', 'context-mismatch', () => send(sealEnvelope({ ...base, identity: b.identity, frame })));
await refused('a box for another key', 'envelope-invalid', () => send(sealEnvelope({ ...base, boxKey: Buffer.from(nacl.box.keyPair().publicKey), frame })));
await refused('a one-time key of low order', 'envelope-invalid', () => send(sealEnvelope({ ...base, frame, ephemeral: { publicKey: new Uint8Array(32), secretKey: randomBytes(32) } })));
await refused('a context of another task', 'context-mismatch', () => send(sealEnvelope({
  ...base, frame, context: envelopeContext({ taskDigest: Buffer.alloc(32), round: round.round, senderKey: a.identity.publicKey, transcriptHash: hash }),
})));
await refused('one byte too many', 'shape-mismatch', () => send(Buffer.concat([honest, Buffer.alloc(1)])));
await refused('a frame of another shape', 'shape-mismatch', () => send(sealEnvelope({ ...base, frame: encodeFrame({ dtype: 'float32', content: 'probabilities', shape: [columns, rows], values: prior }) })));
await refused('a frame of other content', 'shape-mismatch', () => send(withFrame(prior, 'logits')));
await refused('a value that is not a number', 'value-out-of-range', () => send(withFrame(changedPrior(NaN))));
await refused('a row that does not sum to 1', 'value-out-of-range', () => send(withFrame(changedPrior(0.2))));
await refused('a negative probability', 'value-out-of-range', () => send(withFrame(changedPrior(-0.001))));
await refused('a damaged frame', 'frame-checksum', () => send(sealEnvelope({ ...base, frame: flipped(frame, 30) })));
await refused('a frame of another version', 'frame-malformed', () => send(sealEnvelope({ ...base, frame: flipped(frame, 4) })));
await refused('a digest of other bytes', 'upload-digest', () => send(honest, { digest: digestText(sha256('other')) }));
await refused('a round that is not there yet', 'round-unknown', () => connection.upload({ round: round.round + 5, envelope: honest }));
await refused('a reserved stage', 'message-malformed', () => connection.call('upload-begin', { round: round.round, stage: 'reveal', bytes: honest.length, digest: digestText(sha256(honest)) }));
await refused('an upload that nobody began', 'upload-unknown', () => connection.call('upload-end', { upload: 'never' }));
const begin = () => connection.call('upload-begin', { round: round.round, stage: 'contribution', bytes: honest.length, digest: digestText(sha256(honest)) });
const { upload, offset } = await begin();
report('a new upload begins at', 0, offset);
await connection.call('upload-chunk', { upload, offset: 0, data: honest.subarray(0, 100) });
const gap = await refused('a gap between chunks', 'upload-offset', () => connection.call('upload-chunk', { upload, offset: 101, data: honest.subarray(101, 110) }));
report('the right offset is in `expected`', '100', gap?.expected);
await refused('an end before the last chunk', 'upload-offset', () => connection.call('upload-end', { upload }));
report('upload-begin again goes on at', 100, (await begin()).offset);
await refused('a chunk without bytes', 'message-malformed', () => connection.call('upload-chunk', { upload, offset: 100, data: Buffer.alloc(0) }));
await refused('a chunk beyond the announced length', 'upload-offset', () => connection.call('upload-chunk', { upload, offset: 100, data: Buffer.alloc(honest.length) }));
await refused('a chunk over the limit', 'message-malformed', () => connection.call('upload-chunk', { upload, offset: 100, data: Buffer.alloc(262_145) }));

report('the honest envelope, after all these', 'accepted, duplicate false', `accepted, duplicate ${(await send(honest)).duplicate}`);
await refused('the same envelope again', 'accepted, duplicate true', () => send(honest));
await refused('other bytes after acceptance', 'contribution-conflict', () => send(sealEnvelope({ ...base, frame })));

// ---- one session for an identity
const again = await member(a.identity);
report('the earlier session', 'session-replaced', (await a.next('problem')).problem.code);
await connection.closed;
report('the replaced connection is closed', false, connection.socket.connected);
report('no announcement for who has contributed', null, again.connection.joined.round);

// ---- a client that declines, and one that contributes: the quorum of 2
await c.connection.call('decline', { round: round.round, code: 'policy-refused' });
await refused('a contribution after declining', 'declined', () => c.connection.upload({ round: round.round, envelope: honest }));
await refused('soft labels of a round without', 'not-found', () => connection.fetchFrame('/rounds/1/soft-labels', digestText(sha256(''))));
await refused('soft labels of a round that is not there yet', 'not-found', () => connection.fetchFrame('/rounds/9/soft-labels', digestText(sha256(''))));
await refused('a body with another digest', 'digest-mismatch', () => connection.fetchFrame('/transfer-set', digestText(sha256(''))));
await b.connection.upload({ round: round.round, envelope: sealEnvelope({ ...base, identity: b.identity, frame }) });
const closed = await again.next('round-closed');
report('the round closes', 'released', closed.outcome);

// ---- the next round
const next = await opened(again);
report('`previous` names the round before', digestText(hash), next.round.previous);
await refused('the envelope of round 1 replayed as one of round 2', 'context-mismatch', () => again.connection.upload({ round: next.round.round, envelope: honest }));
const late = await refused('the envelope of round 1 sent again for round 1', 'round-closed', () => again.connection.upload({ round: round.round, envelope: honest }));
report('`nextRound` of it', next.round.round, late?.nextRound);
await opened(b);
for (const { connection: on, identity } of [again, b]) {
  await on.upload({ round: next.round.round, envelope: sealEnvelope({ ...base, identity, transcriptHash: next.hash, round: next.round.round, boxKey: unb64(next.round.boxKey, 32), frame }) });
}
await c.connection.call('decline', { round: next.round.round, code: 'policy-refused' });
const latecomer = await member();
const { value: end } = openDocument('finished', latecomer.connection.joined.finished ?? (await latecomer.next('finished')), latecomer.connection.coordinatorKey);
report('who joins at the end hears of it', 'rounds-done', end.reason);
await refused('a contribution after the end', 'task-finished', () => latecomer.connection.upload({ round: next.round.round, envelope: honest }));
await latecomer.connection.leave();
for (const m of [again, b, c]) {
  const { value } = openDocument('finished', await m.next('finished'), m.connection.coordinatorKey);
  report('finished', 'rounds-done', value.reason);
  await m.connection.leave();
}
