/**
 * Secure aggregation of many simulated clients on several threads: each client's rounds live in one thread, which computes its steps with the same code, checks and messages as a client of its
 * own (`secure-exchange.ts`). Steps begin when they are asked for and their results are seen some virtual time later, like trainings, so the threads' speed changes nothing that happens; nor
 * does their number: keys and noise come from a key that the client draws for each round.
 */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { exchangeHere, type OpenExchange, type SecureExchange } from '../client/participant/secure-exchange.ts';
import { drawKey, keyStream } from '../shared/compute/key-stream.ts';
import type { IdentityKeys } from '../shared/crypto/signature.ts';
import { FederationError, type ProblemCode } from '../shared/errors.ts';
import type { ParticipantPolicy, RoundContext } from '../shared/secure-aggregation/parameters.ts';

type Contribution = Parameters<SecureExchange['contribution']>[0];

type StepCall =
  | { readonly step: 'advertiseKeys' }
  | { readonly step: 'shareKeys' | 'signSurvivors' | 'unmask'; readonly message: Uint8Array }
  | { readonly step: 'contribution'; readonly request: Contribution }
  | { readonly step: 'maskInput'; readonly message: Uint8Array; readonly input: Int32Array };

/** `exchange`: one client in one round. */
export type ToSecureThread =
  | { readonly kind: 'open'; readonly exchange: number; readonly context: RoundContext; readonly policy: ParticipantPolicy; readonly identity: IdentityKeys; readonly key: Uint8Array }
  | { readonly kind: 'call'; readonly exchange: number; readonly id: number; readonly call: StepCall }
  | { readonly kind: 'leave'; readonly exchange: number };

export interface FromSecureThread {
  readonly id: number;
  readonly result?: Uint8Array | Int32Array;
  readonly error?: { readonly code: ProblemCode; readonly message: string; readonly field?: string; readonly expected?: string; readonly got?: string; readonly next?: string };
}

/** Gives the result of `work`, which begins now, after the virtual time that a step takes. */
export type Spend = <T>(work: () => Promise<T>) => Promise<T>;

interface Waiting {
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
}

export class SecureThreads {
  readonly #threads: readonly Worker[];
  readonly #waiting = new Map<number, Waiting>();
  #lastExchange = 0;
  #lastCall = 0;
  #failure: FederationError | undefined;

  /** `threads`: 0 computes in this one. */
  constructor(threads: number) {
    this.#threads = Array.from({ length: threads }, () => this.#start());
  }

  /** How a client takes part; `client`: any number, the same for all its rounds. */
  forClient(client: number, spend: Spend): OpenExchange {
    return (context, policy, tools) => {
      const key = drawKey(tools.random);
      const thread = this.#threads[client % Math.max(1, this.#threads.length)];
      if (thread === undefined) return spending(exchangeHere(context, policy, { ...tools, random: keyStream(key) }), spend);
      const exchange = ++this.#lastExchange;
      this.#post(thread, { kind: 'open', exchange, context, policy, identity: tools.identity, key });
      const call = <T>(step: StepCall) => this.#call<T>(thread, exchange, step);
      return spending(
        {
          advertiseKeys: () => call({ step: 'advertiseKeys' }),
          shareKeys: (roster) => call({ step: 'shareKeys', message: shareable(roster) }),
          contribution: ({ document: { release, cohort, trustMode, secureAggregation }, predictions }) => call({ step: 'contribution', request: { document: { release, cohort, trustMode, ...(secureAggregation === undefined ? {} : { secureAggregation }) }, predictions } }),
          maskInput: (delivery, input) => call({ step: 'maskInput', message: delivery, input }),
          signSurvivors: (survivors) => call({ step: 'signSurvivors', message: shareable(survivors) }),
          unmask: (signatures) => call({ step: 'unmask', message: shareable(signatures) }),
          leave: () => this.#post(thread, { kind: 'leave', exchange }),
        },
        spend,
      );
    };
  }

  async dispose(): Promise<void> {
    this.#fail(new FederationError('worker-failed', 'The simulation has ended.'));
    await Promise.all(this.#threads.map((thread) => thread.terminate()));
  }

  #start(): Worker {
    const thread = spawn();
    thread.on('message', ({ id, result, error }: FromSecureThread) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) waiting?.resolve(result as never);
      else waiting?.reject(new FederationError(error.code, error.message, error));
    });
    const ended = (why: string, cause?: unknown) => this.#fail(new FederationError('worker-failed', `A thread of secure aggregation ${why}.`, cause === undefined ? {} : { cause }));
    thread.on('error', (error) => ended(`crashed: ${error instanceof Error ? error.message : String(error)}`, error));
    thread.on('exit', (code) => ended(`ended by itself with exit code ${code}`));
    return thread;
  }

  #call<T>(thread: Worker, exchange: number, call: StepCall): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#failure !== undefined) throw this.#failure;
      const id = ++this.#lastCall;
      this.#waiting.set(id, { resolve, reject });
      this.#post(thread, { kind: 'call', exchange, id, call });
    });
  }

  #post(thread: Worker, message: ToSecureThread): void {
    thread.postMessage(message);
  }

  #fail(failure: FederationError): void {
    this.#failure ??= failure;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }
}

/** Every step takes its virtual time. */
function spending(exchange: SecureExchange, spend: Spend): SecureExchange {
  const step = <T>(work: () => T | Promise<T>) => spend(async () => work());
  return {
    advertiseKeys: () => step(() => exchange.advertiseKeys()),
    shareKeys: (roster) => step(() => exchange.shareKeys(roster)),
    contribution: (request) => step(() => exchange.contribution(request)),
    maskInput: (delivery, input) => step(() => exchange.maskInput(delivery, input)),
    signSurvivors: (survivors) => step(() => exchange.signSurvivors(survivors)),
    unmask: (signatures) => step(() => exchange.unmask(signatures)),
    leave: () => exchange.leave(),
  };
}

const leastShared = 4096;
const copies = new WeakMap<Uint8Array, Uint8Array>();

/** What many clients are sent, in memory that threads read: copied once, and again when the bytes are no longer the same. */
function shareable(bytes: Uint8Array): Uint8Array {
  if (bytes.length < leastShared) return bytes;
  const known = copies.get(bytes);
  if (known !== undefined && Buffer.compare(known, bytes) === 0) return known;
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length));
  copy.set(bytes);
  copies.set(bytes, copy);
  return copy;
}

/** Room for the young objects of a stage: most of what is allocated is gone before the next client's turn. */
const youngMiB = 64;

function spawn(): Worker {
  const isSource = import.meta.url.endsWith('.ts');
  const entry = new URL(isSource ? './secure-thread.ts' : './secure-thread.js', import.meta.url);
  const limits = { execArgv: [], resourceLimits: { maxYoungGenerationSizeMb: youngMiB } };
  if (!isSource) return new Worker(entry, limits);
  // From sources, as in tests: a thread registers tsx itself (`worker-calls.ts` says why).
  const tsx = new URL('./api/index.mjs', pathToFileURL(createRequire(import.meta.url).resolve('tsx/esm')));
  return new Worker(`import(${JSON.stringify(tsx.href)}).then(({ register }) => { register(); return import(${JSON.stringify(entry.href)}); })`, { eval: true, ...limits });
}
