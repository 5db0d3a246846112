import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { textOfMail } from '../../../shared/datasets/mail.ts';

describe('what a person reads of an e-mail', () => {
  it('is its subject and its text, not its other headers', () => {
    expect(textOfMail('From a@b Thu\r\nReceived: by x\r\nSubject: Lunch\r\n\ttoday?\r\nX-Mailer: y\r\n\r\nAt one.\r\n\r\nSubject: no header\r\n')).toBe('Lunch today?\n\nAt one.\n\nSubject: no header');
  });

  it('has transfer encodings undone', () => {
    expect(textOfMail('Content-Transfer-Encoding: quoted-printable\nContent-Type: text/plain; charset=utf-8\n\nna=C3=AFve, soft=\n break=21')).toBe('naïve, soft break!');
    expect(textOfMail('Content-Transfer-Encoding: base64\nSubject: s\n\nV29uZGVy\nZnVsIQ==\n')).toBe('s\n\nWonderful!');
    expect(textOfMail(`Content-Transfer-Encoding: base64\nContent-Type: text/plain; charset="UTF-8"\n\n${Buffer.from('größer €').toString('base64')}`)).toBe('größer €');
  });

  it('has the text parts of several parts, and nothing of attachments', () => {
    const mail = [
      'Subject: parts', 'Content-Type: multipart/mixed; boundary="=_a b"', '', 'preamble', '--=_a b', 'Content-Type: multipart/alternative; boundary=inner', '', '--inner', '', 'plain', '--inner',
      'Content-Type: text/html', 'Content-Transfer-Encoding: quoted-printable', '', '<p style=3D1>html</p>', '--inner--', '--=_a b', 'Content-Type: image/gif', 'Content-Transfer-Encoding: base64', '', 'R0lGODlh', '--=_a b--', 'epilogue',
    ].join('\n');
    expect(textOfMail(mail)).toBe('parts\n\nplain\n<p style=1>html</p>');
  });

  it('is found in any text without an error', () => {
    const piece = fc.constantFrom('Subject: x', 'Content-Type: multipart/mixed; boundary=b', 'Content-Type: multipart/mixed; boundary=', '--b', '--b--', '', ' folded', 'Content-Transfer-Encoding: base64', '=C3', '%%%', ':', '\r');
    fc.assert(fc.property(fc.array(fc.oneof(piece, fc.string())), (lines) => {
      expect(typeof textOfMail(lines.join('\n'))).toBe('string');
    }));
  });
});
