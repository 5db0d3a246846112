/** What was sent, by kind, and what came back, by code. */
import { readFileSync } from 'node:fs';
import type { Answer } from './raw-peer.ts';

/** Every code of docs/errors.md. */
export const documentedCodes: ReadonlySet<string> = new Set(
  [...readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8').matchAll(/^\| `([a-z-]+)` \| `(?:badInput|refused|peer|internal)`/gm)].map((match) => match[1]!),
);

export class Tally {
  readonly sent = new Map<string, number>();
  readonly answers = new Map<string, number>();
  /** What no answer may be; empty at the end. */
  readonly faults: string[] = [];

  count(kind: string, messages = 1): void {
    this.sent.set(kind, (this.sent.get(kind) ?? 0) + messages);
  }

  get total(): number {
    return [...this.sent.values()].reduce((sum, count) => sum + count, 0);
  }

  fault(what: string): void {
    if (this.faults.length < 20) this.faults.push(what.slice(0, 600));
  }

  outcome(name: string): void {
    this.answers.set(name, (this.answers.get(name) ?? 0) + 1);
  }

  /** The acknowledgement of an event: ok, or a problem with a documented code. */
  acknowledged(answer: Answer | undefined, what: string): void {
    if (answer === undefined) this.fault(`no answer: ${what}`);
    else if (answer.ok === true) this.outcome('ok');
    else if (documentedCodes.has(answer.problem?.code ?? '')) this.outcome(answer.problem!.code);
    else this.fault(`not a documented problem: ${JSON.stringify(answer)} to ${what}`);
  }

  /** All that came back on a connection with one HTTP request: one answer, and a problem document when it is a refusal. */
  responded(text: string, what: string, { hasBody = true } = {}): void {
    const match = /^HTTP\/1\.1 (\d{3}) /.exec(text);
    if (match === null) {
      this.fault(`no HTTP answer: ${JSON.stringify(text.slice(0, 200))} to ${what}`);
      return;
    }
    const status = Number(match[1]);
    if (status < 400 || !hasBody) {
      this.outcome(`HTTP ${status}`);
      return;
    }
    const body = text.slice(text.indexOf('\r\n\r\n') + 4);
    let code: unknown;
    try {
      code = (JSON.parse(body) as { code?: unknown }).code;
    } catch {
      code = undefined;
    }
    if (typeof code === 'string' && documentedCodes.has(code)) this.outcome(code);
    else this.fault(`no problem document: ${JSON.stringify(text.slice(0, 400))} to ${what}`);
  }

  table(): string {
    const rows = (title: string, map: ReadonlyMap<string, number>) => [title, ...[...map].sort((a, b) => b[1] - a[1]).map(([name, count]) => `  ${name.padEnd(28)}${String(count).padStart(7)}`)];
    return [...rows('sent', this.sent), `  ${'total'.padEnd(28)}${String(this.total).padStart(7)}`, ...rows('came back', this.answers)].join('\n');
  }
}
