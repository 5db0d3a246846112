import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeBits, decodeIndices, encodeBits, encodeIndices, encodeIndicesCompactly } from '../../../shared/protocol/indices.ts';
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

  it('come back from the shorter of two forms', () => {
    const sets = fc.integer({ min: 1, max: 300 }).chain((limit) => fc.record({ limit: fc.constant(limit), list: fc.uniqueArray(fc.integer({ min: 0, max: limit - 1 }), { minLength: 1, maxLength: limit }) }));
    fc.assert(
      fc.property(sets, ({ limit, list }) => {
        const indices = Uint32Array.from(list).sort();
        const wire = encodeIndicesCompactly(indices, limit);
        expect(decodeIndices(wire, limit, 'query')).toEqual(indices);
        expect((wire.bitmap ?? wire.indices)!.length).toBeLessThanOrEqual(encodeIndices(indices).indices.length);
      }),
    );
    expect(encodeIndicesCompactly(Uint32Array.of(0, 9), 10)).toEqual({ count: 2, bitmap: Buffer.from([1, 2]).toString('base64') });
    expect(encodeIndicesCompactly(Uint32Array.of(70_000), 80_000)).toEqual(encodeIndices(Uint32Array.of(70_000)));
  });

  it.each([
    ['a bit after the last example', { count: 2, bitmap: Buffer.from([1, 4]).toString('base64') }],
    ['a bit after the last example that is not counted either', { count: 1, bitmap: Buffer.from([1, 4]).toString('base64') }],
    ['a bitmap of another length', { count: 1, bitmap: Buffer.from([1]).toString('base64') }],
    ['another number of bits than announced', { count: 1, bitmap: Buffer.from([1, 2]).toString('base64') }],
    ['both forms', { count: 1, bitmap: Buffer.from([1, 0]).toString('base64'), indices: encodeIndices(Uint32Array.of(0)).indices }],
    ['no form at all', { count: 1 }],
    ['a bitmap that is no base64', { count: 1, bitmap: '!!!!' }],
  ])('are refused with %s', (_, wire) => {
    federationError(() => decodeIndices(wire, 10, 'query'), 'value-out-of-range');
  });

  it('are one bit each in a bitmap, least significant first', () => {
    expect([...encodeBits(Uint8Array.of(1, 0, 0, 1, 0, 0, 0, 0, 1))]).toEqual([0b1001, 1]);
    expect(decodeBits(Buffer.from([9, 1]).toString('base64'), 9)).toEqual(Uint8Array.of(1, 0, 0, 1, 0, 0, 0, 0, 1));
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
