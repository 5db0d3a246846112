/** A small strict reader of XML: throws on what a parser of SVG would refuse. Enough for our own figures, no more. */

export interface XmlElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: (XmlElement | string)[];
}

const TAG = /^<(\/?)([A-Za-z_][\w.-]*)((?:\s+[A-Za-z_:][\w:.-]*="[^"<]*")*)\s*(\/?)>/;

export function parseXml(source: string): XmlElement {
  // eslint-disable-next-line no-control-regex
  const forbidden = /[^\u0009\u000a\u000d\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u.exec(source);
  if (forbidden) throw new Error(`character U+${source.charCodeAt(forbidden.index).toString(16)} is not allowed in XML`);
  let rest = source.replace(/^<\?xml [^>]*\?>\s*/, '');
  const root: XmlElement = { name: '#document', attributes: {}, children: [] };
  const open: XmlElement[] = [root];
  while (rest !== '') {
    const parent = open.at(-1)!;
    if (!rest.startsWith('<')) {
      const end = rest.indexOf('<') < 0 ? rest.length : rest.indexOf('<');
      parent.children.push(unescape(rest.slice(0, end)));
      rest = rest.slice(end);
      continue;
    }
    const tag = TAG.exec(rest);
    if (!tag) throw new Error(`not a tag: ${rest.slice(0, 80)}`);
    rest = rest.slice(tag[0].length);
    const [, closing, name, attributes, selfClosing] = tag;
    if (closing) {
      if (parent.name !== name) throw new Error(`</${name}> closes <${parent.name}>`);
      open.pop();
      continue;
    }
    const element: XmlElement = { name: name!, attributes: parseAttributes(attributes!), children: [] };
    parent.children.push(element);
    if (!selfClosing) open.push(element);
  }
  if (open.length !== 1) throw new Error(`<${open.at(-1)!.name}> is not closed`);
  const elements = root.children.filter((child) => typeof child !== 'string');
  if (elements.length !== 1) throw new Error('expected one root element');
  return elements[0]!;
}

/** All elements below and including this one. */
export function* walk(element: XmlElement): Generator<XmlElement> {
  yield element;
  for (const child of element.children) if (typeof child !== 'string') yield* walk(child);
}

/** The text of an element and all below it. */
export function textOf(element: XmlElement): string {
  return element.children.map((child) => (typeof child === 'string' ? child : textOf(child))).join('');
}

function parseAttributes(source: string): Record<string, string> {
  const attributes: Record<string, string> = {};
  for (const [, name, value] of source.matchAll(/([A-Za-z_:][\w:.-]*)="([^"]*)"/g)) {
    if (attributes[name!] !== undefined) throw new Error(`attribute ${name} twice`);
    attributes[name!] = unescape(value!);
  }
  return attributes;
}

function unescape(text: string): string {
  return text.replace(/&([^;\s]*;?)/g, (_, entity: string) => {
    const known: Record<string, string> = { 'amp;': '&', 'lt;': '<', 'gt;': '>', 'quot;': '"', '#39;': "'" };
    if (known[entity] === undefined) throw new Error(`unknown entity &${entity}`);
    return known[entity];
  });
}
