/** The shell of a page that is one file: no script, nothing loaded from anywhere, which its content security policy makes sure of. */
import { createHash } from 'node:crypto';
import { escapeMarkup } from './format.ts';

export interface HtmlHead {
  /** Plain text. */
  readonly title: string;
  readonly style: string;
  /** What the policy allows besides the style, e.g. `img-src data:`; '' for nothing. */
  readonly sources: string;
}

/** `main`: the markup of its parts; empty ones are left out. */
export function htmlPage({ title, style, sources }: HtmlHead, main: readonly string[]): string {
  const styleHash = createHash('sha256').update(style).digest('base64');
  const policy = [`default-src 'none'`, `style-src 'sha256-${styleHash}'`, ...(sources === '' ? [] : [sources]), `base-uri 'none'`, `form-action 'none'`].join('; ');
  return `${[
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    `<meta http-equiv="Content-Security-Policy" content="${policy}">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<meta name="color-scheme" content="light dark">',
    '<meta name="referrer" content="no-referrer">',
    `<title>${escapeMarkup(title)}</title>`,
    `<style>${style}</style>`,
    '</head>',
    '<body>',
    '<main class="page">',
    ...main.filter(Boolean),
    '</main>',
    '</body>',
    '</html>',
  ].join('\n')}\n`;
}
