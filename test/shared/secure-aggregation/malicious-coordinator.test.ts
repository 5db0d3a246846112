/**
 * A coordinator that lies, against the functions that the real client runs (docs/privacy-model.md section 9, checks 19, 20 and 22). Every attack ends in an abort or in
 * noise: nobody's input comes out.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { generateIdentity } from '../../../shared/crypto/signature.ts';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import * as aggregator from '../../../shared/secure-aggregation/aggregator.ts';
import { decodeDelivery, decodeMaskedInput, decodeRoster, encodeAdvert, encodeConsistency, encodeDelivery, encodeRoster, encodeSignatures, encodeSurvivors, type Advert } from '../../../shared/secure-aggregation/messages.ts';
import * as participant from '../../../shared/secure-aggregation/participant.ts';
import { rosterOf } from '../../../shared/secure-aggregation/roster.ts';
import { completeThreshold, neighborsOf, shareGraph } from '../../../shared/secure-aggregation/share-graph.ts';
import { equalBytes } from '../../../shared/types/bytes.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';
import { insecureFakeCrypto } from '../../support/insecure-fake-crypto.ts';
import { contextFor, fixedHash, inputOf, lenient, plainSum, runRound, type Client, type RoundOptions, type RoundRecord } from '../../support/secure-aggregation.ts';

/** t = 5 of 6: 2t > 6 + 2. */
const options: RoundOptions = { clients: 6, minSurvivors: 5, maxCorrupt: 2 };
const crypto = nodeCrypto;
const fresh = (seed: number) => new InsecureSeededRandom(seed);
const indexIn = (record: RoundRecord, client: Client) => record.rosterState.roster.adverts.findIndex(({ identity }) => equalBytes(identity, client.tools.identity.publicKey));
const rootOf = (record: RoundRecord) => record.rosterState.roster.keyContext.rosterRoot;

/** The victim is client 0; the state of the victim before the stage that is attacked. */
let advertised: RoundRecord;
let shared: RoundRecord;
let masked: RoundRecord;
let signed: RoundRecord;
beforeAll(() => {
  advertised = runRound(options, 'advertiseKeys');
  shared = runRound(options, 'shareKeys');
  masked = runRound(options, 'maskedInput');
  signed = runRound(options, 'consistencyCheck');
});
const victimOf = (record: RoundRecord) => record.clients[0]!;
const shareWith = (adverts: readonly Advert[]) => participant.shareKeys(victimOf(advertised).state!, encodeRoster(advertised.context, adverts), victimOf(advertised).tools);
const signWith = (survivors: readonly number[], record = masked) => participant.signSurvivors(victimOf(record).state!, encodeSurvivors(record.context, rootOf(record), survivors), victimOf(record).tools);
const everyone = [0, 1, 2, 3, 4, 5];

describe('the roster', () => {
  const real = () => decodeRoster(advertised.roster, advertised.context);
  const replaceOther = (change: (advert: Advert) => Advert) => {
    const target = real().findIndex(({ identity }) => !equalBytes(identity, victimOf(advertised).tools.identity.publicKey));
    return real().map((advert, i) => (i === target ? change(advert) : advert));
  };
  const patched = (advert: Advert, offset: number, bytes: Uint8Array): Advert => {
    const message = advert.bytes.slice();
    message.set(bytes, offset);
    return { ...advert, bytes: message };
  };

  it('that is honest is accepted (the attacks below fail for their own reason)', () => {
    expect(shareWith(real()).state.phase).toBe('shared');
  });

  it('swapped public key: the coordinator\'s mask key under a peer\'s name', () => {
    expect(() => shareWith(replaceOther((advert) => patched(advert, 108, crypto.x25519PublicKey(fixedHash(3)))))).toThrow(/not signed/);
  });

  it('swapped public key, signed by another identity', () => {
    const mallory = generateIdentity(fresh(9));
    expect(() =>
      shareWith(
        replaceOther((advert) => {
          const forged = encodeAdvert(advertised.context, { ...advert, maskKey: crypto.x25519PublicKey(fixedHash(3)) }, mallory, crypto);
          return patched(patched(advert, 108, forged.subarray(108, 140)), 172, forged.subarray(172));
        }),
      ),
    ).toThrow(/not signed/);
  });

  it('own key swapped: the victim\'s advert is altered', () => {
    const altered = real().map((advert) => (equalBytes(advert.identity, victimOf(advertised).tools.identity.publicKey) ? patched(advert, 108, crypto.x25519PublicKey(fixedHash(3))) : advert));
    expect(() => shareWith(altered)).toThrow(/missing or altered/);
  });

  it('low-order key: a mask that everybody knows', () => {
    const corrupt = { ...victimOf(advertised), tools: advertised.clients[1]!.tools };
    const low = encodeAdvert(advertised.context, { channelKey: crypto.x25519PublicKey(fixedHash(5)), maskKey: new Uint8Array(32), commitment: fixedHash(1) }, corrupt.tools.identity, crypto);
    const adverts = real().map((advert) => (equalBytes(advert.identity, corrupt.tools.identity.publicKey) ? { ...advert, bytes: low } : advert));
    expect(() => shareWith(adverts)).toThrow(/low order/);
    // An honest coordinator does not let it get that far, nor one key for both purposes.
    expect(() => aggregator.acceptAdvert(advertised.context, low, crypto)).toThrow(/low order/);
    const one = crypto.x25519PublicKey(fixedHash(5));
    expect(() => aggregator.acceptAdvert(advertised.context, encodeAdvert(advertised.context, { channelKey: one, maskKey: one, commitment: fixedHash(1) }, corrupt.tools.identity, crypto), crypto)).toThrow(/one key twice/);
  });

  it('duplicated id: one client twice in the roster', () => {
    expect(() => shareWith([...real(), real().at(-1)!])).toThrow(/form/);
    expect(() => aggregator.closeAdvertiseKeys(advertised.context, [...real(), real()[0]!], crypto)).toThrow(/twice/);
  });

  it('duplicated keys: two identities with one key', () => {
    const [first] = real();
    const mallory = generateIdentity(fresh(10));
    const copy = encodeAdvert(advertised.context, first!, mallory, crypto);
    const adverts = [...real(), { ...first!, identity: mallory.publicKey, bytes: copy }].sort((a, b) => Buffer.compare(a.identity, b.identity));
    expect(() => shareWith(adverts)).toThrow(/key in common/);
  });

  it('truncated roster: below n_min, or cut in the middle of an advert', () => {
    expect(() => shareWith(real().filter((advert, i) => i < 4 || equalBytes(advert.identity, victimOf(advertised).tools.identity.publicKey)).slice(0, 4))).toThrow();
    expect(() => participant.shareKeys(victimOf(advertised).state!, advertised.roster.subarray(0, -1), victimOf(advertised).tools)).toThrow(/form/);
  });

  it('n below n_min', () => {
    const few = real().filter((advert) => equalBytes(advert.identity, victimOf(advertised).tools.identity.publicKey)).concat(real().slice(0, 3));
    const distinct = [...new Map(few.map((advert) => [Buffer.from(advert.identity).toString('hex'), advert])).values()].sort((a, b) => Buffer.compare(a.identity, b.identity));
    expect(() => shareWith(distinct)).toThrow(/roster is refused/);
  });

  it('an honest floor below the client\'s own demand', () => {
    const { tools } = victimOf(advertised);
    expect(() => participant.advertiseKeys(contextFor(options), { lastRound: 0 }, tools)).toThrow(/honest floor/);
  });

  it('truncated roster: a smaller one for the victim alone gives it no shares that open', () => {
    // Six clients, but the victim is shown five of them: enough for n_min, another roster root.
    const record = runRound(options, 'advertiseKeys');
    const victim = record.clients[0]!;
    const all = decodeRoster(record.roster, record.context);
    const left = all.filter((advert) => !equalBytes(advert.identity, record.clients[5]!.tools.identity.publicKey));
    const step = participant.shareKeys(victim.state!, encodeRoster(record.context, left), victim.tools);
    const others = record.clients.slice(1, 5).map((client) => participant.shareKeys(client.state!, record.roster, client.tools).message);
    const boxes = others.map((message) => aggregator.acceptShares(record.rosterState, message, crypto)).sort((a, b) => a.sender - b.sender);
    const own = step.state.own;
    const ownInAll = indexIn(record, victim);
    const forwarded = boxes.map(({ sender, shares }) => {
      const identity = all[sender]!.identity;
      return { ...shares.find(({ peer }) => peer === ownInAll)!, peer: left.findIndex((advert) => equalBytes(advert.identity, identity)) };
    });
    expect(forwarded.every(({ peer }) => peer !== own)).toBe(true);
    const delivery = encodeDelivery(record.context, step.state.roster.keyContext.rosterRoot, [0, 1, 2, 3, 4], forwarded);
    expect(() => participant.maskInput(step.state, delivery, inputOf(0, 4), victim.tools)).toThrow(/shares that open/);
  });

  it('stale roster: adverts of an earlier round, or of the same round number under another manifest', () => {
    const earlier = runRound({ ...options, round: 2 }, 'advertiseKeys');
    expect(() => participant.shareKeys(victimOf(advertised).state!, earlier.roster, victimOf(advertised).tools)).toThrow(/another round/);
    const stale = decodeRoster(earlier.roster, earlier.context);
    const mixed = real().map((advert) => (equalBytes(advert.identity, victimOf(advertised).tools.identity.publicKey) ? advert : stale.find(({ identity }) => equalBytes(identity, advert.identity))!));
    expect(() => shareWith(mixed)).toThrow(/another round or manifest/);
  });

  it('an identity that is not enrolled', () => {
    const { tools } = victimOf(advertised);
    const policy = { ...lenient, enrolled: advertised.clients.slice(1).map((client) => client.tools.identity.publicKey) };
    const { state } = participant.advertiseKeys(advertised.context, policy, { ...tools, random: fresh(77) });
    const adverts = real().map((advert) => (equalBytes(advert.identity, tools.identity.publicKey) ? { ...advert, bytes: state.advert } : advert));
    expect(() => participant.shareKeys(state, encodeRoster(advertised.context, adverts), tools)).toThrow(/not enrolled/);
  });

  it('replayed round: a number that is not above the last one', () => {
    expect(() => participant.advertiseKeys(contextFor({ ...options, round: 7 }), { minHonest: 1, lastRound: 7 }, victimOf(advertised).tools)).toThrow(/round is refused/);
  });

  it('malleated advert signature: does not pass, and would change the roster root anyway', () => {
    const order = [0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, ...Array<number>(15).fill(0), 0x10];
    expect(() =>
      shareWith(
        replaceOther((advert) => {
          const s = advert.bytes.slice(204);
          let carry = 0;
          order.forEach((byte, i) => {
            const sum = s[i]! + byte + carry;
            s[i] = sum & 255;
            carry = sum >> 8;
          });
          return patched(advert, 204, s);
        }),
      ),
    ).toThrow(/not signed/);
  });
});

describe('equivocated manifest (teacher labels, parameters)', () => {
  it('a client that was told other labels takes no part in the others\' roster', () => {
    const { tools } = victimOf(advertised);
    const { state } = participant.advertiseKeys(contextFor(options, 8), lenient, tools);
    expect(() => participant.shareKeys(state, advertised.roster, tools)).toThrow(/another round or manifest/);
  });

  it('masks derived under two manifests do not cancel: the coordinator gets noise', () => {
    const point = fixedHash(9);
    const keys = [7, 8].map((manifest) => crypto.hkdfSha512(point, fixedHash(manifest), new Uint8Array(0)));
    expect(keys[0]).not.toEqual(keys[1]);
  });
});

describe('the delivery of shares', () => {
  const maskWith = (change: (delivery: ReturnType<typeof decodeDelivery>) => ReturnType<typeof decodeDelivery>) => {
    const victim = victimOf(shared);
    const own = indexIn(shared, victim);
    const honest = decodeDelivery(shared.deliveries.get(own)!, shared.context, rootOf(shared), 6);
    const { sharers, shares } = change(honest);
    return participant.maskInput(victim.state!, encodeDelivery(shared.context, rootOf(shared), sharers, shares), inputOf(0, 4), victim.tools);
  };

  it('that is honest is accepted', () => {
    expect(maskWith((honest) => honest).state.phase).toBe('masked');
  });

  it('wrong graph: a neighbor less, a neighbor of another client\'s', () => {
    expect(() => maskWith(({ sharers, shares }) => ({ sharers, shares: shares.slice(1) }))).toThrow(/neighbors/);
    expect(() => maskWith(({ sharers, shares }) => ({ sharers: sharers.filter((sharer) => sharer !== shares[0]!.peer), shares }))).toThrow(/neighbors/);
  });

  it('wrong graph on the ring: shares of a client that is no neighbor', () => {
    const ring: RoundOptions = { clients: 300, minSurvivors: 285, maxCorrupt: 5, crypto: insecureFakeCrypto };
    const record = runRound(ring, 'shareKeys');
    const victim = victimOf(record);
    const own = indexIn(record, victim);
    const { sharers, shares } = decodeDelivery(record.deliveries.get(own)!, record.context, rootOf(record), 300);
    const neighbors = new Set(neighborsOf(record.rosterState.roster.graph, own));
    const stranger = sharers.find((sharer) => sharer !== own && !neighbors.has(sharer))!;
    const swapped = shares.map((share, i) => (i === 0 ? { ...share, peer: stranger } : share)).sort((a, b) => a.peer - b.peer);
    expect(() => participant.maskInput(victim.state!, encodeDelivery(record.context, rootOf(record), sharers, swapped), inputOf(0, 4), victim.tools)).toThrow(/neighbors/);
    // The graph can't be sent: it follows from the hashes.
    const { roster } = victim.state as participant.SharedState;
    expect(roster.graph).toEqual(shareGraph({ clients: 300, minSurvivors: 285, maxCorrupt: 5 }, roster.keyContext.manifestHash, roster.keyContext.rosterRoot, insecureFakeCrypto));
  }, 60_000);

  it('mixed rounds: shares of another round do not open, and too few are left', () => {
    const other = runRound({ ...options, round: 2 }, 'shareKeys');
    const theirs = decodeDelivery(other.deliveries.get(indexIn(other, victimOf(other)))!, other.context, rootOf(other), 6);
    expect(() => maskWith(({ sharers, shares }) => ({ sharers, shares: shares.map((share, i) => ({ ...theirs.shares[i]!, peer: share.peer })) }))).toThrow(/shares that open/);
  });

  it('shares meant for another recipient, or from another sender, are not taken', () => {
    expect(() => maskWith(({ sharers, shares }) => ({ sharers, shares: shares.map((share, i) => ({ ...shares[(i + 1) % shares.length]!, peer: share.peer })) }))).toThrow(/shares that open/);
  });

  it('a share that does not open is only missing', () => {
    const { state } = maskWith(({ sharers, shares }) => ({ sharers, shares: shares.map((share, i) => (i === 0 ? { ...share, box: share.box.map((byte) => byte ^ 1) } : share)) }));
    expect(state.held).toHaveLength(5);
  });

  it('second delivery: an input is masked once', () => {
    const victim = victimOf(shared);
    const { state } = maskWith((honest) => honest);
    expect(() => participant.maskInput(state, shared.deliveries.get(indexIn(shared, victim))!, inputOf(1, 4), victim.tools)).toThrow(/another stage/);
  });
});

describe('the survivors', () => {
  it('without the victim, too few, unknown or unordered', () => {
    const own = indexIn(masked, victimOf(masked));
    expect(() => signWith(everyone.filter((i) => i !== own))).toThrow(/not among them/);
    expect(() => signWith([own, ...everyone.filter((i) => i !== own).slice(0, 3)].sort())).toThrow(/Too few/);
    expect(() => signWith([...everyone, 6])).toThrow(/form/);
    expect(() => signWith([0, 0, 1, 2, 3, 4, 5])).toThrow(/form/);
  });

  it('with a client that never shared keys', () => {
    const record = runRound({ ...options, drops: { shareKeys: new Set([5]) } }, 'maskedInput');
    expect(() => signWith(everyone, record)).toThrow(/not shared/);
  });

  it('a second survivor set in one round is refused', () => {
    const { state } = signWith(everyone);
    expect(() => participant.signSurvivors(state, encodeSurvivors(masked.context, rootOf(masked), everyone.filter((i) => i !== (indexIn(masked, victimOf(masked)) + 1) % 6)), victimOf(masked).tools)).toThrow(/another stage/);
  });

  it('both-lists victim: alive for half of the clients and dead for the others; nobody answers', () => {
    const record = runRound(options, 'maskedInput');
    const target = indexIn(record, record.clients[5]!);
    const dead = everyone.filter((i) => i !== target);
    const signatures = record.clients.slice(0, 5).map((client, i) => {
      const step = participant.signSurvivors(client.state!, encodeSurvivors(record.context, rootOf(record), i < 2 ? everyone : dead), client.tools);
      client.state = step.state;
      return { signer: indexIn(record, client), signature: step.message.slice(-64), digest: step.state.digest };
    });
    for (const client of record.clients.slice(0, 5)) {
      const { digest } = client.state as participant.SignedState;
      const all = signatures.map(({ signer, signature }) => ({ signer, signature })).sort((a, b) => a.signer - b.signer);
      expect(() => participant.unmask(client.state!, encodeSignatures(record.context, rootOf(record), digest, all), client.tools)).toThrow(/signed the same survivors/);
    }
  });

  it('different survivors for each client: the construction (n, c, t) = (100, 20, 61) that isolates 4 is stopped', () => {
    const [n, c, t] = [100, 20, 61];
    expect(completeThreshold(n, c)).toBe(t);
    const record = runRound({ clients: n, minSurvivors: t, maxCorrupt: c, crypto: insecureFakeCrypto, dimension: 1 }, 'maskedInput');
    const honest = record.clients.slice(0, 80).map((client) => ({ client, index: indexIn(record, client) }));
    const corrupt = record.clients.slice(80).map((client) => ({ client, index: indexIn(record, client) }));
    const isolated = honest.slice(0, 4);
    const rest = honest.slice(4);
    const listFor = (start: number, stride: number) => {
      const around = Array.from({ length: 37 }, (_, step) => rest[(start + step * stride) % 76]!);
      return [...corrupt, ...isolated, ...around].map(({ index }) => index).sort((a, b) => a - b);
    };
    const lists = honest.map((_, i) => (i < 4 ? listFor(i * 19, 2) : listFor(i - 4, 1)));
    // Without the consistency stage: the corrupt give both shares of everybody, so 41 honest ones decide which secret opens.
    const saysAlive = new Map(honest.map(({ index }) => [index, lists.filter((list) => list.includes(index)).length]));
    const opened = honest.map(({ index }) => ({ self: saysAlive.get(index)! + c >= t, mask: 80 - saysAlive.get(index)! + c >= t }));
    expect(lists.every((list) => list.length === 61)).toBe(true);
    expect(opened.filter(({ self }) => self)).toHaveLength(4);
    expect(opened.every(({ self, mask }) => self !== mask)).toBe(true);
    // With it: every client signs its own list, the corrupt sign every list, and nobody has 61 signatures on one.
    const steps = honest.map(({ client, index }, i) => {
      const step = participant.signSurvivors(client.state!, encodeSurvivors(record.context, rootOf(record), lists[i]!), client.tools);
      return { client, index, step };
    });
    let answered = 0;
    for (const { client, step } of steps) {
      const { digest } = step.state;
      const signatures = [
        ...corrupt.map(({ client: liar, index }) => ({ signer: index, signature: encodeConsistency(record.context, rootOf(record), digest, liar.tools.identity, insecureFakeCrypto).slice(-64) })),
        ...steps.filter((other) => other.index !== indexIn(record, client)).map((other) => ({ signer: other.index, signature: other.step.message.slice(-64) })),
      ].sort((a, b) => a.signer - b.signer);
      try {
        participant.unmask(step.state, encodeSignatures(record.context, rootOf(record), digest, signatures), client.tools);
        answered++;
      } catch (error) {
        expect(String(error)).toMatch(/signed the same survivors/);
      }
    }
    expect(answered).toBe(0);
  }, 60_000);
});

describe('unmasking', () => {
  const answer = (record: RoundRecord) => participant.unmask(victimOf(record).state!, record.signatures.get(indexIn(record, victimOf(record)))!, victimOf(record).tools);

  it('second unmask query: a client that has answered has nothing left to answer with', () => {
    const { state } = answer(signed);
    expect(() => participant.unmask(state, signed.signatures.get(indexIn(signed, victimOf(signed)))!, victimOf(signed).tools)).toThrow(/answered once/);
  });

  it('never both shares of one peer: one share of each owner, of the secret that the survivors call for', () => {
    const record = runRound({ ...options, drops: { maskedInput: new Set([3]) } }, 'unmask');
    const dropped = indexIn(record, record.clients[3]!);
    for (const message of record.answers) {
      const { shares } = aggregator.acceptUnmask(record.survivorsState, message, crypto);
      expect(shares.map(({ owner }) => owner)).toEqual(everyone);
      for (const { owner, kind } of shares) expect(kind).toBe(owner === dropped ? 'maskSecret' : 'selfSeed');
    }
  });

  it('signatures that are forged, repeated, of another set or of strangers do not count', () => {
    const { digest } = victimOf(signed).state as participant.SignedState;
    const own = indexIn(signed, victimOf(signed));
    const genuine = signed.consistency.map((message) => aggregator.acceptConsistency(signed.survivorsState, message, crypto)).map(({ sender, signature }) => ({ signer: sender, signature })).sort((a, b) => a.signer - b.signer);
    const unmaskWith = (signatures: typeof genuine) => participant.unmask(victimOf(signed).state!, encodeSignatures(signed.context, rootOf(signed), digest, signatures), victimOf(signed).tools);
    expect(() => unmaskWith(genuine.filter(({ signer }) => signer !== own).slice(0, 3))).toThrow(/same survivors/);
    expect(() => unmaskWith(genuine.map((entry) => ({ ...entry, signature: genuine[own]!.signature })))).toThrow(/same survivors/);
    expect(() => unmaskWith([genuine[0]!, ...genuine])).toThrow(/form/);
    expect(() => participant.unmask(victimOf(signed).state!, encodeSignatures(signed.context, rootOf(signed), fixedHash(0), genuine), victimOf(signed).tools)).toThrow(/set of survivors/);
  });

  it('a coordinator that skips the consistency stage gets no answer', () => {
    const { state } = signWith(everyone);
    expect(() => participant.unmask(state, encodeSignatures(masked.context, rootOf(masked), state.digest, []), victimOf(masked).tools)).toThrow(/same survivors/);
    expect(() => participant.unmask(victimOf(masked).state!, encodeSignatures(masked.context, rootOf(masked), state.digest, []), victimOf(masked).tools)).toThrow(/another stage/);
  });

  it('an input replaced by the coordinator\'s own does not expose the victim: its masks stay on the sum', () => {
    // The coordinator counts only the victim's input and removes all that it could compute.
    const { survivorsState, answers } = runRound(options, 'unmask');
    const victimIndex = indexIn(masked, victimOf(masked));
    const own = masked.maskedInputs.map((message) => decodeMaskedInput(message, masked.context, rootOf(masked))).find(({ identity }) => equalBytes(identity, victimOf(masked).tools.identity.publicKey))!;
    const alone = { ...survivorsState, maskedSum: own.elements };
    const { sum } = aggregator.closeUnmask(alone, answers.map((message) => aggregator.acceptUnmask(survivorsState, message, crypto)), crypto);
    expect(sum).not.toEqual(plainSum([0], 4));
    expect(sum.some((value) => Math.abs(value) > 10_000_000)).toBe(true);
    expect(victimIndex).toBeGreaterThanOrEqual(0);
  });
});

describe('signatures', () => {
  it('bind version, kind, round, manifest, identity and roster: a message passes nowhere else', () => {
    const other = runRound({ ...options, round: 2 }, 'consistencyCheck');
    const message = signed.consistency[0]!;
    expect(() => aggregator.acceptConsistency(other.survivorsState, message, crypto)).toThrow(/another round/);
    for (const offset of [4, 5, 8, 12, 44, 76, 108, 140, 203]) {
      const changed = message.slice();
      changed[offset]! ^= 1;
      expect(() => aggregator.acceptConsistency(signed.survivorsState, changed, crypto)).toThrow();
    }
    expect(() => aggregator.acceptUnmask(signed.survivorsState, message, crypto)).toThrow(/form/);
    expect(() => aggregator.acceptMaskedInput(signed.sharersState, message, crypto)).toThrow(/form/);
  });

  it('the same adverts under another manifest give another roster root, graph order and keys', () => {
    const { adverts } = signed.rosterState.roster;
    const other = rosterOf(contextFor(options, 8), adverts, crypto);
    expect(other.keyContext.rosterRoot).not.toEqual(rootOf(signed));
  });
});
