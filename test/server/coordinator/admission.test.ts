import { describe, expect, it } from 'vitest';
import { signMessage } from '../../../shared/crypto/signature.ts';
import { clientIdOf } from '../../../shared/protocol/identity.ts';
import { decodeExamples } from '../../../shared/protocol/matrix-frame.ts';
import { toBase64, utf8 } from '../../../shared/types/bytes.ts';
import { ProtocolClient, refusal, TestFederation, testIdentity, type FederationOptions } from './protocol-client.ts';

const token = 'correct-horse-battery';

async function within(options: FederationOptions, work: (federation: TestFederation, client: (number: number) => ProtocolClient) => Promise<void>): Promise<void> {
  const federation = new TestFederation(options);
  await federation.run(async () => {
    await federation.start();
    await work(federation, (number) => new ProtocolClient(federation, number));
  });
}

describe('hello and join', () => {
  it('refuse every other event before join, and a join without hello', () =>
    within({}, async (_federation, client) => {
      const one = await client(1).connect();
      for (const [event, payload] of [['upload-begin', {}], ['upload-chunk', 7], ['upload-end', null], ['decline', {}], ['leave', {}]] as const) {
        expect(await refusal(one.request(event, payload as object))).toBe('not-authenticated');
      }
      expect(await refusal(one.request('join', { signature: toBase64(new Uint8Array(64)) }))).toBe('not-authenticated');
      await one.hello();
      expect(await refusal(one.request('leave', {}))).toBe('not-authenticated');
      await one.join();
    }));

  it('are taken once per connection, also after the session was replaced or the join refused', () =>
    within({}, async (_federation, client) => {
      const one = client(1);
      await one.arrive();
      expect(await refusal(one.hello())).toBe('not-authenticated');
      expect(await refusal(one.join())).toBe('not-authenticated');
      const refused = await (await client(2).connect()).hello();
      expect(await refusal(refused.request('join', { signature: toBase64(new Uint8Array(64)) }))).toBe('signature-invalid');
      expect(await refusal(refused.join())).toBe('not-authenticated');
      expect(await refusal(refused.hello())).toBe('not-authenticated');

      one.answer = () => new Promise(() => undefined); // keeps the replaced connection open
      await client(1).arrive();
      expect(await refusal(one.hello())).toBe('not-authenticated');
    }));

  it('refuse a protocol that is not spoken', () =>
    within({}, async (_federation, client) => {
      const one = await client(1).connect();
      const key = toBase64(one.identity.publicKey);
      expect(await refusal(one.request('hello', { protocols: ['fdp/2', 'FDP/1'], clientKey: key, clientNonce: key }))).toBe('protocol-unsupported');
    }));

  it('refuse a join signature that was recorded on another connection', () =>
    within({}, async (_federation, client) => {
      const victim = client(1);
      await (await victim.connect()).hello();
      const recorded = victim.joinMessage();
      await victim.join();
      // The attacker says hello with the victim's key and nonce; the coordinator's nonce is another one.
      const attacker = await client(1).connect();
      await attacker.request('hello', { protocols: ['fdp/1'], clientKey: toBase64(victim.identity.publicKey), clientNonce: toBase64(victim.nonces.clientNonce) });
      expect(await refusal(attacker.request('join', recorded))).toBe('signature-invalid');
      await victim.request('decline', { round: 1, code: 'declined' }); // still joined
    }));

  it('refuse a signature over something else, by someone else, and malleated ones', () =>
    within({}, async (_federation, client) => {
      const forge = [
        (one: ProtocolClient) => signMessage(utf8('something else'), one.identity),
        (one: ProtocolClient) => Buffer.from(one.joinMessage().signature, 'base64').map((byte, i) => (i === 63 ? byte | 0x80 : byte)),
        (one: ProtocolClient) => {
          const other = new ProtocolClient(one.federation, 2);
          other.nonces = one.nonces;
          other.taskDigest = one.taskDigest;
          return Buffer.from(other.joinMessage().signature, 'base64');
        },
      ];
      for (const signature of forge) {
        const one = await (await client(1).connect()).hello();
        expect(await refusal(one.request('join', { signature: toBase64(Uint8Array.from(signature(one))) }))).toBe('signature-invalid');
      }
    }));

  it('refuse keys under which anybody can sign', () =>
    within({}, async (_federation, client) => {
      const one = await client(1).connect();
      const neutral = Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 1 : 0));
      await one.request('hello', { protocols: ['fdp/1'], clientKey: toBase64(neutral), clientNonce: toBase64(new Uint8Array(32)) });
      const signature = new Uint8Array(64);
      signature[0] = 1; // R = the neutral element, S = 0
      expect(await refusal(one.request('join', { signature: toBase64(signature) }))).toBe('signature-invalid');
    }));

  it('take no more clients than they should, but always one that is there already', () =>
    within({ maxClients: 2 }, async (_federation, client) => {
      await client(1).arrive();
      await client(2).arrive();
      expect(await refusal(client(3).arrive())).toBe('capacity-exceeded');
      await client(1).arrive();
    }));
});

describe('admission by token', () => {
  it('needs the proof, made for this very connection', () =>
    within({ admission: { mode: 'token', token } }, async (_federation, client) => {
      expect(await refusal(client(1).arrive())).toBe('token-refused');
      expect(await refusal(client(1).arrive('correct-horse-batterY'))).toBe('token-refused');
      const other = await (await client(2).connect()).hello();
      const one = await (await client(1).connect()).hello();
      expect(await refusal(one.request('join', { ...one.joinMessage(), tokenProof: other.joinMessage(token).tokenProof }))).toBe('token-refused');
      await client(1).arrive(token);
    }));

  it('does not let a proof stand in for the signature', () =>
    within({ admission: { mode: 'token', token } }, async (_federation, client) => {
      const one = await (await client(1).connect()).hello();
      expect(await refusal(one.request('join', { ...one.joinMessage(token), signature: toBase64(new Uint8Array(64)) }))).toBe('signature-invalid');
    }));
});

describe('admission by list', () => {
  it('admits the clients on the list', () =>
    within({ admission: { mode: 'allow-list', clients: [clientIdOf(testIdentity(1).publicKey)] } }, async (_federation, client) => {
      await client(1).arrive();
      expect(await refusal(client(2).arrive())).toBe('not-admitted');
    }));
});

describe('a session', () => {
  it('is replaced by a later one of the same identity, and told so', () =>
    within({ schedule: { minClients: 2 } }, async (federation, client) => {
      const first = client(1);
      await first.arrive();
      const second = client(1);
      await second.arrive();
      expect(await first.next('problem')).toMatchObject({ problem: { code: 'session-replaced' } });
      await federation.sleep(100);
      expect(first.disconnectReason).toBe('closed by the coordinator');
      expect(federation.coordinator.status().connected).toBe(1);
      await client(2).arrive();
      expect((await second.nextRound()).document.round).toBe(1);
      expect(first.notices.some(({ event }) => event === 'round')).toBe(false);
    }));

  it('ends the bearer token of the one that it replaces', () =>
    within({ admission: { mode: 'token', token } }, async (federation, client) => {
      const one = client(1);
      await one.arrive(token);
      const { sessionToken } = one;
      await one.arrive(token);
      expect(await refusal(federation.coordinator.resource('/transfer-set', sessionToken))).toBe('not-authenticated');
      await federation.coordinator.resource('/transfer-set', one.sessionToken);
      await one.close();
      expect(await refusal(federation.coordinator.resource('/transfer-set', one.sessionToken))).toBe('not-authenticated');
    }));
});

describe('frames', () => {
  it.each(['token', 'allow-list'] as const)('need a bearer with admission %s', (mode) =>
    within({ admission: mode === 'token' ? { mode, token } : { mode, clients: [clientIdOf(testIdentity(1).publicKey)] } }, async (federation, client) => {
      const one = client(1);
      await one.arrive(token);
      for (const path of ['/transfer-set', '/rounds/1/soft-labels', '/finished/soft-labels']) {
        for (const bearer of [undefined, '', 'x', token, one.id]) expect(await refusal(federation.coordinator.resource(path, bearer))).toBe('not-authenticated');
      }
      const frame = await one.connection.fetchFrame('/transfer-set', one.sessionToken, 1e6);
      expect(decodeExamples(frame)).toEqual(federation.transferSet);
      expect(await refusal(one.connection.fetchFrame('/rounds/1/soft-labels', one.sessionToken, 1e6))).toBe('not-found');
    }),
  );

  it('are open in an open task, and nothing else has a path', () =>
    within({}, async ({ coordinator }) => {
      await coordinator.resource('/transfer-set', undefined);
      const task = await coordinator.resource('/task', undefined);
      expect(JSON.parse(Buffer.from(task.body).toString())).toEqual(coordinator.taskDocument);
      for (const path of ['/', '', '/rounds/1/box-secret', '/rounds/../journal/soft-labels', '/rounds/0/soft-labels', '/rounds/99999999999/soft-labels', '/rounds/1/contributions/x', '/rounds/1/soft-labels/', '/journal', '/__proto__']) {
        expect(await refusal(coordinator.resource(path, undefined))).toBe('not-found');
      }
    }));
});
