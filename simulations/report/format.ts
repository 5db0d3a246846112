/**
 * Numbers and foreign text of a report, for terminal, page and figures alike. No locale and no clock: the same report is
 * the same bytes on every machine.
 */
import type { ClientResult, NoisyResult, RunReport } from './report-data.ts';

/** U+2212: as wide as a plus sign, and not a hyphen. */
const MINUS = '−';
const MISSING = 'n/a';

export interface Summary {
  readonly count: number;
  /** Null without a finite value. */
  readonly mean: number | null;
  /** Sample standard deviation (n - 1); null for fewer than two values. */
  readonly stddev: number | null;
}

/** Mean and standard deviation of the finite values. */
export function summarize(values: readonly number[]): Summary {
  const finite = values.filter(Number.isFinite);
  const count = finite.length;
  if (count === 0) return { count, mean: null, stddev: null };
  const mean = finite.reduce((sum, value) => sum + value, 0) / count;
  if (count === 1) return { count, mean, stddev: null };
  const squares = finite.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { count, mean, stddev: Math.sqrt(squares / (count - 1)) };
}

/** Gain of each client, as a share: `federated - localOnly`. */
export function gains(clients: readonly Pick<ClientResult, 'federated' | 'localOnly'>[]): number[] {
  return clients.map((client) => client.federated - client.localOnly);
}

/** Half width of the 95% interval of one accuracy on `examples` test examples (normal approximation of the binomial). */
export function samplingHalfWidth(accuracy: number, examples: number): number | null {
  if (!(examples > 0) || !(accuracy >= 0 && accuracy <= 1)) return null;
  return 1.96 * Math.sqrt((accuracy * (1 - accuracy)) / examples);
}

/** Mean of the clients with federation and noise less their mean alone, as a share. */
export function meanGain(result: NoisyResult): number | null {
  const federated = summarize(result.federated).mean;
  const localOnly = summarize(result.localOnly).mean;
  return federated === null || localOnly === null ? null : federated - localOnly;
}

/** Bytes one client moved with the federation, up and down together. */
export function bytesMoved(client: ClientResult): number {
  return client.bytesUp + client.bytesDown;
}

/** `0.91234` as `91.2`: a share in percent, without the sign. */
export function percent(share: number | null | undefined, digits = 1): string {
  return typeof share === 'number' && Number.isFinite(share) ? unsignedZero((share * 100).toFixed(digits)).replace('-', MINUS) : MISSING;
}

export function percentSign(share: number | null | undefined, digits = 1): string {
  const text = percent(share, digits);
  return text === MISSING ? text : `${text}%`;
}

/** A difference of two shares in percentage points, always with a sign unless it rounds to zero. */
export function points(difference: number | null | undefined, digits = 1): string {
  const text = percent(difference, digits);
  return text === MISSING || text.startsWith(MINUS) || Number(text) === 0 ? text : `+${text}`;
}

/** `91.2 ± 3.4`, in percent; says why where there is no deviation. */
export function meanWithDeviation({ mean, stddev }: Summary, signed = false): string {
  const centre = signed ? points(mean) : percent(mean);
  return stddev === null ? centre : `${centre} ± ${percent(stddev)}`;
}

/** `12345` as `12,345`. */
export function integer(value: number): string {
  if (!Number.isFinite(value)) return MISSING;
  return unsignedZero(value.toFixed(0)).replace(/\B(?=(\d{3})+$)/g, ',').replace('-', MINUS);
}

/** Decimal units (1 kB = 1000 bytes), three significant digits. */
export function bytes(value: number): string {
  if (!Number.isFinite(value)) return MISSING;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let scaled = value;
  let unit = 0;
  // 999.5 would print as 1000 of the smaller unit.
  while (Math.abs(scaled) >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  const digits = unit === 0 || Math.abs(scaled) >= 99.95 ? 0 : Math.abs(scaled) >= 9.995 ? 1 : 2;
  return `${scaled.toFixed(digits)} ${units[unit]}`;
}

/** What sharing weights would have moved, relative to what was moved: `43× less` or, said as plainly, `1.4× more`. */
export function comparedWithWeights(moved: number, weights: number): string {
  if (!(moved > 0) || !(weights > 0)) return MISSING;
  const ratio = moved <= weights ? weights / moved : moved / weights;
  const text = ratio >= 99.5 ? integer(ratio) : ratio >= 9.95 ? ratio.toFixed(0) : ratio.toFixed(1);
  return text === '1.0' ? 'as much' : `${text}× ${moved < weights ? 'less' : 'more'}`;
}

/** Four significant digits, rounded up: what is printed stays an upper bound. */
export function epsilon(value: number): string {
  if (value === Infinity) return '∞';
  if (!Number.isFinite(value)) return MISSING;
  if (value <= 0) return String(value).replace('-', MINUS);
  const nearest = Number(value.toPrecision(4));
  if (nearest >= value) return String(nearest);
  const unit = 10 ** (Math.floor(Math.log10(value)) - 3);
  return String(Number((nearest + unit).toPrecision(4)));
}

/** Three significant digits; below a thousandth as `1e-5`. */
export function smallNumber(value: number): string {
  if (!Number.isFinite(value)) return MISSING;
  const text = value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2).replace(/\.?0+e/, 'e') : String(Number(value.toPrecision(3)));
  return text.replace(/-/g, MINUS);
}

export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return MISSING;
  if (seconds < 99.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

export function plural(count: number, noun: string): string {
  return `${integer(count)} ${noun}${count === 1 ? '' : 's'}`;
}

/** `3.4× less than sharing weights every round would have moved`; null where one of the two is unknown. */
export function comparisonWithWeights(moved: number | null, weights: number | null): string | null {
  if (!((moved ?? 0) > 0) || !((weights ?? 0) > 0)) return null;
  const comparison = comparedWithWeights(moved!, weights!);
  return `${comparison} ${comparison === 'as much' ? 'as' : 'than'} sharing weights every round would have moved`;
}

/** Names to show, told apart by a number where they are equal or would be after they are cut. */
export function clientLabels(clients: readonly Pick<ClientResult, 'name'>[]): string[] {
  const names = clients.map((client) => visibleLine(client.name) || '(no name)');
  const seen = new Map<string, number>();
  for (const name of names) seen.set(truncate(name, 12), (seen.get(truncate(name, 12)) ?? 0) + 1);
  return names.map((name, index) => (seen.get(truncate(name, 12)) === 1 ? name : `${index + 1}. ${name}`));
}

/** How far the way from `localOnly` to the centralized bound was gone, as a share; null where there is no such way. */
export function gapClosed(report: RunReport): number | null {
  const localOnly = summarize(report.clients.map((client) => client.localOnly)).mean;
  const federated = summarize(report.clients.map((client) => client.federated)).mean;
  if (localOnly === null || federated === null) return null;
  const gap = report.centralized.accuracy - localOnly;
  return gap >= 0.005 && federated > localOnly ? (federated - localOnly) / gap : null;
}

/**
 * Text from outside, made harmless before it is laid out: control characters (terminal escapes among them), characters
 * that reorder or hide text, and what XML cannot hold become a visible U+FFFD. Line feed and tab stay.
 */
export function visibleText(text: string): string {
  // eslint-disable-next-line no-control-regex
  const unsafe = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff]|\p{Surrogate}/gu;
  return text.replace(/\r\n/g, '\n').replace(unsafe, '\ufffd');
}

/** One line of `visibleText`. */
export function visibleLine(text: string): string {
  return visibleText(text).replace(/\s+/g, ' ').trim();
}

/** For element content and for attributes in double quotes, in HTML and in XML. */
export function escapeMarkup(text: string): string {
  return visibleText(text).replace(/[&<>"']/g, (character) => entities[character]!);
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function unsignedZero(text: string): string {
  return Number(text) === 0 ? text.replace('-', '') : text;
}

/** Columns of a terminal that a text takes: wide East Asian characters and emoji take two, combining marks none. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) width += characterWidth(character);
  return width;
}

function characterWidth(character: string): number {
  if (/\p{Mark}|\u200d|\ufe0f/u.test(character)) return 0;
  return /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}|[\u{20000}-\u{3fffd}]/u.test(character) ? 2 : 1;
}

/** Cuts a text to a number of columns, with `…` in place of what is gone. */
export function truncate(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  let kept = '';
  let width = 0;
  for (const character of text) {
    width += characterWidth(character);
    if (width > columns - 1) break;
    kept += character;
  }
  return `${kept.trimEnd()}…`;
}
