import { randomBytes } from 'node:crypto';
import { connect, type Socket as NetSocket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import type { Socket } from 'socket.io-client';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { maxStageBytes } from '../../../shared/protocol/limits.ts';
import { coordinatorEventSchemas } from '../../../shared/protocol/messages.ts';
import { RemoteProblem } from '../../../shared/protocol/problems.ts';
import { socketConnector } from '../../../client/connection/socket-connector.ts';
import type { ServerLimits } from '../../../server/server-limits.ts';
import { connectClient, nextEvent, sendRaw, startTestServer, type TestServer } from '../../support/test-server.ts';

let running: TestServer | undefined;
const sockets: Socket[] = [];

async function start(limits: Partial<ServerLimits> = {}): Promise<TestServer> {
  running = await startTestServer({ limits });
  return running;
}

async function client(): Promise<Socket> {
  const socket = await connectClient(running!.origin);
  sockets.push(socket);
  return socket;
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.disconnect();
  await running?.server.close();
  running = undefined;
});

interface TestAck {
  readonly ok: boolean;
  /** The payload of an event that the fake coordinator knows. */
  readonly echo?: { readonly data?: Uint8Array; readonly i?: number };
  readonly problem?: { readonly code: string };
}
type Acknowledge = (ack: unknown) => void;

/** Sends an event with any arguments; resolves with the answer. */
async function ask(socket: Socket, event: string, ...args: unknown[]): Promise<TestAck> {
  return (await socket.timeout(5000).emitWithAck(event, ...args)) as TestAck;
}

/** A new client is served: the server has survived. */
async function expectAlive(): Promise<void> {
  const socket = await client();
  expect(await ask(socket, 'hello', { a: 1 })).toEqual({ ok: true, echo: { a: 1 } });
  expect((await fetch(`${running!.origin}/healthz`)).status).toBe(200);
  socket.disconnect();
}

const problem = (code: string): unknown => expect.objectContaining({ ok: false, problem: expect.objectContaining({ code }) });

describe('events', () => {
  it('passes an event on and answers it, bytes included', async () => {
    const { endpoint } = await start();
    const socket = await client();
    const data = Uint8Array.of(1, 2, 255);
    const answer = await ask(socket, 'upload-chunk', { upload: 'u', offset: 0, data });
    expect(answer.ok).toBe(true);
    expect(Uint8Array.from(answer.echo!.data!)).toEqual(data);
    expect((endpoint.received[0]!.payload as { data: unknown }).data).toBeInstanceOf(Uint8Array);
  });

  it('carries the largest message of a stage to a client, as bytes', async () => {
    const { endpoint, origin } = await start();
    const connection = await socketConnector({ origin }).connect();
    const arrived = new Promise<unknown>((resolve) =>
      connection.onEvent(async (_event, payload) => {
        resolve(payload);
        return { ok: true };
      }),
    );
    const data = new Uint8Array(maxStageBytes).fill(7);
    await [...endpoint.connections][0]!.send('stage', { round: 3, stage: 'shareKeys', data });
    const message = coordinatorEventSchemas.stage.parse(await arrived);
    expect(message).toMatchObject({ round: 3, stage: 'shareKeys' });
    expect(Buffer.compare(message.data, data)).toBe(0);
    await connection.close();
  });

  it('answers events that nobody knows, also those that mean something to Socket.IO or to objects', async () => {
    await start();
    const socket = await client();
    for (const event of ['no-such-event', '', 'error', '__proto__', 'constructor', 'toString', 'x'.repeat(500_000)]) expect(await ask(socket, event, {})).toEqual(problem('event-unknown'));
  });

  it('answers every payload that is no single object', async () => {
    const { endpoint } = await start();
    const socket = await client();
    const wrong: unknown[][] = [[], [{}, {}], [1], ['text'], [null], [true], [[]], [[{}]], [Buffer.from('bytes')], ['x'.repeat(900_000)], [{}, 'more', 3]];
    for (const args of wrong) expect(await ask(socket, 'hello', ...args)).toEqual(problem('message-malformed'));
    expect(endpoint.received).toEqual([]);
  });

  it('answers an event without acknowledgement with the event problem, and does not act on it', async () => {
    const { endpoint } = await start();
    const socket = await client();
    const told = nextEvent(socket, 'problem');
    socket.emit('hello', {});
    const [{ problem: said }] = await told;
    expect(said).toMatchObject({ code: 'message-malformed', field: 'acknowledgement' });
    expect(endpoint.received).toEqual([]);
  });

  it('answers a bug of the coordinator without telling of it', async () => {
    await start();
    const answer = await ask(await client(), 'throw', {});
    expect(answer).toEqual(problem('internal'));
    expect(JSON.stringify(answer)).not.toContain('secret');
  });

  it('answers each of many events at once, exactly once', async () => {
    await start({ maxUnanswered: 1000 });
    const socket = await client();
    const answers: number[] = [];
    await Promise.all(Array.from({ length: 300 }, (_, i) => ask(socket, 'hello', { i }).then(({ echo }) => answers.push(echo!.i!))));
    expect(answers.sort((a, b) => a - b)).toEqual(Array.from({ length: 300 }, (_, i) => i));
  });
});

describe('packets that no client library sends', () => {
  it('refuses names of prototypes, in JSON that could carry them', async () => {
    const { port, endpoint } = await start();
    const socket = await RawClient.open(port);
    for (const [id, payload] of ['{"__proto__":{"polluted":1}}', '{"constructor":{"prototype":{"polluted":1}}}'].entries()) {
      expect(await socket.answerTo(id, `42${id}["hello",${payload}]`)).toContain('message-malformed');
    }
    expect(await socket.answerTo(7, '451-7["hello",{"__proto__":{"_placeholder":true,"num":0}}]', Buffer.from('bytes'))).toContain('message-malformed');
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
    expect(endpoint.received).toEqual([]);
    socket.close();
  });

  it('answers a packet without a name, and one whose name is a number', async () => {
    const { port } = await start();
    const socket = await RawClient.open(port);
    expect(await socket.answerTo(1, '421')).toContain('message-malformed');
    expect(await socket.answerTo(2, '422[5,{}]')).toContain('message-malformed');
    socket.send('42');
    expect(await socket.next((text) => text.startsWith('42'))).toContain('message-malformed');
    socket.close();
  });

  it('survives acknowledgements that nobody asked for, and odd ones for those it did', async () => {
    const { port, endpoint } = await start();
    const socket = await RawClient.open(port);
    for (const text of ['43', '4399[]', '430', '431[1,2,3]']) socket.send(text);
    const [connection] = endpoint.connections;
    for (const answer of ['', '[]', '[1]', '[null]', '[{"ok":"yes"}]', '[{"ok":false}]']) {
      const sent = connection!.send('round-closed', {});
      const id = /^42(\d+)/.exec(await socket.next((text) => text.includes('round-closed')))![1];
      socket.send(`43${id}${answer}`);
      await expect(sent).rejects.toMatchObject({ code: 'message-malformed' });
    }
    socket.close();
    await expectAlive();
  });

  it('survives a thousand random packets and frames, and serves on', async () => {
    const { port } = await start();
    const generator = new SeededGenerator(20_240_607);
    const integer = (below: number) => generator.integer(below);
    const pieces = ['4', '2', '5', '6', '0', '1', '3', '40', '42', '451-', '["hello",', '{}', ']', '{"_placeholder":true,"num":9}', '/admin,', '"', '\\u0000', 'é', '99999999999999999999', '-', '[', '{"ok":true}', 'null', '3probe', '\u{1f600}'];
    for (let done = 0; done < 1000; ) {
      const socket = await RawClient.open(port);
      // A connection ends with the first packet that cannot be parsed; what follows meets a closed one.
      for (let i = 0; i < 10 && done < 1000; i++, done++) {
        const kind = integer(4);
        if (kind === 0) socket.sendFrame(0x2, Uint8Array.from({ length: integer(200) }, () => integer(256)));
        else if (kind === 1) socket.write(Uint8Array.from({ length: 1 + integer(50) }, () => integer(256)));
        else socket.send((kind === 2 ? '42' : '') + Array.from({ length: integer(8) }, () => pieces[integer(pieces.length)]).join(''));
      }
      socket.close();
    }
    await expectAlive();
  }, 60_000);

  it('survives bytes that are no HTTP, half a handshake and handshakes that are wrong', async () => {
    const { port } = await start();
    const upgrade = (path: string, extra = '') => `GET ${path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n${extra}\r\n`;
    await Promise.all([
      ...Array.from({ length: 20 }, () => sendRaw(port, randomBytes(500), 300)),
      sendRaw(port, upgrade('/socket.io/').slice(0, 40), 300),
      sendRaw(port, upgrade('/socket.io/?EIO=3&transport=websocket'), 300),
      sendRaw(port, upgrade('/socket.io/?EIO=4&transport=polling'), 300),
      sendRaw(port, upgrade('/socket.io/?EIO=4&transport=websocket&sid=__proto__'), 300),
      sendRaw(port, upgrade('/socket.io/?EIO=4&transport=websocket', 'Origin: \x01\r\n'), 300),
      sendRaw(port, upgrade('/socket.io/%zz?%zz=%&EIO=4&transport=websocket'), 300),
      sendRaw(port, upgrade('/socket.io/?EIO=4&transport=websocket').replace('13', '99'), 300),
    ]);
    await expectAlive();
  });

  it('gives one connection one socket, also for two CONNECT packets in one breath', async () => {
    const { port, endpoint } = await start();
    const socket = await RawClient.connect(port);
    let most = 0;
    endpoint.connected = (connection) => void (most = Math.max(most, endpoint.connections.add(connection).size));
    socket.write(Buffer.concat(Array.from({ length: 5 }, () => frame(0x1, Buffer.from('40')))));
    await Promise.race([socket.next((text) => text.startsWith('44')), socket.closed]);
    expect(most).toBe(1);
    socket.close();
    await expectAlive();
  });
});

describe('limits', () => {
  it('closes the connection of an oversize message, and only that', async () => {
    const { endpoint } = await start();
    const [large, other] = [await client(), await client()];
    const closed = nextEvent(large, 'disconnect');
    large.emit('hello', { text: 'x'.repeat(1024 * 1024) }, () => undefined);
    await closed;
    expect(endpoint.received).toEqual([]);
    expect((await ask(other, 'hello', {})).ok).toBe(true);
  });

  it('answers a flood with rate-limited, then closes the connection', async () => {
    await start({ maxEventsPerSecond: 1, maxEventBurst: 20, maxUnanswered: 1000 });
    const socket = await client();
    const closed = nextEvent(socket, 'disconnect');
    const codes: string[] = [];
    for (let i = 0; i < 60; i++) socket.emit('hello', {}, (ack: TestAck) => codes.push(ack.ok ? 'ok' : ack.problem!.code));
    await closed;
    // Those whose answer was still on its way when the connection was closed are lost with it.
    expect(codes.filter((code) => code === 'ok').length).toBeLessThanOrEqual(20);
    expect(codes.filter((code) => code === 'rate-limited').length).toBeGreaterThanOrEqual(20);
    expect(new Set(codes).size).toBe(2);
    await expectAlive();
  });

  it('closes a connection that floods below the level of events', async () => {
    const { port } = await start({ maxEventsPerSecond: 1, maxEventBurst: 5 });
    const socket = await RawClient.open(port);
    for (let i = 0; i < 100; i++) socket.send('43999[]');
    await socket.closed;
    await expectAlive();
  });

  it('takes only so many events that wait for an answer', async () => {
    const { endpoint } = await start({ maxUnanswered: 3 });
    let open!: () => void;
    endpoint.gate = new Promise((resolve) => (open = resolve));
    const socket = await client();
    const answers = Array.from({ length: 5 }, () => ask(socket, 'hello', {}));
    expect(await Promise.all(answers.slice(3))).toEqual([problem('rate-limited'), problem('rate-limited')]);
    open();
    expect((await Promise.all(answers.slice(0, 3))).map(({ ok }) => ok)).toEqual([true, true, true]);
  });

  it('closes a connection that does not join in time, and says why', async () => {
    await start({ joinDeadlineMs: 200 });
    const [late, joined] = [await client(), await client()];
    expect((await ask(joined, 'join', {})).ok).toBe(true);
    const closed = nextEvent(late, 'disconnect');
    const [{ problem: said }] = await nextEvent(late, 'problem');
    expect(said.code).toBe('not-authenticated');
    await closed;
    expect((await ask(joined, 'leave', {})).ok).toBe(true);
  });

  it('closes a connection that never opens its namespace', async () => {
    const { port } = await start({ joinDeadlineMs: 200 });
    await (await RawClient.connect(port)).closed;
  });

  for (const limit of ['maxConnections', 'maxConnectionsPerAddress'] as const) {
    it(`tells a connection beyond ${limit} that there is no room, and lets it in when there is`, async () => {
      await start({ [limit]: 2 });
      const [first] = [await client(), await client()];
      await expect(client()).rejects.toMatchObject({ data: { problem: { code: 'capacity-exceeded' } } });
      first.disconnect();
      await expect.poll(() => client().then(() => true, () => false), { timeout: 5000 }).toBe(true);
    });
  }

  it('closes the connection of a client that sends and never reads', async () => {
    const { port, endpoint } = await start({ maxEventsPerSecond: 1e9, maxEventBurst: 1e9, maxUnanswered: 1e9 });
    const socket = await RawClient.open(port);
    socket.pause();
    const text = 'x'.repeat(100_000);
    for (let i = 0; i < 2000 && endpoint.connections.size > 0; i++) {
      socket.send(`42${i}["hello",{"text":"${text}"}]`);
      if (i % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await expect.poll(() => endpoint.connections.size, { timeout: 10_000 }).toBe(0);
    socket.close();
  });
});

describe('events to a client', () => {
  it('resolves when the client says ok, and rejects with its problem', async () => {
    const { endpoint } = await start();
    const socket = await client();
    const [connection] = endpoint.connections;
    socket.once('round', (_payload: unknown, ack: Acknowledge) => ack({ ok: true, more: 1 }));
    await expect(connection!.send('round', { data: Uint8Array.of(1) })).resolves.toBeUndefined();
    socket.once('round', (_payload: unknown, ack: Acknowledge) => ack({ ok: false, problem: { type: 't', code: 'policy-refused', title: 'No.', status: 403 } }));
    const refused = await connection!.send('round', {}).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(RemoteProblem);
    expect(refused).toMatchObject({ code: 'policy-refused', message: 'No.' });
  });

  it('rejects when the client answers too late, not in the form of an answer, or never again', async () => {
    const { endpoint } = await start({ ackDeadlineMs: 200 });
    const socket = await client();
    const [connection] = endpoint.connections;
    await expect(connection!.send('round', {})).rejects.toMatchObject({ code: 'deadline-exceeded' });
    socket.once('round', (_payload: unknown, ack: Acknowledge) => ack('yes'));
    await expect(connection!.send('round', {})).rejects.toMatchObject({ code: 'message-malformed' });
    const sent = connection!.send('round', {});
    socket.disconnect();
    await expect(sent).rejects.toMatchObject({ code: 'disconnected' });
    await expect(connection!.send('round', {})).rejects.toMatchObject({ code: 'disconnected' });
    expect(endpoint.connections.size).toBe(0);
  });

  it('closes a connection on request', async () => {
    const { endpoint } = await start();
    const socket = await client();
    const closed = nextEvent(socket, 'disconnect');
    [...endpoint.connections][0]!.close();
    await closed;
    await expect.poll(() => endpoint.connections.size).toBe(0);
  });
});

function frame(opcode: number, payload: Uint8Array): Buffer {
  const length = payload.length < 126 ? Buffer.of(0x80 | payload.length) : Buffer.concat([Buffer.of(0x80 | 127), Buffer.from(BigUint64Array.of(BigInt(payload.length)).buffer).reverse()]);
  return Buffer.concat([Buffer.of(0x80 | opcode), length, Buffer.alloc(4), payload]); // masked with zeros
}

/** A WebSocket client that sends any bytes: RFC 6455 by hand, as far as these tests need it. */
class RawClient {
  readonly closed: Promise<void>;
  readonly #socket: NetSocket;
  readonly #texts: string[] = [];
  #waiting: { matches: (text: string) => boolean; resolve: (text: string) => void }[] = [];
  #buffer = Buffer.alloc(0);
  #isUpgraded = false;

  private constructor(socket: NetSocket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.on('error', () => undefined);
    socket.on('data', (data: Buffer) => this.#onData(data));
  }

  /** An Engine.IO connection, before CONNECT. */
  static async connect(port: number): Promise<RawClient> {
    const socket = connect(port, '127.0.0.1');
    const raw = new RawClient(socket);
    socket.write('GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n');
    await raw.next((text) => text.startsWith('0{'));
    return raw;
  }

  /** A connected Socket.IO socket. */
  static async open(port: number): Promise<RawClient> {
    const raw = await RawClient.connect(port);
    raw.send('40');
    await raw.next((text) => text.startsWith('40'));
    return raw;
  }

  send(text: string): void {
    this.sendFrame(0x1, Buffer.from(text));
  }

  /** Sends a packet and resolves with the acknowledgement of this id. */
  async answerTo(id: number, packet: string, attachment?: Buffer): Promise<string> {
    this.send(packet);
    if (attachment !== undefined) this.sendFrame(0x2, attachment);
    return this.next((text) => text.startsWith(`43${id}[`));
  }

  sendFrame(opcode: number, payload: Uint8Array): void {
    this.write(frame(opcode, payload));
  }

  write(bytes: Uint8Array): void {
    if (this.#socket.writable) this.#socket.write(bytes);
  }

  /** The next text that matches, also one that came before. */
  next(matches: (text: string) => boolean): Promise<string> {
    const index = this.#texts.findIndex(matches);
    if (index !== -1) return Promise.resolve(this.#texts.splice(index, 1)[0]!);
    return new Promise((resolve) => this.#waiting.push({ matches, resolve }));
  }

  pause(): void {
    this.#socket.pause();
  }

  close(): void {
    this.#socket.destroy();
  }

  #onData(data: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, data]);
    if (!this.#isUpgraded) {
      const end = this.#buffer.indexOf('\r\n\r\n');
      if (end === -1) return;
      this.#isUpgraded = true;
      this.#buffer = this.#buffer.subarray(end + 4);
    }
    for (let text = this.#takeFrame(); text !== undefined; text = this.#takeFrame()) {
      const waiter = this.#waiting.find(({ matches }) => matches(text));
      this.#waiting = this.#waiting.filter((other) => other !== waiter);
      if (waiter === undefined) this.#texts.push(text);
      else waiter.resolve(text);
    }
  }

  /** Frames of a server are not masked. */
  #takeFrame(): string | undefined {
    if (this.#buffer.length < 2) return undefined;
    const short = this.#buffer[1]! & 0x7f;
    const start = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (this.#buffer.length < start) return undefined;
    const length = short < 126 ? short : short === 126 ? this.#buffer.readUInt16BE(2) : Number(this.#buffer.readBigUInt64BE(2));
    if (this.#buffer.length < start + length) return undefined;
    const text = this.#buffer.subarray(start, start + length).toString();
    if ((this.#buffer[0]! & 0x0f) === 0x8) this.#socket.destroy(); // the server said goodbye
    this.#buffer = this.#buffer.subarray(start + length);
    return text;
  }
}
