/** A nominal type: a `T` that can't be mixed up with another `T`. */
export type Brand<T, B extends string> = T & { readonly __brand: B };

/** A task's id: 1 to 64 characters of `a-z 0-9 - _`. */
export type TaskId = Brand<string, 'TaskId'>;
/** A client's id: the fingerprint of its Ed25519 identity key (26 characters, base32). See `protocol/identity.ts`. */
export type ClientId = Brand<string, 'ClientId'>;
/** A round's number within a task; the first round is 1. */
export type RoundId = Brand<number, 'RoundId'>;
/** SHA-256 of some bytes, written `sha256:<64 lower-case hex digits>`. */
export type Digest = Brand<string, 'Digest'>;

/** A point in time: milliseconds since the Unix epoch, as a `Clock` gives it. */
export type Instant = Brand<number, 'Instant'>;
