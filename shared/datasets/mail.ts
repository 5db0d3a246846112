/**
 * What a person reads of an e-mail: its subject and its text parts, transfer encodings undone (RFC 2045, sec. 6). Other headers are left out: they tell by which mail
 * server and when a message was collected, and so more about a corpus than about its messages. HTML stays as it is written.
 *
 * For bulk corpora, not for a mailbox: nothing here throws, a part that is broken is taken as it stands, and encoded words of subjects are not decoded.
 */

/** Parts inside parts, at most. */
const MAX_DEPTH = 4;

interface Entity {
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

/** Subject, an empty line, then the text parts. `message`: as it was sent, one character a byte where it is not ASCII. */
export function textOfMail(message: string): string {
  const entity = split(message.replaceAll('\r\n', '\n'));
  return `${entity.headers.get('subject') ?? ''}\n\n${textOf(entity, 0)}`.trim();
}

function split(entity: string): Entity {
  const end = entity.startsWith('\n') ? 0 : entity.indexOf('\n\n');
  const head = end === -1 ? entity : entity.slice(0, end);
  const headers = new Map<string, string>();
  // A line that begins with white space goes on with the one before.
  for (const line of head.replace(/\n[ \t]+/g, ' ').split('\n')) {
    const [, name, value] = /^([!-9;-~]+):\s*(.*)$/.exec(line) ?? [];
    if (name !== undefined && !headers.has(name.toLowerCase())) headers.set(name.toLowerCase(), value!);
  }
  return { headers, body: end === -1 ? '' : entity.slice(end).replace(/^\n+/, '') };
}

function textOf({ headers, body }: Entity, depth: number): string {
  const type = headers.get('content-type') ?? 'text/plain';
  const boundary = /^multipart\//i.test(type) ? /boundary="?([^";]+)/i.exec(type)?.[1]?.trim() : undefined;
  if (boundary !== undefined && depth < MAX_DEPTH) {
    const parts = `\n${body}`.split(`\n--${boundary}`).slice(1).filter((part) => !part.startsWith('--'));
    if (parts.length > 0) return parts.map((part) => textOf(split(part.replace(/^[^\n]*\n/, '')), depth + 1)).join('\n').trim();
  }
  if (!/^(text|multipart)\//i.test(type)) return '';
  return decode(body, headers.get('content-transfer-encoding') ?? '', /charset="?utf-?8/i.test(type));
}

function decode(body: string, encoding: string, isUtf8: boolean): string {
  let bytes: string;
  if (/quoted-printable/i.test(encoding)) bytes = body.replace(/=\n/g, '').replace(/=([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  else if (/base64/i.test(encoding)) bytes = fromLooseBase64(body);
  else return body;
  return isUtf8 ? new TextDecoder().decode(Uint8Array.from(bytes, (char) => char.charCodeAt(0))) : bytes;
}

const base64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** One character a byte. What is not base64 is left out, as RFC 2045 asks. */
function fromLooseBase64(text: string): string {
  const bytes: string[] = [];
  let bits = 0;
  let held = 0;
  for (const char of text) {
    if (char === '=') break;
    const value = base64.indexOf(char);
    if (value === -1) continue;
    held = ((held << 6) | value) & 0xfff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push(String.fromCharCode((held >> bits) & 0xff));
  }
  return bytes.join('');
}
