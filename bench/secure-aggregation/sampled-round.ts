/**
 * The cost of a round of secure aggregation that is too large to run whole: a few clients run every stage for real, and the coordinator does for real what does not depend on the rest. What
 * it does once a client is measured on the sampled ones and multiplied: checking shares, inputs and answers, putting secrets together, removing masks. All others advertise keys, and sign.
 */
import { openWithSharedPoint, sealWithSharedPoint } from '../../shared/crypto/provider.ts';
import { identityFromSeed, type IdentityKeys } from '../../shared/crypto/signature.ts';
import { nodeCrypto as crypto } from '../../shared/node/node-crypto.ts';
import { systemRandom } from '../../shared/node/system-random.ts';
import * as aggregator from '../../shared/secure-aggregation/aggregator.ts';
import { pairwiseMaskKey, selfMaskKey } from '../../shared/secure-aggregation/key-derivation.ts';
import { applyMasks, pairwiseSign } from '../../shared/secure-aggregation/masking.ts';
import { decodeMaskedInput, encodeConsistency, encodeDelivery, type RevealedShare, type SealedShare } from '../../shared/secure-aggregation/messages.ts';
import { toSigned } from '../../shared/secure-aggregation/modulus.ts';
import type { RoundContext } from '../../shared/secure-aggregation/parameters.ts';
import * as participant from '../../shared/secure-aggregation/participant.ts';
import { holdersOf, neighborsOf, type GraphShape } from '../../shared/secure-aggregation/share-graph.ts';
import { concatBytes } from '../../shared/types/bytes.ts';
import { cpuSeconds } from '../cpu-time.ts';

export interface SampledRound {
  readonly shape: GraphShape;
  readonly dropped: number;
  /** CPU seconds of each sampled survivor in all stages, ascending. */
  readonly clientSeconds: readonly number[];
  readonly serverSeconds: number;
  /** Upload of one survivor in all stages. */
  readonly uploadBytes: number;
}

export interface SampledRoundRequest {
  readonly clients: number;
  readonly dimension: number;
  /** Of the clients, after they shared keys; all parameters are for at least a tenth. */
  readonly dropRate: number;
  /** Survivors that run every stage, and dropouts whose masks are removed. */
  readonly sample: number;
}

/** Made once: tweetnacl takes milliseconds for each, and no stage does it. */
const identities: IdentityKeys[] = [];
function identityOf(i: number): IdentityKeys {
  return (identities[i] ??= identityFromSeed(systemRandom.bytes(32)));
}

export function sampledRound({ clients, dimension, dropRate, sample }: SampledRoundRequest): SampledRound {
  const dropped = Math.floor(clients * dropRate);
  const spare = Math.max(dropped, Math.floor(clients / 10));
  const context: RoundContext = { round: 1, manifestHash: systemRandom.bytes(32), parameters: { dimension, minCohort: clients, minSurvivors: clients - spare, maxCorrupt: Math.floor(clients / 10) } };
  const policy = { minHonest: 1, lastRound: 0 };
  let server = 0;
  const asServer = <T>(run: () => T, times = 1): T => {
    const { seconds, value } = cpuSeconds(run);
    server += seconds * times;
    return value;
  };

  const tools = Array.from({ length: clients }, (_, i) => ({ identity: identityOf(i), random: systemRandom, crypto }));
  const advertised = tools.map((tool) => ({ tool, ...cpuSeconds(() => participant.advertiseKeys(context, policy, tool)) }));
  const opened = asServer(() => aggregator.closeAdvertiseKeys(context, advertised.map(({ value }) => aggregator.acceptAdvert(context, value.message, crypto)), crypto));
  const { roster } = opened.state;
  const { graph, adverts, keyContext } = roster;
  const byKey = new Map(advertised.map((client) => [client.tool.identity.publicKey.join(), client]));
  /** Clients by their index in the roster. */
  const members = adverts.map(({ identity }) => byKey.get(identity.join())!);
  const everybody = members.map((_, i) => i);
  // The roster's order is random, so the first are as good as any.
  const survivors = everybody.slice(dropped);
  const sampledDropouts = everybody.slice(0, Math.min(sample, dropped));
  const sampled = survivors.slice(0, sample);

  const sealed = (from: number, to: number): SealedShare => {
    const nonce = systemRandom.bytes(24);
    const plain = concatBytes(keyContext.manifestHash, keyContext.rosterRoot, adverts[from]!.identity, adverts[to]!.identity, systemRandom.bytes(64));
    return { peer: from, nonce, box: sealWithSharedPoint(plain, nonce, crypto.x25519(members[from]!.value.state.channelSecret, adverts[to]!.channelKey)!) };
  };
  const clientSeconds = new Map<number, number>();
  let uploaded = 0;
  const asClient = <T extends { readonly message: Uint8Array }>(i: number, run: () => T): T => {
    const { seconds, value } = cpuSeconds(run);
    clientSeconds.set(i, (clientSeconds.get(i) ?? members[i]!.seconds) + seconds);
    uploaded += value.message.length;
    return value;
  };

  const shared = new Map([...sampledDropouts, ...sampled].map((i) => [i, asClient(i, () => participant.shareKeys(members[i]!.value.state, opened.message, members[i]!.tool))]));
  uploaded = sampled.reduce((sum, i) => sum + members[i]!.value.message.length + shared.get(i)!.message.length, 0);
  const accepted = asServer(() => [...shared.values()].map(({ message }) => aggregator.acceptShares(opened.state, message, crypto)), clients / shared.size);
  const some = accepted[0]!.shares[0]!;
  const fromAll = everybody.map((sender) => ({ sender, shares: neighborsOf(graph, sender).map((peer): SealedShare => ({ ...some, peer })) }));
  const sharing = asServer(() => aggregator.closeShareKeys(opened.state, fromAll)).state;

  const input = new Int32Array(dimension).fill(-271_828);
  const masked = sampled.map((i) => {
    const delivery = encodeDelivery(context, keyContext.rosterRoot, everybody, neighborsOf(graph, i).map((from) => sealed(from, i)));
    return { i, ...asClient(i, () => participant.maskInput(shared.get(i)!.state, delivery, input, members[i]!.tool)) };
  });
  checkMasks(masked[0]!.i, masked[0]!.message);
  const inputs = asServer(() => masked.map(({ message }) => aggregator.acceptMaskedInput(sharing, message, crypto)), survivors.length / sampled.length);
  const surviving = asServer(() => aggregator.closeMaskedInput(sharing, survivors.map((sender) => ({ sender, elements: inputs[0]!.elements })), crypto));
  const signed = masked.map(({ i, state }) => ({ i, ...asClient(i, () => participant.signSurvivors(state, surviving.message, members[i]!.tool)) }));
  const signatures = survivors.map((i) => encodeConsistency(context, keyContext.rosterRoot, surviving.state.digest, members[i]!.tool.identity, crypto));
  const agreed = asServer(() => aggregator.closeConsistency(surviving.state, signatures.map((message) => aggregator.acceptConsistency(surviving.state, message, crypto))));
  const answers = signed.map(({ i, state }) => asClient(i, () => participant.unmask(state, agreed.messages.get(i)!, members[i]!.tool)));
  asServer(() => answers.map(({ message }) => aggregator.acceptUnmask(surviving.state, message, crypto)), survivors.length / sampled.length);

  const isSurvivor = new Set(survivors);
  /** What the survivors reveal of these owners' secrets. */
  const revealed = (owners: readonly number[]) => {
    const shares = new Map<number, RevealedShare[]>();
    for (const owner of owners) {
      const boxes = new Map(accepted.find(({ sender }) => sender === owner)!.shares.map((share) => [share.peer, share]));
      for (const holder of holdersOf(graph, owner)) {
        const box = boxes.get(holder);
        if (box === undefined || !isSurvivor.has(holder)) continue;
        const plain = openWithSharedPoint(box.box, box.nonce, crypto.x25519(members[holder]!.value.state.channelSecret, adverts[owner]!.channelKey)!)!;
        const entry: RevealedShare = isSurvivor.has(owner) ? { owner, kind: 'selfSeed', share: plain.slice(128, 160) } : { owner, kind: 'maskSecret', share: plain.slice(160) };
        shares.set(holder, [...(shares.get(holder) ?? []), entry]);
      }
    }
    return [...shares].map(([sender, entries]) => ({ sender, shares: entries }));
  };
  for (const [owners, all] of [[sampled, survivors.length], [sampledDropouts, dropped]] as const) {
    if (owners.length === 0) continue;
    const shares = revealed(owners);
    const { suspects } = asServer(() => aggregator.closeUnmask({ ...surviving.state, sharers: owners }, shares, crypto), all / owners.length);
    if (suspects.length > 0) throw new Error('a share did not fit its polynomial');
  }
  const seconds = sampled.map((i) => clientSeconds.get(i)!).sort((a, b) => a - b);
  return { shape: graph.shape, dropped, clientSeconds: seconds, serverSeconds: server, uploadBytes: uploaded / sampled.length };

  /** Throws unless a masked input is the input once every mask is taken off it. */
  function checkMasks(own: number, message: Uint8Array): void {
    const { elements } = decodeMaskedInput(message, context, keyContext.rosterRoot);
    const { maskSecret, selfSeed } = members[own]!.value.state;
    const { identity } = adverts[own]!;
    applyMasks(elements, [{ key: selfMaskKey(selfSeed, keyContext, identity, crypto), sign: -1 }], crypto);
    for (const other of neighborsOf(graph, own)) {
      const key = pairwiseMaskKey(crypto.x25519(maskSecret, adverts[other]!.maskKey)!, keyContext, identity, adverts[other]!.identity, crypto);
      applyMasks(elements, [{ key, sign: pairwiseSign(other, own) }], crypto);
    }
    if (!toSigned(elements).every((value, j) => value === input[j])) throw new Error('masks do not come off');
  }
}
