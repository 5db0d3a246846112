/** A peer that speaks WebSocket, Engine.IO and Socket.IO by hand, so that it can get any of them wrong, and that keeps every byte it is sent. */
import { connect, type Socket } from 'node:net';

export interface Target {
  readonly host: string;
  readonly port: number;
}

/** Everything that came back from the server, over all connections. */
export class Received {
  readonly #parts: Buffer[] = [];
  keep(bytes: Uint8Array): void {
    this.#parts.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  }
  /** One after the other, with a line in between. */
  all(): Buffer {
    return Buffer.concat(this.#parts.flatMap((part) => [part, Buffer.from('\n')]));
  }
}

/** A TCP connection from an address of its own, so that limits by address hit the abuser alone. */
export class RawPeer {
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #received: Received;
  #bytes: Buffer[] = [];
  isClosed = false;

  private constructor(socket: Socket, received: Received) {
    this.#socket = socket;
    this.#received = received;
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.isClosed = true;
        this.#received.keep(this.bytes());
        resolve();
      });
    });
    socket.on('error', () => undefined);
    socket.on('data', (data) => this.#bytes.push(data));
  }

  static async open({ host, port }: Target, received: Received, localAddress = '127.0.0.2'): Promise<RawPeer> {
    const socket = connect({ host, port, localAddress, noDelay: true });
    const peer = new RawPeer(socket, received);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return peer;
  }

  /** All that came so far. */
  bytes(): Buffer {
    if (this.#bytes.length > 1) this.#bytes = [Buffer.concat(this.#bytes)];
    return this.#bytes[0] ?? Buffer.alloc(0);
  }

  write(bytes: Uint8Array | string): void {
    if (this.#socket.writable) this.#socket.write(bytes);
  }

  onData(listener: () => void): void {
    this.#socket.on('data', listener);
  }

  /** Resolves when the server closes, or after `ms`; then the connection is gone. */
  async finish(ms: number): Promise<string> {
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([this.closed, new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)))]);
    clearTimeout(timer);
    this.destroy();
    await this.closed;
    return this.bytes().toString('latin1');
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

/** One WebSocket frame from a client: masked, as RFC 6455 wants it. */
export function frame(opcode: number, payload: Uint8Array, { fin = true, rsv = 0, masked = true, length }: { fin?: boolean; rsv?: number; masked?: boolean; /** A lie about the length. */ length?: bigint } = {}): Buffer {
  const claimed = length ?? BigInt(payload.length);
  const maskBit = masked ? 0x80 : 0;
  const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  let head: Buffer;
  if (claimed < 126n) {
    head = Buffer.from([first, maskBit | Number(claimed)]);
  } else if (claimed < 65_536n) {
    head = Buffer.alloc(4);
    head.set([first, maskBit | 126]);
    head.writeUInt16BE(Number(claimed), 2);
  } else {
    head = Buffer.alloc(10);
    head.set([first, maskBit | 127]);
    head.writeBigUInt64BE(BigInt.asUintN(64, claimed), 2);
  }
  if (!masked) return Buffer.concat([head, payload]);
  const mask = Buffer.from([0x11, 0x22, 0x33, 0x44]);
  const body = Buffer.from(payload);
  for (let i = 0; i < body.length; i++) body[i]! ^= mask[i & 3]!;
  return Buffer.concat([head, mask, body]);
}

const handshake = 'GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n';

export interface Answer {
  readonly ok: boolean;
  readonly problem?: { readonly code: string; readonly [member: string]: unknown };
  readonly [member: string]: unknown;
}

/** A Socket.IO connection. Heartbeats are answered; acknowledgements are counted by id. */
export class RawSocket {
  readonly peer: RawPeer;
  /** Events from the server, oldest first. */
  readonly events: { readonly name: string; readonly payload: unknown }[] = [];
  readonly #answers = new Map<number, Answer[]>();
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #watchers: (() => void)[] = [];
  #read = 0;
  #texts = 0;
  #nextId = 1;

  private constructor(peer: RawPeer) {
    this.peer = peer;
    peer.onData(() => this.#parse());
    void peer.closed.then(() => this.#notify());
  }

  /** After the WebSocket handshake and Engine.IO's OPEN, before CONNECT. */
  static async upgrade(target: Target, received: Received, localAddress?: string): Promise<RawSocket> {
    const socket = new RawSocket(await RawPeer.open(target, received, localAddress));
    socket.peer.write(handshake);
    await socket.#until(() => socket.#texts > 0);
    return socket;
  }

  /** A connected socket of the default namespace. */
  static async open(target: Target, received: Received, localAddress?: string): Promise<RawSocket> {
    const socket = await RawSocket.upgrade(target, received, localAddress);
    socket.text('40');
    await socket.#until(() => socket.#texts > 1);
    return socket;
  }

  text(packet: string): void {
    this.peer.write(frame(1, Buffer.from(packet)));
  }

  binary(bytes: Uint8Array): void {
    this.peer.write(frame(2, bytes));
  }

  /** Sends an event with `json` as the arguments after its name (`json` need not be JSON), and attachments; the answer, or `undefined` when the connection ends without one. */
  ask(name: string, json: string, attachments: readonly Uint8Array[] = []): Promise<Answer | undefined> {
    const id = this.#nextId++;
    const answer = new Promise<Answer | undefined>((resolve) => {
      this.#waiting.set(id, resolve);
      void this.peer.closed.then(() => resolve(undefined));
    });
    const head = attachments.length === 0 ? '42' : `45${attachments.length}-`;
    this.text(`${head}${id}[${JSON.stringify(name)}${json === '' ? '' : `,${json}`}]`);
    for (const attachment of attachments) this.binary(attachment);
    return answer;
  }

  /** Sends a message whose members are bytes where they are `Uint8Array`. */
  request(name: string, message: Readonly<Record<string, unknown>>): Promise<Answer | undefined> {
    const attachments: Uint8Array[] = [];
    const placed = Object.entries(message).map(([key, value]) => [key, value instanceof Uint8Array ? { _placeholder: true, num: attachments.push(value) - 1 } : value]);
    return this.ask(name, JSON.stringify(Object.fromEntries(placed)), attachments);
  }

  /** Answers that came to each event that was asked: must be one each. */
  answerCounts(): number[] {
    return Array.from({ length: this.#nextId - 1 }, (_, i) => this.#answers.get(i + 1)?.length ?? 0);
  }

  /** Answers to ids that were never sent. */
  strayAnswers(): number {
    return [...this.#answers.keys()].filter((id) => id < 1 || id >= this.#nextId).length;
  }

  async nextEvent(name: string): Promise<unknown> {
    const find = () => this.events.findIndex((event) => event.name === name);
    await this.#until(() => find() !== -1);
    return this.events.splice(find(), 1)[0]!.payload;
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.peer.isClosed) throw new Error('the server has closed the connection');
      await new Promise<void>((resolve) => this.#watchers.push(resolve));
    }
  }

  #notify(): void {
    const watchers = this.#watchers;
    this.#watchers = [];
    for (const watcher of watchers) watcher();
  }

  #parse(): void {
    const bytes = this.peer.bytes();
    if (this.#read === 0) {
      const end = bytes.indexOf('\r\n\r\n');
      if (end === -1) return;
      this.#read = end + 4;
    }
    for (;;) {
      // Frames from a server are not masked.
      if (bytes.length < this.#read + 2) break;
      const opcode = bytes[this.#read]! & 0x0f;
      const short = bytes[this.#read + 1]! & 0x7f;
      const headEnd = this.#read + (short === 126 ? 4 : short === 127 ? 10 : 2);
      if (bytes.length < headEnd) break;
      const length = short === 126 ? bytes.readUInt16BE(this.#read + 2) : short === 127 ? Number(bytes.readBigUInt64BE(this.#read + 2)) : short;
      if (bytes.length < headEnd + length) break;
      const payload = bytes.subarray(headEnd, headEnd + length);
      this.#read = headEnd + length;
      if (opcode === 1) this.#onText(payload.toString('utf8'));
    }
    this.#notify();
  }

  #onText(text: string): void {
    this.#texts += 1;
    if (text === '2') this.text('3');
    const answer = /^43(\d+)(\[.*)$/s.exec(text);
    if (answer !== null) {
      const id = Number(answer[1]);
      const [value] = JSON.parse(answer[2]!) as [Answer];
      this.#answers.set(id, [...(this.#answers.get(id) ?? []), value]);
      this.#waiting.get(id)?.(value);
      this.#waiting.delete(id);
      return;
    }
    const event = /^42(\d+)?(\[.*)$/s.exec(text);
    if (event === null) return;
    const [name, payload] = JSON.parse(event[2]!) as [string, unknown];
    this.events.push({ name, payload });
    if (event[1] !== undefined) this.text(`43${event[1]}[{"ok":true}]`);
  }
}
