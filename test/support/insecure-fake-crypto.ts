/**
 * A `CryptoProvider` for rounds of a thousand clients in a test. INSECURE: public keys give secrets away, anyone can sign. Everything else, hashes,
 * key derivation, key stream, is real.
 */
import { portableCrypto, type CryptoProvider } from '../../shared/crypto/provider.ts';
import { nodeCrypto } from '../../shared/node/node-crypto.ts';
import { concatBytes, equalBytes } from '../../shared/types/bytes.ts';

const xor = (a: Uint8Array, b: Uint8Array) => a.map((byte, i) => byte ^ b[i]!);
const offset = new Uint8Array(32).fill(0xa5);
const publicOf = (secret: Uint8Array) => xor(secret, offset);

export const insecureFakeCrypto: CryptoProvider = {
  ...portableCrypto,
  name: 'INSECURE fake',
  sha256: (message) => nodeCrypto.sha256(message),
  hkdfSha512: (inputKey, salt, info) => nodeCrypto.hkdfSha512(inputKey, salt, info),
  keyStream: (key, words) => nodeCrypto.keyStream(key, words),
  x25519PublicKey: publicOf,
  x25519: (secretKey, publicKey) => xor(publicOf(secretKey), publicKey),
  sign: (message, { publicKey }) => concatBytes(nodeCrypto.sha256(concatBytes(publicKey, message)), new Uint8Array(32)),
  verify: (message, signature, publicKey) => equalBytes(signature.subarray(0, 32), nodeCrypto.sha256(concatBytes(publicKey, message))),
};
