import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeIndices, encodeIndices } from '../../../shared/protocol/indices.ts';
import { toBase64 } from '../../../shared/types/bytes.ts';
import { federationError } from './fixtures.ts';

const ascending = fc.uniqueArray(fc.integer({ min: 0, max: 0xffff_fffe }), { minLength: 1, maxLength: 60 }).map((list) => Uint32Array.from(list).sort());

describe('indices of transfer examples', () => {
  it('come back', () => {
    fc.assert(
      fc.property(ascending, (indices) => {
        expect(decodeIndices(encodeIndices(indices), 0xffff_ffff, 'query')).toEqual(indices);
      }),
    );
  });

  it('are little-endian uint32 in base64', () => {
    expect(encodeIndices(Uint32Array.of(1, 0x0203_0405))).toEqual({ count: 2, indices: Buffer.from('0100000005040302', 'hex').toString('base64') });
  });

  it('are refused when one repeats, descends or is out of range', () => {
    fc.assert(
      fc.property(ascending, fc.nat(), (indices, at) => {
        const limit = indices.at(-1)! + 1;
        expect(decodeIndices(encodeIndices(indices), limit, 'query').length).toBe(indices.length);
        federationError(() => decodeIndices(encodeIndices(indices), limit - 1, 'query'), 'value-out-of-range');
        const repeated = Uint32Array.of(...indices, indices[at % indices.length]!);
        federationError(() => decodeIndices(encodeIndices(repeated), limit, 'query'), 'value-out-of-range');
      }),
    );
  });

  it.each([
    ['fewer than announced', { count: 3, indices: encodeIndices(Uint32Array.of(1, 2)).indices }],
    ['more than announced', { count: 1, indices: encodeIndices(Uint32Array.of(1, 2)).indices }],
    ['half an integer', { count: 1, indices: toBase64(new Uint8Array(2)) }],
    ['no base64', { count: 1, indices: '????????' }],
    ['base64 that is not canonical', { count: 1, indices: 'AAAAAB==' }],
    ['a huge count that nothing is allocated for', { count: 0xffff_ffff, indices: 'AAAAAA==' }],
  ])('are refused when they are %s, naming the field', (_name, wire) => {
    expect(federationError(() => decodeIndices(wire, 100, 'labels'), 'value-out-of-range').field).toBe('labels');
  });
});
