/**
 * What `/metrics` shows, in a registry of its own. Labels are codes and kinds from fixed lists: never an id, a path or a value that a peer
 * chose. docs/deployment.md lists the names.
 */
import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import { problemCodes } from '../../shared/errors.ts';
import type { Ack } from '../../shared/protocol/messages.ts';
import type { CoordinatorStatus } from '../coordinator/coordinator.ts';

export type Channel = 'socket' | 'http';

export class ServerMetrics {
  readonly registry = new Registry();
  readonly #contributions: Counter<'outcome'>;
  readonly #problems: Counter<'code'>;
  readonly #received: Counter<'channel'>;
  readonly #sent: Counter<'channel'>;

  /** `sockets`: open connections, joined or not. */
  constructor(status: () => CoordinatorStatus, sockets: () => number) {
    const registers = [this.registry];
    // Process memory, CPU, garbage collection, and nodejs_eventloop_lag_*: how long a ready callback waits.
    collectDefaultMetrics({ register: this.registry });
    const gauge = (name: string, help: string, read: () => number) =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    gauge('fedstill_connected_clients', 'Clients that have joined and are connected.', () => status().connected);
    gauge('fedstill_open_sockets', 'Open Socket.IO connections, joined or not.', sockets);
    gauge('fedstill_round', 'Number of the round in progress, or of the last one; 0 before the first.', () => status().round);
    gauge('fedstill_ready', '1 when clients may join, else 0.', () => (status().ready ? 1 : 0));
    new Counter({
      name: 'fedstill_rounds_released_total',
      help: 'Rounds whose consensus was released, also before a restart.',
      registers,
      collect() {
        this.reset();
        this.inc(status().released);
      },
    });
    this.#contributions = new Counter({ name: 'fedstill_contributions_total', help: 'Ends of uploads: accepted, duplicate, declined, or a problem code.', labelNames: ['outcome'], registers });
    this.#problems = new Counter({ name: 'fedstill_problems_total', help: 'Problems answered, by code.', labelNames: ['code'], registers });
    this.#received = new Counter({ name: 'fedstill_bytes_received_total', help: 'Bytes of Socket.IO messages received.', labelNames: ['channel'], registers });
    this.#sent = new Counter({ name: 'fedstill_bytes_sent_total', help: 'Bytes of Socket.IO messages and HTTP bodies sent.', labelNames: ['channel'], registers });
  }

  problem(code: string): void {
    this.#problems.inc({ code: knownCode(code) });
  }

  /** Counts what an answer says about a contribution. */
  answered(event: string, ack: Ack<{ readonly duplicate?: boolean }>): void {
    if (!ack.ok) this.problem(ack.problem.code);
    if (event === 'upload-end') this.#contributions.inc({ outcome: ack.ok ? (ack.duplicate === true ? 'duplicate' : 'accepted') : knownCode(ack.problem.code) });
    if (event === 'decline' && ack.ok) this.#contributions.inc({ outcome: 'declined' });
  }

  received(channel: Channel, bytes: number): void {
    this.#received.inc({ channel }, bytes);
  }

  sent(channel: Channel, bytes: number): void {
    this.#sent.inc({ channel }, bytes);
  }
}

function knownCode(code: string): string {
  return Object.hasOwn(problemCodes, code) ? code : 'other';
}
