/**
 * The bytes of gaussian-noise.wat. Made with the WebAssembly Binary Toolkit 1.0.39, to be made again after a change there:
 *
 *     npx -p wabt@1.0.39 wat2wasm shared/compute/gaussian-noise.wat -o noise.wasm && base64 -w 140 noise.wasm
 */
const base64 = [
  'AGFzbQEAAAABCQFgBH98fHwBfwIRAQVub2lzZQZtZW1vcnkCAAEDAgEABwsBB3JlbGVhc2UAAAr6AgH3AgQDfwF7An8LeyAB/RQhECAC/RQhESAD/RQhEkQAAAAAAADwP/0UIRNEAAAA',
  'AAAA4D/9FCEUAkADQCAEIABPDQEgBEECdP1dA4AgIQcgB/0bAEH/AXEhCCAH/RsBQf8BcSEJIAdBCP2sASEHIAlBAnQgCEECdP1cAgD9VgIAASELIAlBA3QgCEEDdP1dA4AI/VcDgAgB',
  'IQogB/3+ASEMIARBAnT9XQOAoAH9XyAQ/fIBIQ4gDCAK/fIBIBH98gEhDSAOIA398AEgFP3wAf11IQ8gDCAT/fABIAr98gEgEf3yASENIA8gDiAN/fABIBT98AH9df1HIAf9oAEgC/05',
  '/ccB/U79xAEhBiAEQQJ0IA8gEv3yAf1e/VsDgKABACAGQQNHBEAgBkEBcUUEQCAFQQJ0IAQ2AoCgAiAFQQFqIQULIAZBAnFFIARBAWogAElxBEAgBUECdCAEQQFqNgKAoAIgBUEBaiEF',
  'CwsgBEECaiEEDAALCyAFCw==',
].join('');

export const gaussianNoiseWasm: Uint8Array<ArrayBuffer> = Uint8Array.from(Buffer.from(base64, 'base64'));
