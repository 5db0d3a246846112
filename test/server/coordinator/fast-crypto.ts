/**
 * Signatures and boxes by node:crypto, for `vi.mock`: the same bytes as tweetnacl's, many times as fast. Not `node-crypto.ts`: that imports, by way of others, the modules
 * that are being replaced.
 */
import { createPrivateKey, createPublicKey, diffieHellman, sign, verify, type KeyObject } from 'node:crypto';
import nacl from 'tweetnacl';
import type * as boxModule from '../../../shared/crypto/sealed-box.ts';
import type * as signatureModule from '../../../shared/crypto/signature.ts';

const { lowlevel } = nacl as unknown as { readonly lowlevel: { crypto_core_hsalsa20(output: Uint8Array, input: Uint8Array, key: Uint8Array, constant: Uint8Array): number } };
const sigma = new TextEncoder().encode('expand 32-byte k');

const keys = new Map<string, KeyObject>();
/** A raw key behind its DER prefix (RFC 8410). */
function keyOf(prefix: string, raw: Uint8Array, make: (der: Buffer) => KeyObject): KeyObject {
  const hex = `${prefix}${Buffer.from(raw).toString('hex')}`;
  const key = keys.get(hex) ?? make(Buffer.from(hex, 'hex'));
  keys.set(hex, key);
  return key;
}
const privateKey = (der: Buffer) => createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
const publicKey = (der: Buffer) => createPublicKey({ key: der, format: 'der', type: 'spki' });
const boxSecret = (raw: Uint8Array) => keyOf('302e020100300506032b656e04220420', raw, privateKey);

export function fastSignatures(real: typeof signatureModule): typeof signatureModule {
  return {
    ...real,
    signMessage: (message, { secretKey }) => Uint8Array.from(sign(null, message, keyOf('302e020100300506032b657004220420', secretKey.subarray(0, 32), privateKey))),
    verifySignature: (message, signature, key) => key.length === 32 && verify(null, message, keyOf('302a300506032b6570032100', key, publicKey), signature),
  };
}

export function fastBoxes(real: typeof boxModule): typeof boxModule {
  const boxKeysFromSecret = (secretKey: Uint8Array) => ({ secretKey, publicKey: Uint8Array.from(createPublicKey(boxSecret(secretKey)).export({ format: 'der', type: 'spki' }).subarray(12)) });
  const sharedKey = (secret: Uint8Array, peer: Uint8Array) => {
    const point = diffieHellman({ privateKey: boxSecret(secret), publicKey: keyOf('302a300506032b656e032100', peer, publicKey) });
    const key = new Uint8Array(32);
    lowlevel.crypto_core_hsalsa20(key, new Uint8Array(16), Uint8Array.from(point), sigma);
    return key;
  };
  return {
    ...real,
    boxKeysFromSecret,
    generateBoxKeys: (random) => boxKeysFromSecret(random.bytes(32)),
    sealBox: (message, nonce, peer, secret) => nacl.box.after(message, nonce, sharedKey(secret, peer)),
    openBox: (box, nonce, peer, secret) => nacl.box.open.after(box, nonce, sharedKey(secret, peer)) ?? undefined,
  };
}
