/**
 * The figures of experiments: a specification for each layout, a caption and the numbers behind it. Pure; the same results give the same specifications. A figure
 * that has nothing to show is left out.
 */
import {
  bytesPerClient,
  boundText,
  clientAccuracy,
  countsSentence,
  finalAccuracy,
  headlineAccuracy,
  kindOfEpsilon,
  localOnlyAccuracy,
  overSeeds,
  qualifierNotes,
  type Measure,
  type Setting,
} from './experiment-data.ts';
import type { FigureData } from './figures.ts';
import { bytes as bytesText, epsilon as epsilonText, meanWithDeviation, percentSign, plural, summarize, type Summary } from './format.ts';
import { fitText, lightPalette, logTicks, niceTicks, shareDomain, spread, type Layout } from './svg.ts';
import type { FigureSpec } from './vega-image.ts';
import { AXIS_WIDTH, figureSpec, figureWidth, legendView, lookOf, MAX_REFERENCES, MAX_SERIES, noteView, plotWidth, referenceLook, seriesScale, shareAxis, wrap, type LegendEntry, type Part } from './vega-spec.ts';

export interface ExperimentFigure {
  /** Unique in a report: also the name of its files. */
  readonly id: string;
  readonly title: string;
  /** How to read it; clients, records, test examples, seeds. */
  readonly caption: string;
  /** What every epsilon in it means; empty where there is none. They belong to the caption. */
  readonly notes: readonly string[];
  /** For a reader who cannot see it: what is drawn, and what it says. */
  readonly description: string;
  readonly spec: Readonly<Record<Layout | 'file', FigureSpec>>;
  readonly data: FigureData;
}

/** Panels of a figure with one for each setting. */
const MAX_PANELS = 24;
/** Rows of the spread over clients. */
const MAX_ROWS = 30;
/** Settings that share one plot over rounds; more get a panel each. */
const MAX_CURVES = 6;

/** All figures, in reading order. */
export function experimentFigures(settings: readonly Setting[]): ExperimentFigure[] {
  const done = settings.filter(({ points }) => points.length > 0);
  const all = [
    frontierFigure(done, { id: 'frontier', title: 'Accuracy of the final model against privacy', axis: 'accuracy of the final model', measure: finalAccuracy }),
    frontierFigure(done, { id: 'frontier-clients', title: "Accuracy of the clients' models against privacy", axis: "mean accuracy of the clients' models", measure: clientAccuracy, own: localOnlyAccuracy }),
    settingsFigure(done),
    roundsFigure(done, { id: 'rounds', title: "Accuracy of the coordinator's model by round", axis: "accuracy of the coordinator's model", of: (round) => round.accuracy }),
    roundsFigure(done, { id: 'rounds-clients', title: "Accuracy of the clients' models by round", axis: "mean accuracy of the clients' models", of: (round) => round.meanClientAccuracy }),
    clientsFigure(done),
    bytesFigure(done),
    reliabilityFigure(done),
  ];
  return all.filter((figure) => figure !== undefined);
}

/** A file goes without its caption: it has the notes in the picture. */
function specs(draw: (layout: Layout) => readonly Part[], sentences: readonly string[]): ExperimentFigure['spec'] {
  const file = sentences.length === 0 ? [] : [noteView(sentences, plotWidth('wide'))];
  return { wide: figureSpec(draw('wide')), narrow: figureSpec(draw('narrow')), file: figureSpec([...draw('wide'), ...file]) };
}

/** What the epsilons of settings mean, and that simulated noise protects nobody. */
function privacyNotes(settings: readonly Setting[]): string[] {
  const sentences = qualifierNotes(settings);
  return sentences.length === 0 ? [] : [...sentences, 'As with noise of the system\'s generator: noise in experiments is seeded, so that they repeat, and protects nobody.'];
}

function drawnNote(all: number, drawn: number, what: string): string {
  return all > drawn ? `Drawn: the first ${drawn} of ${all} ${what}; the data are of all.` : '';
}

/** Of an axis that does not begin at nothing. */
function axisNote([low]: readonly [number, number]): string {
  return low > 0 ? `The axis of accuracy begins at ${percentSign(low, 0)}.` : '';
}

const DEVIATION = 'Error bars: sample standard deviation over seeds.';

function repeats(settings: readonly Setting[]): string {
  const counts = [...new Set(settings.map(({ points }) => points.length))].sort((a, b) => a - b);
  return counts.length === 1 ? `n = ${counts[0]} a setting` : `n = ${counts[0]} to ${counts.at(-1)} a setting`;
}

function settingName({ number, label }: Setting): string {
  return `#${number} ${label}`;
}

function share(value: number | null | undefined): string {
  return typeof value === 'number' ? String(Number(value.toPrecision(6))) : '';
}

function extremes({ mean, stddev }: Summary): [number, number] {
  return [mean! - (stddev ?? 0), mean! + (stddev ?? 0)];
}

/** Of a log axis: 1, 2 and 5 times powers of ten, powers alone where there are many, round numbers where there are hardly any. */
function positiveTicks(domain: readonly [number, number]): number[] {
  const [low, high] = domain;
  const ticks = high / low < 1000 ? Array.from({ length: 5 }, (_, i) => 10 ** (Math.floor(Math.log10(low)) + i)).flatMap((power) => [1, 2, 5].map((factor) => Number((factor * power).toPrecision(6)))).filter((tick) => tick >= low && tick <= high) : logTicks(domain);
  return ticks.length >= 3 ? ticks : niceTicks(domain, 5);
}

// --- privacy against accuracy -----------------------------------------------------------------------------------------

interface FrontierView {
  readonly id: string;
  readonly title: string;
  readonly axis: string;
  readonly measure: Measure;
  /** What clients reach without anybody: drawn as one rule, unless a setting is about just that. */
  readonly own?: Measure;
}

/** A horizontal rule: something without a guarantee. */
interface Reference {
  readonly label: string;
  readonly summary: Summary;
}

/** Mean over settings for each seed, then over seeds. */
function ownRecords(settings: readonly Setting[], own: Measure): Reference[] {
  const seeds = [...new Set(settings.flatMap(({ points }) => points.map(({ seed }) => seed)))];
  const ofSeed = (seed: number) => summarize(settings.flatMap(({ points }) => points.filter((point) => point.seed === seed).map(({ outcome }) => own(outcome) ?? NaN))).mean ?? NaN;
  const summary = summarize(seeds.map(ofSeed));
  return summary.mean === null ? [] : [{ label: 'the same students, each on its own records alone (mean over settings)', summary }];
}

function frontierFigure(settings: readonly Setting[], { id, title, axis, measure, own }: FrontierView): ExperimentFigure | undefined {
  const measured = settings.map((setting) => ({ setting, summary: overSeeds(setting, measure) })).filter(({ summary }) => summary.mean !== null);
  const guaranteed = measured.filter(({ setting }) => setting.guarantee !== null);
  if (guaranteed.length === 0) return undefined;
  // Epsilons of different kinds are no common scale: their lines say of which kind they are.
  const kinds = new Set(guaranteed.map(({ setting }) => kindOfEpsilon(setting.guarantee!)));
  const nameOf = ({ series, guarantee }: Setting) => (kinds.size === 1 ? series : `${series} (${kindOfEpsilon(guarantee!)})`);
  const names = [...new Set(guaranteed.map(({ setting }) => nameOf(setting)))];
  const drawnNames = names.slice(0, MAX_SERIES);
  const free = measured.filter(({ setting }) => setting.guarantee === null).map(({ setting, summary }): Reference => ({ label: setting.label, summary }));
  const hasLocalOnly = measured.some(({ setting }) => setting.guarantee === null && overSeeds(setting, finalAccuracy).mean === null);
  const references = [...free, ...(own === undefined || hasLocalOnly ? [] : ownRecords(guaranteed.map(({ setting }) => setting), own))].slice(0, MAX_REFERENCES);

  const lines = guaranteed
    .filter(({ setting }) => drawnNames.includes(nameOf(setting)))
    .map(({ setting, summary }) => ({ series: nameOf(setting), setting: setting.number, epsilon: setting.guarantee!.epsilon, accuracy: summary.mean!, low: extremes(summary)[0], high: extremes(summary)[1], n: summary.count }))
    .sort((a, b) => drawnNames.indexOf(a.series) - drawnNames.indexOf(b.series) || a.epsilon - b.epsilon);
  const epsilons = lines.map(({ epsilon }) => Math.max(epsilon, 1e-6));
  const domain: [number, number] = [Math.min(...epsilons) / 1.4, Math.max(...epsilons) * 1.4];
  const shares = shareDomain([...lines.flatMap(({ low, high }) => [low, high]), ...references.map(({ summary }) => summary.mean!)]);
  const draw = (layout: Layout): Part[] => {
    const height = layout === 'wide' ? 320 : 280;
    const x = { field: 'epsilon', type: 'quantitative', scale: { type: 'log', domain, nice: false }, axis: { title: kinds.size === 1 ? 'ε, log scale (less is more private)' : 'ε, log scale; its meaning differs between lines', values: positiveTicks(domain), format: '~g', grid: false } };
    const color = seriesScale(drawnNames, 'color');
    const plot: Part = {
      width: plotWidth(layout),
      height,
      layer: [
        ...references.map(({ summary }, index) => ({ data: { values: [{ accuracy: summary.mean }] }, mark: { type: 'rule', color: referenceLook(index).color, strokeDash: referenceLook(index).dash, strokeWidth: 1.4 }, encoding: { y: shareAxis(axis, shares, 'accuracy', height) } })),
        {
          data: { values: lines },
          encoding: { x, y: shareAxis(axis, shares, 'accuracy', height) },
          layer: [
            { mark: { type: 'rule', strokeWidth: 1.4 }, encoding: { y: shareAxis(axis, shares, 'low', height), y2: { field: 'high' }, color } },
            { mark: { type: 'tick', orient: 'horizontal', size: 8, thickness: 1.4, opacity: 1 }, encoding: { y: shareAxis(axis, shares, 'low', height), color } },
            { mark: { type: 'tick', orient: 'horizontal', size: 8, thickness: 1.4, opacity: 1 }, encoding: { y: shareAxis(axis, shares, 'high', height), color } },
            { mark: { type: 'line', strokeWidth: 2 }, encoding: { color, strokeDash: seriesScale(drawnNames, 'strokeDash') } },
            { mark: { type: 'point', filled: true, size: 60, opacity: 1, stroke: lightPalette.background, strokeWidth: 1 }, encoding: { color, shape: seriesScale(drawnNames, 'shape') } },
          ],
        },
      ],
    };
    const entries: LegendEntry[] = [
      ...drawnNames.map((label, index): LegendEntry => ({ ...lookOf(index), label, kind: 'line' })),
      ...references.map(({ label, summary }, index): LegendEntry => ({ ...referenceLook(index), label: `${label}: ${meanWithDeviation(summary)}% (no guarantee)`, kind: 'rule' })),
    ];
    return [plot, legendView(entries, plotWidth(layout))];
  };
  const shown = measured.map(({ setting }) => setting);
  const sentences = privacyNotes(shown);
  return {
    id,
    title,
    caption: [
      `Each point is a setting: ${axis}, mean over seeds, against the ε that its releases guarantee together. ${DEVIATION} ${repeats(shown)}.`,
      references.length > 0 ? 'Horizontal rules: without a guarantee.' : '',
      kinds.size > 1 ? 'Lines differ in what their ε means (unit, adjacency or adversary), as the legend says: they cannot be compared at equal ε.' : '',
      axisNote(shares),
      drawnNote(names.length, drawnNames.length, 'lines'),
      drawnNote(free.length, Math.min(free.length, MAX_REFERENCES), 'settings without a guarantee'),
      countsSentence(shown),
    ].filter(Boolean).join(' '),
    notes: sentences,
    description: [
      `Accuracy against epsilon for ${plural(names.length, 'line')}.`,
      ...guaranteed.map(({ setting, summary }) => `${setting.label}: ${percentSign(summary.mean)} at epsilon ${epsilonText(setting.guarantee!.epsilon)} (${kindOfEpsilon(setting.guarantee!)}).`),
      ...references.map(({ label, summary }) => `${label}, without a guarantee: ${percentSign(summary.mean)}.`),
    ].join(' '),
    spec: specs(draw, sentences),
    data: {
      columns: ['setting', 'label', 'accuracy', 'standard deviation', 'n', 'epsilon', 'delta', 'unit', 'adjacency', 'adversary', 'accountant', 'releases', 'transfer rows a release', 'transfer rows a client'],
      rows: measured.map(({ setting, summary }) => {
        const { guarantee } = setting;
        return [
          `#${setting.number}`, setting.label, share(summary.mean), share(summary.stddev), String(summary.count),
          ...(guarantee === null ? ['none', '', '', '', '', '', '', '', ''] : [epsilonText(guarantee.epsilon), String(guarantee.delta), guarantee.unit, guarantee.adjacency, guarantee.adversary, guarantee.accountant, String(guarantee.releases), String(guarantee.rowsPerRelease), String(guarantee.rowsPerClient)]),
        ];
      }),
    },
  };
}

// --- settings beside each other ---------------------------------------------------------------------------------------

/** Height of a row's name, and of each of its lanes. */
const NAME_HEIGHT = 22;
const LANE = 17;

/** Names of rows, each above its marks. */
function rowNames(settings: readonly Setting[], rowHeight: number, width: number): Part {
  const name = (setting: Setting) => `${settingName(setting)}${setting.guarantee === null ? '' : ` (${boundText(setting.guarantee)})`}`;
  return {
    data: { values: settings.map((setting, row) => ({ text: fitText(name(setting), width, 12), y: row * rowHeight + 12 })) },
    mark: { type: 'text', align: 'left', baseline: 'middle', color: lightPalette.ink },
    encoding: { x: { value: 0 }, y: { field: 'y', type: 'quantitative', scale: null, axis: null }, text: { field: 'text', type: 'nominal' } },
  };
}

function rowAxis(field: string, title: string, domain: readonly [number, number], layout: Layout): Part {
  return { field, type: 'quantitative', scale: { domain, nice: false, zero: false }, axis: { title, format: '.0%', values: niceTicks(domain, layout === 'wide' ? 8 : 4, 0.01), domain: false, ticks: false } };
}

function settingsFigure(settings: readonly Setting[]): ExperimentFigure | undefined {
  const kinds = [
    { kind: 'final model', words: 'the final model: of the coordinator or the baseline', measure: finalAccuracy },
    { kind: 'clients', words: 'the clients: mean of their own models', measure: clientAccuracy },
    { kind: 'local only', words: 'the clients without the others', measure: localOnlyAccuracy },
  ].filter(({ measure }) => settings.some((setting) => overSeeds(setting, measure).mean !== null));
  const measured = settings.filter((setting) => kinds.some(({ measure }) => overSeeds(setting, measure).mean !== null));
  if (measured.length < 2) return undefined;
  const drawn = measured.slice(0, MAX_ROWS);
  const rowHeight = NAME_HEIGHT + kinds.length * LANE + 4;
  const values = drawn.flatMap((setting, row) =>
    kinds.flatMap(({ kind, measure }, lane) => {
      const summary = overSeeds(setting, measure);
      return summary.mean === null ? [] : [{ series: kind, setting: setting.number, accuracy: summary.mean, low: extremes(summary)[0], high: extremes(summary)[1], y: row * rowHeight + NAME_HEIGHT + (lane + 0.5) * LANE }];
    }),
  );
  const domain = shareDomain(values.flatMap(({ low, high }) => [low, high]));
  const names = kinds.map(({ kind }) => kind);
  const draw = (layout: Layout): Part[] => {
    const width = figureWidth[layout] - 22;
    const color = seriesScale(names, 'color');
    const y = { field: 'y', type: 'quantitative', scale: null, axis: null };
    const axis = (field: string) => rowAxis(field, 'accuracy', domain, layout);
    const cap = { type: 'tick', orient: 'vertical', size: 8, thickness: 1.4, opacity: 1 };
    const plot: Part = {
      width,
      height: drawn.length * rowHeight,
      layer: [
        { data: { values }, mark: { type: 'rule', strokeWidth: 1.4 }, encoding: { x: axis('low'), x2: { field: 'high' }, y, color } },
        { data: { values }, mark: cap, encoding: { x: axis('low'), y, color } },
        { data: { values }, mark: cap, encoding: { x: axis('high'), y, color } },
        { data: { values }, mark: { type: 'point', filled: true, size: 60, opacity: 1, stroke: lightPalette.background, strokeWidth: 1 }, encoding: { x: axis('accuracy'), y, color, shape: seriesScale(names, 'shape') } },
        rowNames(drawn, rowHeight, width),
      ],
    };
    return [legendView(kinds.map(({ words }, index): LegendEntry => ({ ...lookOf(index), label: words, kind: 'mark' })), width), plot];
  };
  const sentences = privacyNotes(measured);
  return {
    id: 'settings',
    title: 'Accuracy of each setting',
    caption: [
      `Mean accuracy over seeds. ${DEVIATION} ${repeats(measured)}.`,
      axisNote(domain),
      drawnNote(measured.length, drawn.length, 'settings'),
      countsSentence(measured),
    ].filter(Boolean).join(' '),
    notes: sentences,
    description: ['Accuracies of settings, a row each.', ...drawn.map((setting) => `${settingName(setting)}: ${kinds.map(({ kind, measure }) => `${kind} ${percentSign(overSeeds(setting, measure).mean)}`).join(', ')}.`)].join(' '),
    spec: specs(draw, sentences),
    data: { columns: ['setting', 'label', ...kinds.flatMap(({ kind }) => [kind, `standard deviation of ${kind}`, `n of ${kind}`])], rows: measured.map((setting) => [`#${setting.number}`, setting.label, ...kinds.flatMap(({ measure }) => { const { mean, stddev, count } = overSeeds(setting, measure); return [share(mean), share(stddev), String(count)]; })]) },
  };
}

// --- rounds -----------------------------------------------------------------------------------------------------------

interface RoundsView {
  readonly id: string;
  readonly title: string;
  readonly axis: string;
  readonly of: (round: { readonly accuracy: number | null; readonly meanClientAccuracy: number | null }) => number | null;
}

interface RoundMean {
  readonly series: string;
  readonly setting: number;
  readonly round: number;
  readonly accuracy: number;
  readonly low: number;
  readonly high: number;
  readonly n: number;
}

function roundsFigure(settings: readonly Setting[], { id, title, axis, of }: RoundsView): ExperimentFigure | undefined {
  const curves = settings.map((setting) => ({ setting, values: curveOf(setting, of) })).filter(({ values }) => values.length > 2); // two points are no course
  if (curves.length === 0) return undefined;
  const inOnePlot = curves.length <= MAX_CURVES;
  const drawn = curves.slice(0, inOnePlot ? MAX_CURVES : MAX_PANELS);
  const labels = drawn.map(({ setting }) => settingName(setting));
  const all = drawn.flatMap(({ values }) => values);
  const shares = shareDomain(all.flatMap(({ low, high }) => [low, high]));
  const rounds: [number, number] = [Math.min(...all.map(({ round }) => round)), Math.max(...all.map(({ round }) => round))];
  const margin = 0.04 * (rounds[1] - rounds[0]);
  const x = (space: number): Part => ({ field: 'round', type: 'quantitative', scale: { domain: [rounds[0] - margin, rounds[1] + margin], nice: false }, axis: { title: inOnePlot ? 'round' : null, format: 'd', values: niceTicks(rounds, Math.floor(space / 40), 1), grid: false } });
  const plot = (values: readonly RoundMean[], width: number, height: number, yAxis: string): Part => {
    const color = seriesScale(labels, 'color', inOnePlot ? lookOf : () => lookOf(0));
    return {
      width,
      height,
      data: { values },
      encoding: { x: x(width) },
      layer: [
        { mark: { type: 'area', opacity: 0.16 }, encoding: { y: shareAxis(yAxis, shares, 'low', height), y2: { field: 'high' }, color } },
        { mark: { type: 'line', strokeWidth: 2 }, encoding: { y: shareAxis(yAxis, shares, 'accuracy', height), color, ...(inOnePlot ? { strokeDash: seriesScale(labels, 'strokeDash') } : {}) } },
        { mark: { type: 'point', filled: true, size: inOnePlot ? 40 : 18, opacity: 1 }, encoding: { y: shareAxis(yAxis, shares, 'accuracy', height), color, ...(inOnePlot ? { shape: seriesScale(labels, 'shape') } : {}) } },
      ],
    };
  };
  const draw = (layout: Layout): Part[] => {
    if (inOnePlot) return [plot(all, plotWidth(layout), layout === 'wide' ? 300 : 260, axis), legendView(labels.map((label, index): LegendEntry => ({ ...lookOf(index), label, kind: 'line' })), plotWidth(layout))];
    return [panels(drawn.map(({ setting, values }) => ({ title: settingName(setting), subtitle: '', view: (width, height) => plot(values, width, height, '') })), layout, 110), noteView([`Up: ${axis}; to the right: round.`], plotWidth(layout))];
  };
  const shown = curves.map(({ setting }) => setting);
  const sentences = privacyNotes(shown);
  return {
    id,
    title,
    caption: [
      `Line: ${axis} after each round, mean over seeds; band: sample standard deviation over seeds, ${repeats(shown)}.`,
      inOnePlot ? '' : 'One panel a setting, all on the same axes.',
      axisNote(shares),
      drawnNote(curves.length, drawn.length, 'settings'),
      countsSentence(shown),
    ].filter(Boolean).join(' '),
    notes: sentences,
    description: [`Accuracy over rounds ${rounds[0]} to ${rounds[1]}.`, ...drawn.map(({ setting, values }) => `${settingName(setting)}: ${percentSign(values[0]!.accuracy)} at first, ${percentSign(values.at(-1)!.accuracy)} at last.`)].join(' '),
    spec: specs(draw, sentences),
    data: { columns: ['setting', 'label', 'round', 'accuracy', 'low', 'high', 'n'], rows: curves.flatMap(({ setting, values }) => values.map(({ round, accuracy, low, high, n }) => [`#${setting.number}`, setting.label, String(round), share(accuracy), share(low), share(high), String(n)])) },
  };
}

function curveOf(setting: Setting, of: RoundsView['of']): RoundMean[] {
  const rounds = [...new Set(setting.points.flatMap(({ outcome }) => outcome.rounds.map(({ round }) => round)))].sort((a, b) => a - b);
  return rounds.flatMap((round) => {
    const summary = overSeeds(setting, (outcome) => {
      const found = outcome.rounds.find((line) => line.round === round);
      return found === undefined ? null : of(found);
    });
    if (summary.mean === null) return [];
    const [low, high] = extremes(summary);
    return [{ series: settingName(setting), setting: setting.number, round, accuracy: summary.mean, low, high, n: summary.count }];
  });
}

interface Panel {
  readonly title: string;
  readonly subtitle: string;
  readonly view: (width: number, height: number) => Part;
}

/** Plots beside and below each other, each under its name. */
function panels(all: readonly Panel[], layout: Layout, height: number, isSquare = false): Part {
  const columns = Math.min(all.length, layout === 'wide' ? 3 : 2);
  const gap = layout === 'wide' ? 22 : 10;
  const space = Math.floor((figureWidth[layout] - 16 - gap * (columns - 1)) / columns - AXIS_WIDTH);
  const width = Math.min(space, isSquare ? 230 : 330);
  const fontSize = layout === 'wide' ? 12 : 11;
  return {
    columns,
    spacing: { row: 18, column: gap },
    concat: all.map(({ title, subtitle, view }) => {
      const lines = wrap(title, width + AXIS_WIDTH - 4, fontSize);
      const text = lines.length <= 2 ? lines : [lines[0]!, fitText(lines.slice(1).join(' '), width + AXIS_WIDTH - 4, fontSize)];
      return { ...view(width, isSquare ? width : height), title: { text, ...(subtitle === '' ? {} : { subtitle, subtitleFontSize: 11, subtitleColor: lightPalette.muted }), fontSize, color: lightPalette.ink, anchor: 'start', frame: 'bounds', offset: 6 } };
    }),
  };
}

// --- clients ----------------------------------------------------------------------------------------------------------

function clientsFigure(settings: readonly Setting[]): ExperimentFigure | undefined {
  const withClients = settings.filter(({ points }) => points.some(({ outcome }) => outcome.clients.filter(({ accuracy, localOnlyAccuracy }) => accuracy !== null || localOnlyAccuracy !== null).length > 1));
  if (withClients.length === 0) return undefined;
  const drawn = withClients.slice(0, MAX_ROWS);
  const both = drawn.some(({ points }) => points.some(({ outcome }) => outcome.clients.some((client) => client.accuracy !== null))) && drawn.some(({ points }) => points.some(({ outcome }) => outcome.clients.some((client) => client.localOnlyAccuracy !== null)));
  const lane = LANE;
  const rowHeight = NAME_HEIGHT + (both ? 2 : 1) * lane + 6;
  const kinds = both ? (['federated', 'local only'] as const) : (['federated'] as const);
  const values = drawn.flatMap((setting, row) =>
    setting.points.flatMap(({ seed, outcome }) =>
      outcome.clients.flatMap((client, index) =>
        kinds.flatMap((kind, laneIndex) => {
          const accuracy = kind === 'federated' ? client.accuracy : client.localOnlyAccuracy;
          return accuracy === null ? [] : [{ setting: setting.number, kind, seed, client: client.name, accuracy, y: row * rowHeight + NAME_HEIGHT + laneIndex * lane + lane / 2 + (((index * 7 + seed * 3) % 5) - 2) * 1.3 }];
        }),
      ),
    ),
  );
  const boxes = drawn.flatMap((setting, row) =>
    kinds.flatMap((kind, laneIndex) => {
      const sorted = values.filter((value) => value.setting === setting.number && value.kind === kind).map(({ accuracy }) => accuracy).sort((a, b) => a - b);
      return sorted.length === 0 ? [] : [{ kind, y: row * rowHeight + NAME_HEIGHT + laneIndex * lane + lane / 2, low: quantile(sorted, 0.25), median: quantile(sorted, 0.5), high: quantile(sorted, 0.75) }];
    }),
  );
  const domain = shareDomain(values.map(({ accuracy }) => accuracy));
  const height = drawn.length * rowHeight;
  const color = { field: 'kind', type: 'nominal', scale: { domain: [...kinds], range: kinds.map((_, index) => lookOf(index).color) }, legend: null };
  const draw = (layout: Layout): Part[] => {
    const width = figureWidth[layout] - 22;
    const x = (field: string) => rowAxis(field, 'accuracy of one client', domain, layout);
    const y = { field: 'y', type: 'quantitative', scale: null, axis: null };
    const plot: Part = {
      width,
      height,
      layer: [
        { data: { values: boxes }, mark: { type: 'rule', strokeWidth: lane - 4, opacity: 0.2 }, encoding: { x: x('low'), x2: { field: 'high' }, y, color } },
        ...kinds.map((kind, index) => ({
          data: { values: values.filter((value) => value.kind === kind) },
          mark: { type: 'point', filled: index === 0, size: index === 0 ? 26 : 24, strokeWidth: 1.2, opacity: 0.75, shape: lookOf(index).shape },
          encoding: { x: x('accuracy'), y, color },
        })),
        { data: { values: boxes }, mark: { type: 'tick', orient: 'vertical', size: lane - 2, thickness: 3, opacity: 1 }, encoding: { x: x('median'), y, color } },
        rowNames(drawn, rowHeight, width),
      ],
    };
    const entries: LegendEntry[] = [
      { ...lookOf(0), label: both ? 'with the others' : 'one client with one seed', kind: 'mark' },
      ...(both ? [{ ...lookOf(1), label: 'the same student, on its own records alone', kind: 'hollow' } as const] : []),
      { ...lookOf(0), label: 'median; band: middle half', kind: 'tick' },
    ];
    return [legendView(entries, width), plot];
  };
  const sentences = privacyNotes(withClients);
  const allRows = withClients.flatMap((setting) => setting.points.flatMap(({ seed, outcome }) => outcome.clients.map((client) => [`#${setting.number}`, setting.label, String(seed), client.name, client.model, String(client.privateRecords), share(client.accuracy), share(client.localOnlyAccuracy)])));
  return {
    id: 'clients',
    title: 'Accuracy of each client',
    caption: [
      `Each mark is a client with one seed; line: median; band: the middle half. ${both ? 'Filled circles: the student as it left; outlined squares: the same student, trained as long on its own records alone.' : ''}`,
      drawnNote(withClients.length, drawn.length, 'settings'),
      countsSentence(withClients),
    ].filter(Boolean).join(' '),
    notes: sentences,
    description: ['Accuracies of single clients, a row for each setting.', ...drawn.map((setting) => `${settingName(setting)}: mean ${percentSign(overSeeds(setting, clientAccuracy).mean)}.`)].join(' '),
    spec: specs(draw, sentences),
    data: { columns: ['setting', 'label', 'seed', 'client', 'model', 'private records', 'accuracy', 'local only'], rows: allRows },
  };
}

/** Linear between the two nearest; `sorted` ascending. */
function quantile(sorted: readonly number[], share: number): number {
  const position = (sorted.length - 1) * share;
  const below = Math.floor(position);
  return sorted[below]! + (position - below) * ((sorted[below + 1] ?? sorted[below]!) - sorted[below]!);
}

// --- bytes ------------------------------------------------------------------------------------------------------------

function bytesFigure(settings: readonly Setting[]): ExperimentFigure | undefined {
  const measured = settings.map((setting) => ({ setting, moved: overSeeds(setting, bytesPerClient), accuracy: overSeeds(setting, headlineAccuracy) })).filter(({ moved, accuracy }) => (moved.mean ?? 0) > 0 && accuracy.mean !== null);
  if (measured.length < 2) return undefined;
  const groups = [...new Set(measured.map(({ setting }) => groupOf(setting)))];
  const drawnGroups = groups.slice(0, MAX_SERIES);
  const drawn = measured.filter(({ setting }) => drawnGroups.includes(groupOf(setting)));
  const values = drawn.map(({ setting, moved, accuracy }) => ({ series: groupOf(setting), name: `#${setting.number}`, bytes: moved.mean!, accuracy: accuracy.mean!, low: extremes(accuracy)[0], high: extremes(accuracy)[1] }));
  const domain: [number, number] = [Math.min(...values.map(({ bytes }) => bytes)) / 1.5, Math.max(...values.map(({ bytes }) => bytes)) * 1.5];
  const shares = shareDomain(values.flatMap(({ low, high }) => [low, high]));
  const draw = (layout: Layout): Part[] => {
    const height = layout === 'wide' ? 300 : 260;
    const axis = 'accuracy';
    const ticks = positiveTicks(domain);
    const color = seriesScale(drawnGroups, 'color');
    const plot: Part = {
      width: plotWidth(layout),
      height,
      data: { values: withNames(values, domain, shares, plotWidth(layout), height) },
      encoding: { x: { field: 'bytes', type: 'quantitative', scale: { type: 'log', domain, nice: false }, axis: { title: 'bytes a client moved, up and down, log scale', values: ticks, labelExpr: ticks.map((tick) => `datum.value == ${tick} ? ${JSON.stringify(tickBytes(tick))}`).concat("''").join(' : '), grid: false } } },
      layer: [
        { mark: { type: 'rule', strokeWidth: 1.4 }, encoding: { y: shareAxis(axis, shares, 'low', height), y2: { field: 'high' }, color } },
        { mark: { type: 'point', filled: true, size: 60, opacity: 1, stroke: lightPalette.background, strokeWidth: 1 }, encoding: { y: shareAxis(axis, shares, 'accuracy', height), color, shape: seriesScale(drawnGroups, 'shape') } },
        { mark: { type: 'text', align: 'left', baseline: 'middle', dx: 8, fontSize: 11, color: lightPalette.muted }, encoding: { y: shareAxis(axis, shares, 'nameAt', height), text: { field: 'name', type: 'nominal' } } },
      ],
    };
    return [plot, legendView(drawnGroups.map((label, index): LegendEntry => ({ ...lookOf(index), label, kind: 'mark' })), plotWidth(layout))];
  };
  const shown = measured.map(({ setting }) => setting);
  const sentences = privacyNotes(shown);
  return {
    id: 'bytes',
    title: 'What accuracy costs in bytes',
    caption: [
      `Mean accuracy over seeds (of the coordinator's model where there is one, else the mean of the clients' models) against the payload bytes that a client moved on average. ${DEVIATION} ${repeats(shown)}. Numbers are those of the table of settings. Settings that move nothing are not drawn.`,
      axisNote(shares),
      drawnNote(groups.length, drawnGroups.length, 'groups'),
      countsSentence(shown),
    ].filter(Boolean).join(' '),
    notes: sentences,
    description: ['Accuracy against bytes a client moved.', ...measured.map(({ setting, moved, accuracy }) => `${settingName(setting)}: ${percentSign(accuracy.mean)} for ${bytesText(moved.mean!)}.`)].join(' '),
    spec: specs(draw, sentences),
    data: { columns: ['setting', 'label', 'bytes a client', 'accuracy', 'standard deviation', 'n'], rows: measured.map(({ setting, moved, accuracy }) => [`#${setting.number}`, setting.label, String(Math.round(moved.mean!)), share(accuracy.mean), share(accuracy.stddev), String(accuracy.count)]) },
  };
}

/** The height at which each point's name stands, as a share: beside the point, moved so that names of points above each other do not meet. */
function withNames<T extends { readonly bytes: number; readonly accuracy: number }>(values: readonly T[], domain: readonly [number, number], shares: readonly [number, number], width: number, height: number): (T & { readonly nameAt: number })[] {
  const x = (bytes: number) => (width * Math.log(bytes / domain[0])) / Math.log(domain[1] / domain[0]);
  const columns: T[][] = [];
  for (const value of [...values].sort((a, b) => a.bytes - b.bytes)) {
    const last = columns.at(-1);
    if (last !== undefined && x(value.bytes) - x(last.at(-1)!.bytes) < 26) last.push(value);
    else columns.push([value]);
  }
  const [low, high] = shares;
  return columns.flatMap((column) => spread(column.map(({ accuracy }) => (height * (high - accuracy)) / (high - low)), 12, 4, height - 4).map((y, i) => ({ ...column[i]!, nameAt: high - (y / height) * (high - low) })));
}

/** What shares a color where every setting has a mark of its own: what is one line over epsilon. */
function groupOf(setting: Setting): string {
  return setting.series;
}

function tickBytes(value: number): string {
  return bytesText(value).replace('.00', '').replace('.0 ', ' ');
}

// --- reliability ------------------------------------------------------------------------------------------------------

function reliabilityFigure(settings: readonly Setting[]): ExperimentFigure | undefined {
  const pooled = settings.map((setting) => ({ setting, bins: pooledBins(setting) })).filter(({ bins }) => bins.length > 0);
  if (pooled.length === 0) return undefined;
  const drawn = pooled.slice(0, MAX_PANELS / 2);
  const axis = (field: 'confidence' | 'accuracy', width: number): Part => ({ field, type: 'quantitative', scale: { domain: [0, 1], nice: false }, axis: { title: null, values: width < 180 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1], format: '.0%', ticks: false, domain: false, ...(field === 'accuracy' ? { minExtent: AXIS_WIDTH - 2, maxExtent: AXIS_WIDTH - 2 } : { labelOverlap: false, labelFlush: true }) } });
  const draw = (layout: Layout): Part[] => [
    panels(
      drawn.map(({ setting, bins }) => {
        const total = bins.reduce((sum, { count }) => sum + count, 0);
        return {
          title: settingName(setting),
          subtitle: `ECE ${pooledError(bins).toFixed(3)}, ${plural(total, 'answer')}`,
          view: (width: number, height: number): Part => ({
            width,
            height,
            layer: [
              { data: { values: [{ confidence: 0, accuracy: 0 }, { confidence: 1, accuracy: 1 }] }, mark: { type: 'line', color: lightPalette.rule, strokeDash: [5, 4], strokeWidth: 1.3 }, encoding: { x: axis('confidence', width), y: axis('accuracy', width) } },
              {
                data: { values: bins.map(({ confidence, accuracy, count }) => ({ confidence, accuracy, share: count / total })) },
                mark: { type: 'point', filled: true, opacity: 0.85, color: lookOf(0).color },
                encoding: { x: axis('confidence', width), y: axis('accuracy', width), size: { field: 'share', type: 'quantitative', scale: { domain: [0, 1], range: [14, 380] }, legend: null } },
              },
            ],
          }),
        };
      }),
      layout,
      200,
      true,
    ),
    noteView(['Up: accuracy; to the right: confidence; the area of a point grows with the share of answers in its bin.'], plotWidth(layout)),
  ];
  const shown = pooled.map(({ setting }) => setting);
  const sentences = privacyNotes(shown);
  return {
    id: 'reliability',
    title: 'Reliability: does 80% sure mean 80% right?',
    caption: [
      'Answers of the final model, binned by confidence and pooled over seeds: how many of a bin are right, against how sure the model is. On the dashed diagonal a model is as often right as it says; below it, it is too sure of itself. ECE: expected calibration error of the pooled bins.',
      drawnNote(pooled.length, drawn.length, 'settings'),
      `${repeats(shown)}. ${countsSentence(shown)}`,
    ].filter(Boolean).join(' '),
    notes: sentences,
    description: ['Reliability diagrams.', ...drawn.map(({ setting, bins }) => `${settingName(setting)}: expected calibration error ${pooledError(bins).toFixed(3)}.`)].join(' '),
    spec: specs(draw, sentences),
    data: { columns: ['setting', 'label', 'confidence above', 'to', 'answers', 'mean confidence', 'accuracy'], rows: pooled.flatMap(({ setting, bins }) => bins.map(({ low, high, count, confidence, accuracy }) => [`#${setting.number}`, setting.label, share(low), share(high), String(count), share(confidence), share(accuracy)])) },
  };
}

interface PooledBin {
  readonly low: number;
  readonly high: number;
  readonly count: number;
  readonly confidence: number;
  readonly accuracy: number;
}

/** Bins with the same borders, over seeds; empty ones are left out. */
function pooledBins({ points }: Setting): PooledBin[] {
  const pooled = new Map<string, PooledBin>();
  for (const { outcome } of points) {
    for (const { low, high, count, meanConfidence, accuracy } of outcome.final?.reliability ?? []) {
      if (count === 0 || meanConfidence === null || accuracy === null) continue;
      const key = `${low} ${high}`;
      const before = pooled.get(key) ?? { low, high, count: 0, confidence: 0, accuracy: 0 };
      const total = before.count + count;
      pooled.set(key, { low, high, count: total, confidence: (before.confidence * before.count + meanConfidence * count) / total, accuracy: (before.accuracy * before.count + accuracy * count) / total });
    }
  }
  return [...pooled.values()].sort((a, b) => a.low - b.low);
}

function pooledError(bins: readonly PooledBin[]): number {
  const total = bins.reduce((sum, { count }) => sum + count, 0);
  return bins.reduce((sum, { count, confidence, accuracy }) => sum + (count / total) * Math.abs(confidence - accuracy), 0);
}
