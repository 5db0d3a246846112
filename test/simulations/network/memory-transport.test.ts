import { describe, expect, it } from 'vitest';
import { FederationError } from '../../../shared/errors.ts';
import type { ClientConnection, CoordinatorEndpoint } from '../../../shared/ports/transport.ts';
import type { Ack } from '../../../shared/protocol/messages.ts';
import { toProblem } from '../../../shared/protocol/problems.ts';
import { memoryConnector, steadyNetwork, type MessageInFlight, type Network, type Traffic } from '../../../simulations/network/memory-transport.ts';
import { VirtualClock } from '../../../simulations/network/virtual-clock.ts';

interface Received {
  readonly event: string;
  readonly payload: unknown;
  readonly at: number;
}

/** An endpoint that notes what it is told, on a network of the test's choice. */
async function link(network: Network, answer: (event: string, payload: unknown) => Promise<Ack> = async () => ({ ok: true })) {
  const clock = new VirtualClock();
  const received: Received[] = [];
  const log: string[] = [];
  let server: ClientConnection | undefined;
  const endpoint: CoordinatorEndpoint = {
    connected: (connection) => {
      server = connection;
      log.push('connected');
    },
    receive: (_connection, event, payload) => {
      received.push({ event, payload, at: clock.now() });
      return answer(event, payload);
    },
    disconnected: () => void log.push('disconnected'),
    resource: async () => ({ contentType: 'application/octet-stream', body: Uint8Array.of(1, 2, 3) }),
  };
  const traffic: Traffic = { bytesUp: 0, bytesDown: 0 };
  const client = await memoryConnector({ endpoint: () => endpoint, clock, network, traffic }).connect();
  client.onDisconnect((reason) => void log.push(`client told: ${reason}`));
  const code = async (work: Promise<unknown>) => clock.runUntil(work.then(() => 'ok', (error: unknown) => (error instanceof FederationError ? error.code : String(error))));
  return { clock, received, log, client, server: server!, traffic, code };
}

/** The fate of the nth message; the others take 1 ms. */
const fateOf = (n: number, fate: Partial<ReturnType<Network>>): Network => {
  let count = 0;
  return () => ({ delayMs: 1, ...(++count === n ? fate : {}) });
};

describe('the network in memory', () => {
  it('takes its time in both directions', async () => {
    const { clock, client, received } = await link(steadyNetwork(30));
    expect(await clock.runUntil(client.request('leave', { a: 1 }))).toEqual({ ok: true });
    expect(received).toEqual([{ event: 'leave', payload: { a: 1 }, at: 30 }]);
    expect(clock.now()).toBe(60);
  });

  it('delivers what was sent, even if the sender changes it afterwards, and lets nobody see anybody\'s objects', async () => {
    const answerObject = { ok: true, list: [1] } as const;
    const { clock, client, received } = await link(steadyNetwork(5), async () => answerObject);
    const buffer = new Uint8Array(1000);
    const payload = { data: buffer.subarray(10, 14), nested: { list: [1, undefined, NaN], gone: undefined } };
    const answer = clock.runUntil(client.request('leave', payload));
    payload.data[0] = 9;
    payload.nested.list.push(7);
    const got = (await answer) as { list: number[] };
    const arrived = received[0]!.payload as { data: Uint8Array };
    // As over Socket.IO: JSON with bytes, and of a view only what it shows.
    expect(arrived).toEqual({ data: new Uint8Array(4), nested: { list: [1, null, null] } });
    expect(Object.hasOwn((arrived as unknown as { nested: object }).nested, 'gone')).toBe(false);
    expect(arrived.data.buffer.byteLength).toBe(4);
    expect(got.list).not.toBe(answerObject.list);
  });

  it('brings problems back as errors with their codes', async () => {
    const problem = toProblem(new FederationError('round-closed', 'Closed.'), { nextRound: 4 });
    const { clock, client } = await link(steadyNetwork(1), async () => ({ ok: false, problem }));
    await expect(clock.runUntil(client.request('leave', {}))).rejects.toMatchObject({ code: 'round-closed', nextRound: 4 });
  });

  it('answers a client\'s events in the other direction too, and waits in vain for one that does not listen', async () => {
    const { client, server, code } = await link(steadyNetwork(1));
    expect(await code(server.send('round', {}))).toBe('deadline-exceeded');
    client.onEvent(async (event, payload) => (event === 'round' ? { ok: true } : { ok: false, problem: toProblem(new FederationError('declined', JSON.stringify(payload))) }));
    expect(await code(server.send('round', {}))).toBe('ok');
    expect(await code(server.send('finished', {}))).toBe('declined');
    client.onEvent(() => Promise.reject(new Error('a bug of the client')));
    expect(await code(server.send('round', {}))).toBe('deadline-exceeded');
  });

  it.each([['request', 1, 0], ['answer', 2, 1]] as const)('lets the sender wait for its deadline when the %s is lost', async (_what, n, received) => {
    const parts = await link(fateOf(n, { isLost: true }));
    expect(await parts.code(parts.client.request('leave', {}))).toBe('deadline-exceeded');
    expect(parts.clock.now()).toBe(20_000);
    expect(parts.received).toHaveLength(received);
    expect(await parts.code(parts.client.request('leave', {}))).toBe('ok'); // the connection still stands
  });

  it('lets a fetch wait for its deadline when the frame is lost, and fail when the connection breaks', async () => {
    const lost = await link(fateOf(1, { isLost: true }));
    expect(await lost.code(lost.client.fetchFrame('/transfer-set', '', 10))).toBe('deadline-exceeded');
    expect(await lost.clock.runUntil(lost.client.fetchFrame('/transfer-set', '', 10))).toEqual(Uint8Array.of(1, 2, 3));
    expect(await lost.code(lost.client.fetchFrame('/transfer-set', '', 2))).toBe('message-too-large');
    const broken = await link(fateOf(1, { breaksConnection: true }));
    expect(await broken.code(broken.client.fetchFrame('/transfer-set', '', 10))).toBe('disconnected');
    const racing = await link(steadyNetwork(1));
    const fetched = racing.client.fetchFrame('/transfer-set', '', 10);
    racing.server.close(); // while the endpoint is looking for it
    expect(await racing.code(fetched)).toBe('disconnected');
  });

  it('delivers a duplicated event twice, and its first answer once', async () => {
    let n = 0;
    const parts = await link(fateOf(1, { isDuplicated: true }), async () => ({ ok: true, n: ++n }));
    expect(await parts.clock.runUntil(parts.client.request('leave', {}))).toEqual({ ok: true, n: 1 });
    expect(parts.received).toHaveLength(2);
  });

  it.each([['request', 1], ['answer', 2]] as const)('tells both sides once when the connection breaks under the %s', async (_what, n) => {
    const parts = await link(fateOf(n, { breaksConnection: true }));
    const other = parts.client.request('leave', {}).catch((error: unknown) => (error as FederationError).code);
    expect(await parts.code(parts.client.request('leave', {}))).toBe('disconnected');
    expect(await parts.clock.runUntil(other)).toBe('disconnected');
    parts.server.close();
    await parts.client.close();
    expect(parts.log).toEqual(['connected', 'disconnected', 'client told: the connection was lost']);
    expect(await parts.code(parts.client.request('leave', {}))).toBe('disconnected');
    expect(await parts.code(parts.server.send('round', {}))).toBe('disconnected');
    expect(await parts.code(parts.client.fetchFrame('/x', '', 1))).toBe('disconnected');
  });

  it('delivers nothing that was under way when a side hung up', async () => {
    const parts = await link(steadyNetwork(10));
    const asked = parts.client.request('leave', {}).catch((error: unknown) => (error as FederationError).code);
    await parts.client.close();
    expect(await parts.clock.runUntil(asked)).toBe('disconnected');
    await parts.code(new Promise((resolve) => void parts.clock.schedule(100, () => resolve(undefined))));
    expect(parts.received).toEqual([]);
    expect(parts.log).toEqual(['connected', 'disconnected']); // who hung up is not told
  });

  it('refuses to connect while there is no coordinator', async () => {
    const connector = memoryConnector({ endpoint: () => undefined, clock: new VirtualClock(), network: steadyNetwork(1) });
    await expect(connector.connect()).rejects.toMatchObject({ code: 'unreachable' });
  });

  it('counts the bytes of a client in both directions, and shows each message to the network', async () => {
    const seen: MessageInFlight[] = [];
    const parts = await link((message) => {
      seen.push(message);
      return { delayMs: 0 };
    });
    await parts.clock.runUntil(parts.client.request('upload-chunk', { data: new Uint8Array(100) }));
    expect(seen).toEqual([
      { direction: 'to-coordinator', kind: 'event', event: 'upload-chunk', bytes: 100 + '{"data":null}'.length },
      { direction: 'to-client', kind: 'ack', event: 'upload-chunk', bytes: '{"ok":true}'.length },
    ]);
    expect(parts.traffic).toEqual({ bytesUp: 113, bytesDown: 11 });
  });

  it('happens the same way every time', async () => {
    const run = async () => {
      let n = 0;
      const parts = await link(() => ({ delayMs: (n = (n * 7 + 3) % 11), isLost: n === 5, isDuplicated: n === 2 }));
      const codes = await parts.clock.runUntil(Promise.all(Array.from({ length: 30 }, (_, i) => parts.client.request('decline', { i }).then(() => 'ok', (error: FederationError) => error.code))));
      return { codes, received: parts.received };
    };
    expect(await run()).toEqual(await run());
  });
});
