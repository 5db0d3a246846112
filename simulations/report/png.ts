/** Small images as PNG data URIs, for a page that loads nothing. Format: W3C "Portable Network Graphics (PNG) Specification", third edition. */
import { crc32, deflateSync } from 'node:zlib';

/** An 8-bit RGB image; `pixels`: height * width * 3 values in [0, 255]. The same pixels give the same text on the same version of zlib. */
export function pngDataUri(width: number, height: number, pixels: ArrayLike<number>): string {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 2, 0, 0, 0], 8); // bits a channel, RGB, deflate, no filter method but 0, not interlaced
  const rows = new Uint8Array(height * (1 + 3 * width)); // each row begins with its filter: 0, none
  for (let y = 0; y < height; y++) for (let i = 0; i < 3 * width; i++) rows[y * (1 + 3 * width) + 1 + i] = pixels[y * 3 * width + i]!;
  const file = [Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a), chunk('IHDR', header), chunk('IDAT', deflateSync(rows, { level: 9 })), chunk('IEND', new Uint8Array())];
  return `data:image/png;base64,${Buffer.concat(file).toString('base64')}`;
}

function chunk(type: string, content: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, crc32(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

/** Nuñez, Anderton & Renslow 2018, "cividis": reads the same with and without color vision deficiency, and in gray. Ten of its colors, between which it is linear here. */
const cividis: readonly (readonly [number, number, number])[] = [
  [0x00, 0x20, 0x4d], [0x00, 0x33, 0x6f], [0x39, 0x48, 0x6b], [0x57, 0x5c, 0x6d], [0x70, 0x71, 0x73], [0x8a, 0x87, 0x79], [0xa6, 0x9d, 0x75], [0xc4, 0xb5, 0x6c], [0xe4, 0xcf, 0x5b], [0xff, 0xea, 0x46],
];

/** Values in [0, 255] as colors. */
export function heatPixels(values: readonly number[]): Uint8Array {
  const pixels = new Uint8Array(3 * values.length);
  values.forEach((value, i) => {
    const position = (Math.min(255, Math.max(0, value)) / 255) * (cividis.length - 1);
    const below = Math.min(Math.floor(position), cividis.length - 2);
    for (let c = 0; c < 3; c++) pixels[3 * i + c] = Math.round(cividis[below]![c]! + (position - below) * (cividis[below + 1]![c]! - cividis[below]![c]!));
  });
  return pixels;
}

/** An image of one or three channels, values in [0, 255]. */
export function plainPixels(values: readonly number[], channels: number): Uint8Array {
  return channels === 3 ? Uint8Array.from(values) : Uint8Array.from({ length: 3 * values.length }, (_, i) => values[Math.floor(i / 3)]!);
}
