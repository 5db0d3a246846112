/** Counts what a connection moves. Payload bytes, not those of frames and headers: what a protocol costs, whatever carries it. */

export interface TrafficCounter {
  bytesUp: number;
  bytesDown: number;
}

/** Bytes of a payload: of its binary parts, and of the rest as JSON. */
export function payloadBytes(payload: unknown): number {
  let binary = 0;
  const text = JSON.stringify(payload, (_key, value: unknown) => {
    if (!(value instanceof Uint8Array)) return value;
    binary += value.length;
    return null;
  }) as string | undefined;
  return binary + (text?.length ?? 0);
}
