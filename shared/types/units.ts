import type { Brand } from './ids.ts';

/** The epsilon of an (epsilon, delta) guarantee; natural logarithm units, `>= 0`, may be `Infinity`. */
export type Epsilon = Brand<number, 'Epsilon'>;
/** The delta of an (epsilon, delta) guarantee, in [0, 1). */
export type Delta = Brand<number, 'Delta'>;
