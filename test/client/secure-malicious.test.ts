/**
 * A coordinator that lies, with two clients in its hands, against real participants (docs/privacy-model.md section 9, check 19). Whatever it does, what the participants have sent never
 * takes the masks off the inputs of fewer honest clients than the task says: an adversary who knows everything that the coordinator and its puppets know tries it.
 */
import { describe, expect, it, vi } from 'vitest';
import type { Json } from '../../shared/protocol/canonical-json.ts';
import { generateBoxKeys } from '../../shared/crypto/sealed-box.ts';
import { nodeCrypto as crypto } from '../../shared/node/node-crypto.ts';
import { secureStageNames, type Ack, type SecureStageName } from '../../shared/protocol/messages.ts';
import * as aggregator from '../../shared/secure-aggregation/aggregator.ts';
import { decodeDelivery, decodeRoster, encodeAdvert, encodeConsistency, encodeDelivery, encodeRoster, encodeSignatures, encodeSurvivors, type Advert } from '../../shared/secure-aggregation/messages.ts';
import { toHex } from '../../shared/types/bytes.ts';
import { groupsOf, unmaskBy } from './adversary.ts';
import { indexOfClient, type OpenRound } from './secure-coordinator.ts';
import { SecureScene } from './secure-harness.ts';

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original()));

/** n = 7, c = 2: t = 5, and at least 4 honest clients in a sum. */
const secure = { minSurvivors: 6, maxCorrupt: 2 };
const honestFloor = secure.minSurvivors - secure.maxCorrupt;
/** Far above any honest sum (7 clients, probabilities on a grid of 2^-12), far below what masks leave. */
const plausible = 2 ** 20;

function makeScene(rounds = 1): SecureScene {
  return new SecureScene({ clients: 5, puppets: 2, secure, task: { rounds } });
}

function isOpened(scene: SecureScene, open: OpenRound, clients: readonly string[]): boolean {
  const attempt = unmaskBy(scene.coordinator, open, clients);
  if (attempt === undefined) return false;
  const isReadable = attempt.sum.every((value) => Math.abs(value) < plausible);
  expect(isReadable).toBe(attempt.masksLeft === 0);
  return isReadable;
}

/** No input comes out, alone or summed up with those of too few others. */
function expectNothingOpened(scene: SecureScene): void {
  const ids = scene.clients.map(({ id }) => id);
  for (const open of scene.coordinator.history) {
    for (let size = 1; size < honestFloor; size++) {
      for (const group of groupsOf(ids, size)) expect(isOpened(scene, open, group), `round ${open.round}: the sum of ${size} clients`).toBe(false);
    }
  }
}

describe('the adversary of these tests', () => {
  it('gets the sum that everybody has agreed on, and nothing below it', async () => {
    const scene = makeScene();
    await scene.run();
    const [open] = scene.coordinator.history;
    const ids = scene.clients.map(({ id }) => id);
    expect(unmaskBy(scene.coordinator, open!, ids)).toEqual({ sum: scene.coordinator.sums[0]!.sum, masksLeft: 0 });
    expect(groupsOf(ids, 4).some((group) => isOpened(scene, open!, group))).toBe(false);
    expectNothingOpened(scene);
  });

  it('reads every input once it has as many puppets as the threshold: it is no straw man', async () => {
    const scene = new SecureScene({ clients: 3, puppets: 6, secure, task: { rounds: 1 } });
    await scene.run();
    const [open] = scene.coordinator.history;
    const inputs = scene.clients.map(({ id }) => unmaskBy(scene.coordinator, open!, [id])!);
    expect(inputs.every(({ masksLeft }) => masksLeft === 0)).toBe(true);
    // A client's own probabilities.
    for (const { sum } of inputs) expect(sum[0]! + sum[1]! + sum[2]!).toBeGreaterThan(4090);
    expect(inputs.reduce((total, { sum }) => total.map((value, i) => value + sum[i]!), new Int32Array(36))).toEqual(scene.coordinator.sums[0]!.sum);
  });
});

interface Attack {
  /** Puts the lie in place; it concerns round 1 only. */
  readonly install: (scene: SecureScene, victims: readonly string[]) => void;
  /** With which the victims leave the round. */
  readonly code: string;
  /** The last message that they have sent in it. */
  readonly last: SecureStageName | undefined;
}

/** Changes what opens a stage for the victims in round 1. */
const lying = (stage: SecureStageName, change: (data: Uint8Array, open: OpenRound, client: string, scene: SecureScene) => Uint8Array): Attack['install'] => (scene, victims) => {
  scene.coordinator.lie = (opened, client, data, open) => (opened === stage && open.round === 1 && victims.includes(client) ? change(data, open, client, scene) : data);
};
const roster = (change: (adverts: Advert[], open: OpenRound, client: string, scene: SecureScene) => readonly Advert[]) =>
  lying('shareKeys', (data, open, client, scene) => encodeRoster(open.context, change(decodeRoster(data, open.context), open, client, scene)));
const patched = (advert: Advert, offset: number, bytes: Uint8Array): Advert => {
  const message = advert.bytes.slice();
  message.set(bytes, offset);
  return { ...advert, bytes: message };
};
const isOf = (client: string) => (advert: Advert) => toHex(advert.identity) === client;
const rootOf = (open: OpenRound) => open.rosterState!.roster.keyContext.rosterRoot;
const someKey = crypto.x25519PublicKey(new Uint8Array(32).fill(3));
const byIdentity = (a: Advert, b: Advert) => Buffer.compare(a.identity, b.identity);

const rosterAttacks: Record<string, Attack> = {
  'swapped public key: its own mask key under a peer\'s name': {
    install: roster((adverts, _open, client) => adverts.map((advert, i) => (i === (isOf(client)(adverts[0]!) ? 1 : 0) ? patched(advert, 108, someKey) : advert))),
    code: 'signature-invalid',
    last: 'advertiseKeys',
  },
  'swapped public key: the victim\'s own': {
    install: roster((adverts, _open, client) => adverts.map((advert) => (isOf(client)(advert) ? patched(advert, 76, someKey) : advert))),
    code: 'context-mismatch',
    last: 'advertiseKeys',
  },
  'low-order key of a corrupt client': {
    install: roster((adverts, open, _client, scene) => {
      const { identity } = scene.coordinator.puppets[0]!.tools;
      const bytes = encodeAdvert(open.context, { channelKey: someKey, maskKey: new Uint8Array(32), commitment: new Uint8Array(32) }, identity, crypto);
      return adverts.map((advert) => (isOf(toHex(identity.publicKey))(advert) ? { ...advert, bytes } : advert));
    }),
    code: 'value-out-of-range',
    last: 'advertiseKeys',
  },
  'duplicated id': { install: roster((adverts) => [...adverts, adverts.at(-1)!]), code: 'message-malformed', last: 'advertiseKeys' },
  'n below the minimum': {
    install: roster((adverts, _open, client) => [...adverts.filter(isOf(client)), ...adverts.filter((advert) => !isOf(client)(advert)).slice(0, 4)].sort(byIdentity)),
    code: 'policy-refused',
    last: 'advertiseKeys',
  },
  'roster cut in the middle': { install: lying('shareKeys', (data) => data.slice(0, -100)), code: 'message-malformed', last: 'advertiseKeys' },
  'a roster without the victim': { install: roster((adverts, _open, client) => adverts.filter((advert) => !isOf(client)(advert))), code: 'context-mismatch', last: 'advertiseKeys' },
};

const laterAttacks: Record<string, Attack> = {
  'wrong graph: a neighbor\'s shares are left out': {
    install: lying('maskedInput', (data, open) => {
      const { sharers, shares } = decodeDelivery(data, open.context, rootOf(open), 7);
      return encodeDelivery(open.context, rootOf(open), sharers, shares.slice(1));
    }),
    code: 'context-mismatch',
    last: 'shareKeys',
  },
  'a sharer less for the victim': {
    install: lying('maskedInput', (data, open, client) => {
      const { sharers, shares } = decodeDelivery(data, open.context, rootOf(open), 7);
      const own = indexOfClient(open, client);
      const left = sharers.filter((sharer) => sharer === own || sharer > 2);
      return encodeDelivery(open.context, rootOf(open), left, shares.filter(({ peer }) => left.includes(peer)));
    }),
    code: 'quorum-missed',
    last: 'shareKeys',
  },
  'boxes that do not open: more than the threshold allows': {
    install: lying('maskedInput', (data, open) => {
      const { sharers, shares } = decodeDelivery(data, open.context, rootOf(open), 7);
      return encodeDelivery(open.context, rootOf(open), sharers, shares.map((share, i) => (i < 3 ? { ...share, box: share.box.map((byte) => byte ^ 1) } : share)));
    }),
    code: 'quorum-missed',
    last: 'shareKeys',
  },
  'survivors without the victim': {
    install: lying('consistencyCheck', (_data, open, client) => encodeSurvivors(open.context, rootOf(open), open.survivorsState!.survivors.filter((index) => index !== indexOfClient(open, client)))),
    code: 'context-mismatch',
    last: 'maskedInput',
  },
  'too few survivors': {
    install: lying('consistencyCheck', (_data, open, client) => {
      const own = indexOfClient(open, client);
      return encodeSurvivors(open.context, rootOf(open), [own, ...open.survivorsState!.survivors.filter((index) => index !== own).slice(0, 4)].sort((a, b) => a - b));
    }),
    code: 'quorum-missed',
    last: 'maskedInput',
  },
  'signatures of too few': {
    install: lying('unmask', (_data, open) => encodeSignatures(open.context, rootOf(open), open.survivorsState!.digest, [])),
    code: 'quorum-missed',
    last: 'consistencyCheck',
  },
};

describe.each([
  ['everybody', [0, 1, 2, 3, 4]],
  ['one victim', [0]],
])('a lie to %s', (who, indices) => {
  it.each(Object.entries({ ...rosterAttacks, ...laterAttacks }))('%s', async (_name, { install, code, last }) => {
    const scene = makeScene(code === 'signature-invalid' || last === 'consistencyCheck' ? 2 : 1);
    const { coordinator, clients } = scene;
    const victims = indices.map((index) => clients[index]!);
    install(scene, victims.map(({ id }) => id));
    const summaries = await scene.run();
    for (const victim of victims) {
      expect(scene.sentBy(victim).filter(({ round }) => round === 1).at(-1)?.stage).toBe(last);
      expect(coordinator.declined.filter(({ client, round }) => client === victim.id && round === 1)).toEqual([{ client: victim.id, round: 1, code }]);
      // Its owner is told what it means, and whether anything was sent.
      const [told] = scene.named(victim, 'declined');
      expect(told).toMatchObject({ round: 1, code });
      expect(String(told!['reason'])).toMatch(/none of its predictions were sent\.$|does not help to open the sum/);
    }
    expectNothingOpened(scene);
    expect(scene.violations()).toEqual([]);
    // One that leaves before it has masked its input is a dropout like any other; one that leaves later can be spared, too: its secrets are shared.
    expect(coordinator.sums.some(({ round }) => round === 1)).toBe(who === 'one victim');
    // Where there is a next round it is honest, and everybody takes part again.
    if (coordinator.rounds === 1) return;
    expect(coordinator.sums.at(-1)).toMatchObject({ round: 2 });
    expect(coordinator.sums.at(-1)!.survivors).toHaveLength(7);
    expect(summaries.every(({ contributedRounds }) => contributedRounds >= 1)).toBe(true);
  });
});

/** Signs whatever the coordinator wants, gives everybody the signatures of those who have signed the same, and asks for the answers. */
function collectSignatures(scene: SecureScene): void {
  const { coordinator } = scene;
  coordinator.takeOver = (open) => {
    if (open.round !== 1) return false;
    if (open.stage === 'unmask') coordinator.abort(open, 'quorum-missed');
    if (open.stage !== 'consistencyCheck') return open.stage === 'unmask';
    const signed = [...open.received.get('consistencyCheck')!.values()].map(({ client, message }) => ({ client, digest: message.slice(108, 140), signature: message.slice(-64) }));
    const data = new Map(
      scene.clients.flatMap(({ id }): [string, Uint8Array][] => {
        const own = signed.find(({ client }) => client === id);
        if (own === undefined) return [];
        const agreeing = signed.filter(({ digest }) => toHex(digest) === toHex(own.digest)).map(({ client, signature }) => ({ signer: indexOfClient(open, client), signature }));
        const bought = coordinator.puppets.map(({ tools }) => ({ signer: indexOfClient(open, toHex(tools.identity.publicKey)), signature: encodeConsistency(open.context, rootOf(open), own.digest, tools.identity, crypto).slice(-64) }));
        const signatures = [...new Map([...agreeing, ...bought].map((entry) => [entry.signer, entry])).values()].sort((a, b) => a.signer - b.signer);
        return [[id, encodeSignatures(open.context, rootOf(open), own.digest, signatures)]];
      }),
    );
    coordinator.openStage(open, 'unmask', data);
    return true;
  };
}

describe('equivocation', () => {
  it('the victim in both lists: alive for two clients, dead for the others; nobody answers', async () => {
    const scene = makeScene();
    const { coordinator, clients } = scene;
    const victim = clients[4]!.id;
    lying('consistencyCheck', (data, open, client) => (client === clients[0]!.id || client === clients[1]!.id || client === victim ? data : encodeSurvivors(open.context, rootOf(open), open.survivorsState!.survivors.filter((index) => index !== indexOfClient(open, victim)))))(
      scene,
      clients.map(({ id }) => id),
    );
    coordinator.puppetsLeave = { consistencyCheck: [0, 1] };
    collectSignatures(scene);
    await scene.settle();
    // Three and two: with both puppets' signatures 5 have signed the one, which is a quorum, and 4 the other.
    const answered = clients.filter((client) => scene.sentBy(client, 'unmask').some(({ round }) => round === 1));
    expect(answered.map(({ index }) => index)).toEqual([0, 1, 4]);
    for (const index of [2, 3]) expect(scene.named(clients[index]!, 'declined')).toMatchObject([{ round: 1, code: 'quorum-missed' }]);
    expectNothingOpened(scene);
    expect(scene.violations()).toEqual([]);
  });

  it('other survivors for each client: nobody answers', async () => {
    const scene = makeScene();
    const { clients } = scene;
    lying('consistencyCheck', (_data, open, client) => {
      const others = clients.filter(({ id }) => id !== client);
      const missing = indexOfClient(open, others[clients.findIndex(({ id }) => id === client) % others.length]!.id);
      return encodeSurvivors(open.context, rootOf(open), open.survivorsState!.survivors.filter((index) => index !== missing));
    })(scene, clients.map(({ id }) => id));
    collectSignatures(scene);
    await scene.settle();
    for (const client of clients) {
      expect(scene.sentBy(client, 'unmask').filter(({ round }) => round === 1)).toEqual([]);
      expect(scene.named(client, 'declined')).toMatchObject([{ round: 1, code: 'quorum-missed' }]);
    }
    expectNothingOpened(scene);
    expect(scene.violations()).toEqual([]);
  });

  it('other teacher labels (another manifest) for the victim: it has no part in the others\' roster, nor they in its', async () => {
    const scene = makeScene();
    const { coordinator, clients } = scene;
    const victim = clients[0]!;
    const { labels } = JSON.parse(coordinator.signRound(2, generateBoxKeys(coordinator.base.random)).document) as { labels: Json };
    coordinator.base.serve('/rounds/1/soft-labels', coordinator.base.frame('/rounds/2/soft-labels'));
    coordinator.announceTo = (client, open) => (client === victim.id ? coordinator.signRound(1, open.keys, { labels }) : open.signed);
    // Both ways round: the victim is shown the others' roster, and the others one with the victim's advert.
    coordinator.takeOver = (open) => {
      if (open.stage !== 'advertiseKeys') return false;
      const received = open.received.get('advertiseKeys')!;
      const honest = [...received.values()].filter(({ client }) => client !== victim.id).map(({ message }) => aggregator.acceptAdvert(open.context, message, crypto));
      const { state, message } = aggregator.closeAdvertiseKeys(open.context, honest, crypto);
      open.rosterState = state;
      const own = received.get(victim.id)!.message;
      // Its advert among the others: the bytes are genuine, the manifest in them is another one.
      const mixed = encodeRoster(open.context, [...honest, { ...honest[0]!, identity: own.slice(44, 76), bytes: own }].sort(byIdentity));
      coordinator.openStage(open, 'shareKeys', new Map(clients.map(({ id, index }) => [id, index === 1 ? mixed : message])));
      return true;
    };
    await scene.run();
    for (const refusing of [victim, clients[1]!]) {
      expect(scene.named(refusing, 'declined')).toMatchObject([{ round: 1, code: 'context-mismatch' }]);
      expect(scene.sentBy(refusing).filter(({ round }) => round === 1).map(({ stage }) => stage)).toEqual(['advertiseKeys']);
    }
    expect(coordinator.aborted).toMatchObject([{ round: 1 }]);
    expectNothingOpened(scene);
    expect(scene.violations()).toEqual([]);
  });
});

describe('replays', () => {
  it('a stale roster: the keys of the round before', async () => {
    const scene = makeScene(2);
    const { coordinator, clients } = scene;
    const stale = new Map<string, Uint8Array>();
    coordinator.lie = (stage, client, data, open) => {
      if (stage !== 'shareKeys') return data;
      if (open.round === 1) stale.set(client, data);
      return open.round === 2 ? stale.get(client)! : data;
    };
    await scene.run();
    expect(coordinator.sums.map(({ round }) => round)).toEqual([1]);
    for (const client of clients) {
      expect(scene.named(client, 'declined')).toMatchObject([{ round: 2, code: 'context-mismatch' }]);
      expect(scene.sentBy(client).filter(({ round }) => round === 2).map(({ stage }) => stage)).toEqual(['advertiseKeys']);
      expect(client.ledger.entries().map(({ round }) => round)).toEqual([1]);
    }
    expectNothingOpened(scene);
  });

  it('a round again, under the same announcement or another one, after it was closed', async () => {
    const scene = makeScene(2);
    const { coordinator, clients } = scene;
    const codes: string[] = [];
    coordinator.announceTo = (client, open) => {
      if (open.round === 2) {
        for (const again of [coordinator.history[0]!.signed, coordinator.signRound(1, generateBoxKeys(coordinator.base.random))]) {
          void coordinator.send(client, 'round', again).then((ack) => codes.push(ack?.ok === false ? ack.problem.code : 'ok'));
        }
      }
      return open.signed;
    };
    await scene.run();
    expect(codes.length).toBe(10);
    expect(codes.every((code) => code === 'round-closed' || code === 'context-mismatch')).toBe(true);
    for (const client of clients) expect(scene.sentBy(client).map(({ stage }) => stage)).toEqual([...secureStageNames, ...secureStageNames]);
    expectNothingOpened(scene);
    expect(scene.violations()).toEqual([]);
  });

  it('a second unmask query, for other survivors, after the answer', async () => {
    const scene = makeScene();
    const { coordinator, clients } = scene;
    const acks: (Ack | undefined)[] = [];
    coordinator.takeOver = (open) => {
      if (open.round !== 1 || open.stage !== 'unmask' || acks.length > 0) return false;
      // The same clients but one, signed by both puppets and everybody who ever signed anything.
      const digest = new Uint8Array(32).fill(9);
      const signatures = coordinator.puppets.map(({ tools }) => ({ signer: indexOfClient(open, toHex(tools.identity.publicKey)), signature: encodeConsistency(open.context, rootOf(open), digest, tools.identity, crypto).slice(-64) })).sort((a, b) => a.signer - b.signer);
      const second = encodeSignatures(open.context, rootOf(open), digest, signatures);
      void Promise.all(clients.map(async ({ id }) => acks.push(await coordinator.sendStage(id, open, 'unmask', second))));
      return false;
    };
    await scene.run();
    expect(acks).toHaveLength(5);
    for (const ack of acks) expect(ack).toMatchObject({ ok: false, problem: { code: expect.stringMatching(/context-mismatch|round-closed/) as string } });
    for (const client of clients) expect(scene.sentBy(client, 'unmask')).toHaveLength(1);
    expectNothingOpened(scene);
    expect(scene.violations()).toEqual([]);
  });
});
