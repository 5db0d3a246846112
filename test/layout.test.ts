/**
 * The dependency rule, read from the imports themselves: a second opinion beside eslint.config.js, which a comment can switch off.
 *
 * Apps: server → shared, client → shared, simulations → server, client and shared. Inside shared, imports point down the layers below.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Folders of shared, lowest layer first. A folder imports itself and lower layers; `errors.ts` counts as `errors`. */
const layers: ReadonlyArray<readonly string[]> = [
  ['types', 'errors'],
  ['ports', 'crypto'],
  ['privacy', 'distillation', 'evaluation', 'secure-aggregation'],
  ['config'],
  ['protocol', 'rounds'],
  ['compute', 'models', 'node', 'datasets'],
];
/** Within a layer: who may import whom. */
const sameLayer: Readonly<Record<string, readonly string[]>> = {
  crypto: ['ports'],
  'secure-aggregation': ['privacy'],
  evaluation: ['distillation'],
  rounds: ['protocol'],
  compute: ['models'],
};
/** Takes bytes and numbers, so it is pure: anyone may import it. */
const importedByAnyone = ['datasets'];
/** Interfaces name the data that they carry, and adapters name the engine that they feed: types only, nothing that runs. */
const typesOnly: ReadonlyArray<{ readonly from: RegExp; readonly to: RegExp }> = [
  { from: /^shared\/ports\//, to: /^shared\/(protocol|privacy)\// },
  { from: /^shared\/(node|distillation)\//, to: /^shared\/compute\/engine\.ts$/ },
];

const impureFolders = ['shared/compute/', 'shared/models/', 'shared/node/'];
const tensorFolders = ['shared/compute/', 'shared/models/'];

interface Import {
  readonly from: string;
  /** A path in this repository, or a package's specifier. */
  readonly to: string;
  readonly isLocal: boolean;
  readonly isTypeOnly: boolean;
}

function filesUnder(folder: string): string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && /\.(ts|mts|js|mjs)$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .filter((path) => !/(^|\/)(public|assets|node_modules)\//.test(path))
    .sort();
}

/** The text without comments, and with the texts in quotes left alone. */
function code(path: string): string {
  const text = readFileSync(join(root, path), 'utf8');
  return text.replace(/\/\*[\s\S]*?\*\/|(^|[^:'"`\\])\/\/[^\n]*/g, '$1');
}

/** `import`, `export ... from`, side-effect imports, `import()`, `require()`, `import.meta.resolve()` and `new Worker(new URL())`. */
function importsOf(path: string, text: string): Import[] {
  const patterns = [
    /\b(import|export)\s+(type\s+)?[\w*{}\s,$]+?\s+from\s*['"]([^'"]+)['"]/g,
    /\b(import)()\s*['"]([^'"]+)['"]/g,
    /\b(import|require|resolve|URL)()\s*\(\s*['"`]([^'"`]+)['"`]/g,
  ];
  return patterns.flatMap((pattern) =>
    [...text.matchAll(pattern)].map((match) => {
      const specifier = match[3]!;
      const isLocal = specifier.startsWith('.');
      return { from: path, to: isLocal ? normalize(join(dirname(path), specifier)).split(sep).join('/') : specifier, isLocal, isTypeOnly: match[2] !== '' && match[2] !== undefined };
    }),
  );
}

const apps = ['shared', 'server', 'client', 'simulations'] as const;
const sources = apps.flatMap(filesUnder);
const imports = sources.flatMap((path) => importsOf(path, code(path)));
const appOf = (path: string) => path.split('/')[0]!;
const folderOf = (path: string) => (path === 'shared/errors.ts' ? 'errors' : path.split('/')[1]!);
const layerOf = (folder: string) => layers.findIndex((layer) => layer.includes(folder));
const isPure = (path: string) => path.startsWith('shared/') && !impureFolders.some((folder) => path.startsWith(folder));
const show = (list: readonly Import[]) => list.map(({ from, to }) => `${from} → ${to}`);

describe('the reader of imports', () => {
  it('sees every way to import', () => {
    const text = `
      import a from './a.ts';
      import type { B } from "../types/b.ts";
      import { c, type D } from 'node:fs';
      import * as e from 'e';
      export { f } from './f.ts';
      export * from './g.ts';
      import './h.ts';
      const i = await import('./i.ts');
      const j = require('j');
      new Worker(new URL('./k.ts', import.meta.url));
      import {
        l,
      } from './l.ts';`;
    const seen = importsOf('shared/x/y.ts', text);
    expect(seen.map(({ to }) => to).sort()).toEqual(['e', 'j', 'node:fs', 'shared/types/b.ts', ...'afghikl'].map((to) => (to.length === 1 && !'ej'.includes(to) ? `shared/x/${to}.ts` : to)).sort());
    expect(seen.filter(({ isTypeOnly }) => isTypeOnly).map(({ to }) => to)).toEqual(['shared/types/b.ts']);
  });

  it('finds the sources and their imports', () => {
    expect(sources).toContain('shared/protocol/envelope.ts');
    expect(show(imports)).toContain('shared/protocol/envelope.ts → shared/crypto/digest.ts');
  });
});

describe('apps', () => {
  const allowed: Readonly<Record<string, readonly string[]>> = { shared: ['shared'], server: ['server', 'shared'], client: ['client', 'shared'], simulations: ['simulations', 'server', 'client', 'shared'] };

  it.each(apps)('%s imports only what it may', (app) => {
    // A URL of a non-source file (assets, package.json) is data, not an import.
    const wrong = imports.filter(({ from, to, isLocal }) => isLocal && /\.(ts|js|mjs)$/.test(to) && appOf(from) === app && !allowed[app]!.includes(appOf(to)));
    expect(show(wrong)).toEqual([]);
  });

  it('name the extension .ts, as Node and the build need it', () => {
    expect(show(imports.filter(({ to, isLocal }) => isLocal && !/\.\w+$/.test(to)))).toEqual([]);
  });
});

describe('inside shared', () => {
  it('every folder has a layer', () => {
    const folders = [...new Set(sources.filter((path) => path.startsWith('shared/')).map(folderOf))];
    expect(folders.filter((folder) => layerOf(folder) < 0)).toEqual([]);
  });

  it('imports point down', () => {
    const wrong = imports.filter(({ from, to, isLocal, isTypeOnly }) => {
      if (!isLocal || appOf(from) !== 'shared' || appOf(to) !== 'shared' || importedByAnyone.includes(folderOf(to))) return false;
      if (isTypeOnly && typesOnly.some((exception) => exception.from.test(from) && exception.to.test(to))) return false;
      const [source, target] = [folderOf(from), folderOf(to)];
      if (source === target) return false;
      return !(layerOf(target) < layerOf(source) || (layerOf(target) === layerOf(source) && (sameLayer[source]?.includes(target) ?? false)));
    });
    expect(show(wrong)).toEqual([]);
  });

  it('nothing imports in a circle', () => {
    const graph = new Map<string, string[]>();
    for (const { from, to, isLocal, isTypeOnly } of imports) if (isLocal && !isTypeOnly) graph.set(from, [...(graph.get(from) ?? []), to]);
    const done = new Set<string>();
    const visit = (path: string, trail: readonly string[]): string | undefined => {
      if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path].join(' → ');
      if (done.has(path)) return undefined;
      for (const next of graph.get(path) ?? []) {
        const circle = visit(next, [...trail, path]);
        if (circle !== undefined) return circle;
      }
      done.add(path);
      return undefined;
    };
    expect([...graph.keys()].map((path) => visit(path, [])).filter((circle) => circle !== undefined)).toEqual([]);
  });

  it('only compute and models import TF.js', () => {
    expect(show(imports.filter(({ from, to }) => /^@tensorflow\//.test(to) && !tensorFolders.some((folder) => from.startsWith(folder))))).toEqual([]);
  });

  it('the pure core imports no Node module, socket, web server or logger', () => {
    const impure = /^(node:|(fs|path|crypto|os|http|https|net|stream|zlib|util|worker_threads|child_process|events|buffer|url)(\/|$)|socket\.io|express|helmet|pino|prom-client)/;
    expect(show(imports.filter(({ from, to, isLocal }) => isPure(from) && !isLocal && impure.test(to)))).toEqual([]);
  });

  it('sockets and web servers are imported by apps only', () => {
    expect(show(imports.filter(({ from, to }) => appOf(from) === 'shared' && /^(socket\.io|express|helmet|prom-client)/.test(to)))).toEqual([]);
  });
});

describe('everywhere', () => {
  it('only shared/crypto imports tweetnacl', () => {
    expect(show(imports.filter(({ from, to }) => to === 'tweetnacl' && !from.startsWith('shared/crypto/')))).toEqual([]);
  });

  it('only simulations share secrets, readings or examples between participants, or replace primitives', () => {
    const definitions: Readonly<Record<string, string>> = { shareReadings: 'shared/secure-aggregation/shared-readings.ts', sharedTransferSets: 'client/participant/transfer-set.ts', accelerate: 'shared/crypto/accelerator.ts', openExchange: 'client/participant/secure-round.ts' };
    for (const [name, definition] of Object.entries(definitions)) {
      const used = new RegExp(`\\b${name}\\s*\\(`);
      expect(used.test(code(definition)), `${name} has moved`).toBe(true);
      expect(sources.filter((path) => path !== definition && !path.startsWith('simulations/') && used.test(code(path)))).toEqual([]);
    }
  });

  it('only one file imports the packages that draw figures, and not before it draws', () => {
    const drawing = imports.filter(({ to, isLocal }) => !isLocal && /^(vega|vega-lite|@resvg\/.*|@expo-google-fonts\/.*)$/.test(to));
    expect(show(drawing.filter(({ from }) => from !== 'simulations/report/vega-image.ts'))).toEqual([]);
    expect(code('simulations/report/vega-image.ts')).not.toMatch(/^import (?!type\b).*'(vega|vega-lite|@resvg\/resvg-wasm)'/m);
  });

  it('there are no index.ts barrels', () => {
    expect([...sources, ...filesUnder('test'), ...filesUnder('bench')].filter((path) => /(^|\/)index\.(ts|js|mjs)$/.test(path))).toEqual([]);
  });

  it('nobody calls Math.random', () => {
    expect(sources.filter((path) => /\bMath\s*(\.|\?\.|\[\s*['"`])\s*random\b/.test(code(path)))).toEqual([]);
  });

  it('the pure core has no clock, timer, process, console or randomness of its own', () => {
    const impure = /\bDate\s*\.\s*now\b|\bnew\s+Date\s*\(\s*\)|\bperformance\s*\.\s*now\b|\b(setTimeout|setInterval|setImmediate|queueMicrotask)\s*\(|\bprocess\s*\.|\bconsole\s*\.|\bgetRandomValues\b|\brandomUUID\b|\bfetch\s*\(/;
    expect(sources.filter((path) => isPure(path) && impure.test(code(path)))).toEqual([]);
  });

  it('only entry points end the process', () => {
    expect(sources.filter((path) => !path.endsWith('/main.ts') && /\bprocess\s*\.\s*exit\s*\(/.test(code(path)))).toEqual([]);
  });
});
