/** Everything malformed that a stranger or a participant can send to a coordinator's port, repeatable by seed. */
import type { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { maxEventBurst } from '../../shared/protocol/limits.ts';
import { frame, RawPeer, RawSocket, type Received, type Target } from './raw-peer.ts';
import type { Tally } from './tally.ts';

export interface Abuse {
  readonly target: Target;
  readonly received: Received;
  readonly tally: Tally;
  readonly random: SeededGenerator;
}

/** How long a connection may stay open on which the server waits for more. */
const patienceMs = 150;

export async function inParallel(count: number, width: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (next < count) await work(next++);
    }),
  );
}

export function randomBytes(random: SeededGenerator, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => random.integer(256)));
}

function pick<T>(random: SeededGenerator, from: readonly T[]): T {
  return from[random.integer(from.length)]!;
}

// --- TCP and HTTP ---

/** Bytes that are no HTTP: noise, other protocols, halves. */
export async function tcpGarbage({ target, received, tally, random }: Abuse, count: number): Promise<void> {
  const others = [
    Buffer.from('16030100f4010000f00303', 'hex'),
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    Buffer.from('SSH-2.0-OpenSSH_9.2\r\n'),
    Buffer.from('EHLO localhost\r\n'),
    Buffer.from('\0'.repeat(64)),
    Buffer.from('\r\n'.repeat(500)),
    Buffer.from('GET'),
    Buffer.from('A'.repeat(100_000)),
  ];
  const sent = Array.from({ length: count }, (_, i) => others[i] ?? randomBytes(random, 1 + random.integer(600)));
  await inParallel(count, 40, async (i) => {
    const peer = await RawPeer.open(target, received);
    peer.write(sent[i]!);
    tally.count('tcp bytes');
    const text = await peer.finish(patienceMs);
    if (text !== '') tally.responded(text, sent[i]!.toString('latin1'));
  });
}

function httpRequest(random: SeededGenerator): string {
  const path = pick(random, [
    '/', '/task', '/transfer-set', '/rounds/1/soft-labels', '/rounds/0/soft-labels', '/rounds/99999999999999999999/soft-labels', '/rounds/1e3/soft-labels', '/rounds/-1/soft-labels', '/finished/soft-labels',
    '/healthz/', '/metrics/..%2f..%2fidentity.key', '/../../identity.key', '/%2e%2e/%2e%2e/join-token', '/rounds/1/box-secret', '/rounds/..%2f1/box-secret', '/%00', '/%', '/%ff', '/%c0%ae', '/join/', `/join/${'a'.repeat(26)}`,
    '/join/<script>', '/socket.io/', '/socket.io/?EIO=4&transport=polling', '/socket.io/socket.io.js', '/__proto__', '/constructor', '/toString', `/${'x'.repeat(8000)}`, '//evil.example/task', '/task?__proto__[x]=1', '/task#frag', 'http://evil.example/task', '*', 'task',
  ]);
  const method = pick(random, ['GET', 'GET', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND', 'get', 'G\tT', 'X'.repeat(30), 'CONNECT']);
  const headers = pick(random, [
    '', 'Authorization: Bearer \r\n', `Authorization: Bearer ${'A'.repeat(300)}\r\n`, 'Authorization: Bearer __proto__\r\n', 'Authorization: Basic Og==\r\n', `Authorization: ${'B'.repeat(4000)}\r\n`, 'Content-Length: -1\r\n',
    'Content-Length: 5\r\n', 'Content-Length: 99999999999999999999\r\n', 'Content-Length: 1\r\nContent-Length: 2\r\n', 'Transfer-Encoding: chunked\r\n', 'Transfer-Encoding: chunked\r\nContent-Length: 3\r\n', 'Transfer-Encoding: gzip, identity\r\n',
    'Range: bytes=0-1,5-\r\n', 'Range: bytes=99999999999-\r\n', 'If-None-Match: *\r\n', 'If-None-Match: "\r\n', 'Accept-Encoding: gzip;q=NaN\r\n', 'Expect: 100-continue\r\n', 'Expect: the-unexpected\r\n', 'X-Forwarded-For: 127.0.0.1\r\n', 'X-Forwarded-For: <nonsense>\r\n',
    'Host: evil.example\r\n', 'Cookie: a=b; __proto__=c\r\n', 'Upgrade: h2c\r\nConnection: Upgrade\r\n', 'Upgrade: websocket\r\nConnection: Upgrade\r\n', `X: ${'y'.repeat(20_000)}\r\n`, 'Bad Header\r\n', ': empty\r\n', 'X\0Y: 1\r\n', ' folded: 1\r\n', 'X: a\rb\r\n', `${'H: 1\r\n'.repeat(2100)}`,
  ]);
  const version = pick(random, ['HTTP/1.1', 'HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/9.9', 'HTTP/2', 'http/1.1', '']);
  const body = pick(random, ['', '', '', 'hello', '5\r\nhello\r\n0\r\n\r\n', 'zz\r\n', '{"__proto__":{"x":1}}', '\0\x01\x02']);
  return `${method} ${path} ${version}\r\nHost: coordinator\r\nConnection: close\r\n${headers}\r\n${body}`;
}

/** Requests that mix odd methods, paths, headers, versions and bodies. Each gets one answer, and a problem document when it is refused. */
export async function httpGarbage({ target, received, tally, random }: Abuse, count: number): Promise<void> {
  const sent = Array.from({ length: count }, () => httpRequest(random));
  await inParallel(count, 32, async (i) => {
    const peer = await RawPeer.open(target, received, `127.0.0.${3 + (i % 8)}`);
    peer.write(sent[i]!);
    tally.count('http requests');
    const text = await peer.finish(15_000);
    const final = text.replace(/^HTTP\/1\.1 100 Continue\r\n\r\n/, '');
    const isUpgrade = /^\S+ \/socket\.io\/[\s\S]*\nUpgrade:/.test(sent[i]!);
    if (isUpgrade && final.includes('Content-type: text/html')) tally.outcome('(refused by Engine.IO)'); // handshakes are its own
    else tally.responded(final, sent[i]!.slice(0, 300), { hasBody: !sent[i]!.startsWith('HEAD') });
  });
}

/** Requests that never end: a byte now and then. Stay open until the returned function is called. */
export async function slowRequests({ target, received, tally }: Abuse, count: number): Promise<() => void> {
  const peers = await Promise.all(Array.from({ length: count }, () => RawPeer.open(target, received, '127.0.0.12')));
  for (const [i, peer] of peers.entries()) peer.write(i % 2 === 0 ? 'GET /task HTTP/1.1\r\nHost: x\r\nX: ' : 'POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n');
  const drip = setInterval(() => {
    for (const peer of peers) {
      peer.write('a');
      tally.count('slow bytes');
    }
  }, 500);
  return () => {
    clearInterval(drip);
    for (const peer of peers) peer.destroy();
  };
}

// --- WebSocket, Engine.IO, Socket.IO below the level of events ---

function badFrames(random: SeededGenerator): Buffer[] {
  const text = Buffer.from('42["hello",{}]');
  return [
    randomBytes(random, 1 + random.integer(300)),
    frame(1, text, { masked: false }),
    frame(1, text, { rsv: 1 + random.integer(7) }),
    frame(3 + random.integer(5), text),
    frame(11 + random.integer(5), text),
    frame(1, text, { length: 2n ** 63n }),
    frame(1, text, { length: 0xffff_ffff_ffff_ffffn }),
    frame(2, text, { length: 4_000_000n }),
    frame(9, Buffer.alloc(200)),
    frame(9, text, { fin: false }),
    frame(8, Buffer.from([0])),
    frame(8, Buffer.from([0x03, 0xec])),
    frame(8, Buffer.from([0xff, 0xff])),
    frame(1, Buffer.from([0x34, 0xc3, 0x28])),
    frame(0, text),
    Buffer.concat([frame(1, text, { fin: false }), frame(1, text)]),
    Buffer.concat(Array.from({ length: 40 }, () => frame(0, Buffer.alloc(0), { fin: false }))),
    Buffer.concat(Array.from({ length: 40 }, () => frame(9, Buffer.alloc(125)))),
    frame(1, randomBytes(random, 20)),
    frame(2, randomBytes(random, 20)),
  ];
}

/** Frames that are none, after a handshake that is one. */
export async function webSocketGarbage({ target, received, tally, random }: Abuse, count: number): Promise<void> {
  const sent = Array.from({ length: count }, (_, i) => badFrames(random)[i % 20]!);
  await inParallel(count, 24, async (i) => {
    const socket = i % 2 === 0 ? await RawSocket.upgrade(target, received) : await RawSocket.open(target, received);
    socket.peer.write(sent[i]!);
    tally.count('websocket frames');
    await socket.peer.finish(patienceMs);
  });
}

const badPackets = [
  '', '0', '0{}', '1', '2probe', '3', '3probe', '5', '6', '7', '9', 'x', '\0', '{}', '[]', 'null',
  '4', '48', '49', '4x', '40{', '40[]', '40"x"', '40null', '40/other,', '40/other,{}', `40/${'n'.repeat(5000)},`, '41', '41{}', '44', '44{}', '44{"message":"x"}',
  '42', '42{', '42{}', '42[]', '42null', '42"hello"', '42[null]', '42[{}]', '42[["hello"]]', '42["hello"', '421["hello",{"clientKey":NaN}]', '421["hello",{"round":Infinity}]', '421["hello",undefined]', '421["hello",{},]', "421['hello',{}]", '421["hello",{"a":0x10}]',
  '42-1["hello",{}]', '4299999999999999999999["hello",{}]', '421.5["hello",{}]', '42/other,1["hello",{}]',
  '42["connect",{}]', '42["disconnect",{}]', '421["disconnecting",{}]', '421["newListener",{}]', '421["removeListener",{}]', '42["connect_error",{}]',
  '43', '430', '431', '431[]', '431[null]', '431{}', '4399999[{"ok":true}]', '43-1[{}]', '43["x"]',
  '45', '45-', '451', '451-', '45999999-["e",{"_placeholder":true,"num":0}]', '451-1["hello",{"_placeholder":true,"num":-1}]', '451-1["hello",{"_placeholder":true,"num":9}]', '451-1["hello",{"_placeholder":true,"num":"__proto__"}]', '45-1-["hello"]', '450-1["hello",{}]', '452-1["hello",{"_placeholder":true,"num":0}]',
  '46', '461-', '461-1[{"_placeholder":true,"num":0}]', '461-["x"]',
  `421["hello",${'['.repeat(20_000)}]`, `421["hello",${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}]`, `42${'9'.repeat(2000)}["hello",{}]`,
];

/** Engine.IO and Socket.IO packets that are none, a few on each connection. */
export async function packetGarbage({ target, received, tally, random }: Abuse, connections: number): Promise<void> {
  await inParallel(connections, 24, async (i) => {
    const socket = i % 4 === 0 ? await RawSocket.upgrade(target, received) : await RawSocket.open(target, received);
    for (const packet of [badPackets[i % badPackets.length]!, ...Array.from({ length: 3 }, () => pick(random, badPackets))]) {
      socket.text(packet);
      tally.count('packets');
      if (random.integer(3) === 0) {
        socket.binary(randomBytes(random, random.integer(40)));
        tally.count('packets');
      }
    }
    await socket.peer.finish(patienceMs);
  });
}

/** Messages over the limits. */
export async function oversized({ target, received, tally, random }: Abuse, count: number): Promise<void> {
  const big = 'x'.repeat(1024 * 1024 + 1);
  const bytes = Buffer.alloc(1024 * 1024 + 1);
  await inParallel(count, 4, async (i) => {
    const socket = await RawSocket.open(target, received);
    tally.count('oversized messages');
    switch (i % 5) {
      case 0:
        socket.text(`421["hello",{"clientKey":"${big}"}]`);
        break;
      case 1:
        socket.text('451-1["upload-chunk",{"upload":"u","offset":0,"data":{"_placeholder":true,"num":0}}]');
        socket.binary(bytes);
        break;
      case 2: // just below the limit of a message, over that of a chunk
        tally.acknowledged(await socket.request('upload-chunk', { upload: 'u', offset: 0, data: bytes.subarray(0, 1_000_000) }), 'a large chunk');
        break;
      case 3:
        tally.acknowledged(await socket.ask('x'.repeat(900_000), '{}'), 'a long name');
        break;
      default: // many fragments that are too much together
        socket.peer.write(frame(1, Buffer.from('421["hello",'), { fin: false }));
        for (let part = 0; part < 20; part++) socket.peer.write(frame(0, Buffer.alloc(60_000, 32), { fin: false }));
    }
    await socket.peer.finish(20 + random.integer(200));
  });
}

// --- events ---

const base64Of = (length: number) => Buffer.alloc(length, 7).toString('base64');
const digest = `sha256:${'ab'.repeat(32)}`;

/** A message of each kind that is right at first sight, as JSON text by member. */
const messages: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  hello: { protocols: '["fdp/1"]', clientKey: `"${base64Of(32)}"`, clientNonce: `"${base64Of(32)}"` },
  join: { signature: `"${base64Of(64)}"`, tokenProof: `"${base64Of(32)}"` },
  'upload-begin': { round: '1', stage: '"contribution"', bytes: '300', digest: `"${digest}"` },
  'upload-chunk': { upload: '"0123456789abcdef"', offset: '0', data: '"text"' },
  'upload-end': { upload: '"0123456789abcdef"' },
  decline: { round: '1', code: '"declined"' },
  leave: {},
};

const oddValues = [
  'null', 'true', 'false', '""', '[]', '{}', '-1', '-0', '1.5', '1e308', '-1e308', '1e999', '-1e999', '5e-324', '9007199254740993', '4294967296', '4294967295', '"NaN"', '"Infinity"', '"1"', '"\\ud800"', '"\\u0000"', '"\\u001b[31m"', '"__proto__"', '"constructor"',
  '[null]', '[[[[[[]]]]]]', '{"length":1}', '{"toString":null}', '{"toJSON":1}', '{"_placeholder":true,"num":0}', '{"type":"Buffer","data":[1]}', `"${'A'.repeat(44)}"`, `"${'A'.repeat(43)}="`, `"${'=\u00e9'.repeat(22)}"`, `"${'A'.repeat(100_000)}"`, `[${'1,'.repeat(5000)}1]`, `"sha256:${'g'.repeat(64)}"`, `"sha256:${'A'.repeat(64)}"`,
  '"../../identity.key"', '"round\\n\\r\\u2028"', '["fdp/1","fdp/2"]', '["fdp/0"]', `["${'v'.repeat(40)}"]`, '"contribution"', '"clear"',
];

const oddNames = ['', 'nope', 'HELLO', ' hello', 'hello\0', 'hello\n', '__proto__', 'constructor', 'prototype', 'toString', 'valueOf', 'hasOwnProperty', 'round', 'finished', 'problem', 'round-closed', 'error', 'message', 'ping', '\ud83d\ude00', '\u001b[2J', '*', 'x'.repeat(3000), '../hello', 'upload-begin ', 'Upload-Begin'];

/** An event name and the JSON text of its arguments. */
function wrongEvent(random: SeededGenerator): [string, string] {
  const name = pick(random, Object.keys(messages));
  const members = { ...messages[name]! };
  const member = pick(random, [...Object.keys(members), 'extra']);
  const write = (all: Readonly<Record<string, string>>, more = '') => `{${[...Object.entries(all).map(([key, value]) => `${JSON.stringify(key)}:${value}`), ...(more === '' ? [] : [more])].join(',')}}`;
  switch (random.integer(9)) {
    case 0:
      return [pick(random, oddNames), write(members)];
    case 1:
      return [name, pick(random, [...oddValues, '', '{},{}', '{},1', '1,{}', '{},{},{},{},{}', write(members) + ',null'])];
    case 2:
      delete members[member];
      return [name, write(members)];
    case 3:
      return [name, write(members, pick(random, ['"extra":1', '"__proto__":{"polluted":true}', '"constructor":{"prototype":{"polluted":true}}', '"prototype":1', '"toString":1', '"":0', '"hasOwnProperty":null', '"ok":true', '"then":1']))];
    case 4: // a member given twice
      return [name, write(members, `${JSON.stringify(member)}:${pick(random, oddValues)}`)];
    case 5: // as it is: unknown uploads, made-up signatures
      return [name, write(members)];
    default:
      return [name, write({ ...members, [member]: pick(random, oddValues) })];
  }
}

/** Events with wrong names, types, shapes and members on one connection, `width` at a time. Every one is answered exactly once. */
export async function wrongEvents({ tally, random }: Abuse, socket: RawSocket, count: number, kind: string): Promise<void> {
  const sent = Array.from({ length: count }, () => wrongEvent(random));
  await inParallel(count, 24, async (i) => {
    const [name, json] = sent[i]!;
    tally.count(kind);
    tally.acknowledged(await socket.ask(name, json), `${name} ${json.slice(0, 200)}`);
  });
  await endOfEvents(tally, socket);
}

/** Faster than allowed: answered with `rate-limited`, then cut off. Whatever is answered is answered once. */
export async function flood({ target, received, tally }: Abuse, count: number): Promise<void> {
  const socket = await RawSocket.open(target, received);
  const answers = Array.from({ length: count }, () => socket.ask('leave', '{}'));
  tally.count('flood', count);
  let answered = 0;
  for (const answer of await Promise.all(answers)) {
    if (answer === undefined) tally.outcome('(connection closed)');
    else tally.acknowledged(answer, 'a flood');
    if (answer !== undefined) answered += 1;
  }
  if (answered < maxEventBurst) tally.fault(`only ${answered} of a burst of ${maxEventBurst} were answered`);
  checkOnce(tally, socket, { all: false });
  socket.peer.destroy();
}

/** Nothing more comes for what was asked. */
async function endOfEvents(tally: Tally, socket: RawSocket): Promise<void> {
  tally.acknowledged(await socket.ask('nope', '{}'), 'the last event'); // whatever was sent twice has come before this
  checkOnce(tally, socket, { all: true });
}

export function checkOnce(tally: Tally, socket: RawSocket, { all }: { all: boolean }): void {
  const counts = socket.answerCounts();
  const wrong = counts.filter((count) => count > 1 || (all && count === 0)).length;
  if (wrong > 0) tally.fault(`${wrong} of ${counts.length} events were not answered exactly once`);
  if (socket.strayAnswers() > 0) tally.fault('answers to ids that were never sent');
}
