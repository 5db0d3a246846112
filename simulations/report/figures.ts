/**
 * The figures of a report, each as two SVG layouts, a caption and the numbers behind it. Pure and byte-stable: the same
 * report gives the same text. A figure that has nothing to show is left out.
 */
import {
  bytes,
  bytesMoved,
  clientLabels,
  comparedWithWeights,
  epsilon as epsilonText,
  gains,
  integer,
  meanWithDeviation,
  percent,
  percentSign,
  plural,
  points,
  samplingHalfWidth,
  summarize,
  visibleLine,
} from './format.ts';
import type { ClientResult, RoundAccuracy, RunReport } from './report-data.ts';
import {
  FEDERATED,
  LOCAL_ONLY,
  TEACHER,
  band,
  fitText,
  fittedText,
  line,
  linearScale,
  logScale,
  logTicks,
  marker,
  niceTicks,
  polyline,
  shareDomain,
  spread,
  svgImage,
  text,
  textWidth,
  whisker,
  withoutCollisions,
  coordinate,
  type Layout,
  type Point,
  type Scale,
} from './svg.ts';

export interface FigureData {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export interface Figure {
  /** Unique in a report: also the file name of the SVG. */
  readonly id: string;
  readonly title: string;
  /** How to read it, over which clients and test examples, with which seed and settings. */
  readonly caption: string;
  /** Without style: `figureStyle()` belongs into the page, or `withStyle` around it. */
  readonly svg: Readonly<Record<Layout, string>>;
  readonly data: FigureData;
}

/** More clients than this stay out of the drawings, not out of means, tables and data. */
export const MAX_DRAWN_CLIENTS = 40;
/** Up to here all clients share one panel; then each gets its own. */
const MAX_CLIENTS_IN_ONE_PANEL = 5;
const WIDTH: Readonly<Record<Layout, number>> = { wide: 840, narrow: 358 };

/** All figures of a report, in reading order. */
export function renderFigures(original: RunReport): Figure[] {
  const labels = clientLabels(original.clients);
  const report = { ...original, clients: original.clients.map((client, index) => ({ ...client, name: labels[index]! })) };
  const all = [
    gainByClientFigure(report),
    accuracyByRoundFigure(report),
    classHistogramFigure(report),
    bytesFigure(report),
    accuracyByEpsilonFigure(report),
  ];
  return all.filter((figure) => figure !== undefined);
}

// --- accuracy by round ------------------------------------------------------------------------------------------------

function accuracyByRoundFigure(report: RunReport): Figure | undefined {
  const { clients, teacher } = report;
  const drawn = clients.slice(0, MAX_DRAWN_CLIENTS);
  const curves = [...clients.flatMap((client) => [client.byRound, client.localOnlyByRound]), teacher.byRound];
  const rounds = curves.flat().map(({ round }) => round).filter(Number.isFinite);
  if (clients.length === 0 || rounds.length === 0) return undefined;

  const title = 'Accuracy by round';
  const drawnValues = [...drawn.flatMap((client) => [...client.byRound, ...client.localOnlyByRound]), ...teacher.byRound].map(({ accuracy }) => accuracy);
  const view: RoundsView = {
    report,
    drawn,
    roundDomain: [Math.min(...rounds), Math.max(...rounds)],
    shareDomain: shareDomain([...drawnValues, report.centralized.accuracy]),
    title,
    description: [
      `Line chart of test accuracy in percent over rounds ${Math.min(...rounds)} to ${Math.max(...rounds)}.`,
      ...drawn.map((client) => `${visibleLine(client.name)}: federated ${percentSign(client.federated)}, local only ${percentSign(client.localOnly)} at the end.`),
      teacher.final === null ? '' : `Teacher: ${percentSign(teacher.final)}.`,
      `Centralized bound: ${percentSign(report.centralized.accuracy)}.`,
    ].join(' ').replace(/ {2,}/g, ' '),
  };
  const inOnePanel = drawn.length <= MAX_CLIENTS_IN_ONE_PANEL;
  const draw = inOnePanel ? roundsInOnePanel : roundsInPanels;
  const allRounds = [...new Set(rounds)].sort((a, b) => a - b);
  const column = (curve: readonly RoundAccuracy[]) => {
    const byRound = new Map(curve.map(({ round, accuracy }) => [round, accuracy]));
    return (round: number) => dataShare(byRound.get(round));
  };
  const columns = [
    ...clients.flatMap((client) => [
      { head: `${visibleLine(client.name)}, federated`, cell: column(client.byRound) },
      { head: `${visibleLine(client.name)}, local only`, cell: column(client.localOnlyByRound) },
    ]),
    ...(teacher.byRound.length > 0 ? [{ head: 'teacher', cell: column(teacher.byRound) }] : []),
  ];
  return {
    id: 'accuracy-by-round',
    title,
    caption: [
      'Test accuracy after each round; round 0 is before the first.',
      inOnePanel ? 'Solid with filled markers: the client in the federation. Dashed in the same color: the same student, trained as long on its own records alone.' : 'One panel a client, all on the same axes; the number beside a name is its gain in points.',
      teacher.byRound.length > 0 ? "Crosses: the coordinator's teacher." : '',
      `Dotted: one model (${visibleLine(report.centralized.model)}) on all private records together, a bound that no federation may reach for.`,
      axisNote(view.shareDomain),
      drawnNote(report),
      settingsNote(report),
    ].filter(Boolean).join(' '),
    svg: { wide: draw(view, 'wide'), narrow: draw(view, 'narrow') },
    data: { columns: ['round', ...columns.map(({ head }) => head)], rows: allRounds.map((round) => [String(round), ...columns.map(({ cell }) => cell(round))]) },
  };
}

interface RoundsView {
  readonly report: RunReport;
  readonly drawn: readonly ClientResult[];
  readonly roundDomain: readonly [number, number];
  readonly shareDomain: readonly [number, number];
  readonly title: string;
  readonly description: string;
}

function roundsInOnePanel(view: RoundsView, layout: Layout): string {
  const { report, drawn } = view;
  const width = WIDTH[layout];
  const longest = Math.max(...['centralized', ...drawn.map((client) => visibleLine(client.name))].map((name) => textWidth(name)));
  const labelWidth = Math.min(layout === 'wide' ? 260 : 146, longest + textWidth('100.0%') + 34);
  const box = { left: 44, right: width - labelWidth - 10, top: 60, bottom: layout === 'wide' ? 380 : 340 };
  const x = linearScale(view.roundDomain, [box.left + 8, box.right - 4]);
  const y = linearScale(view.shareDomain, [box.bottom, box.top]);
  const body: string[] = [...shareAxis(y, box), ...roundAxis(x, box, layout)];

  const bound = report.centralized.accuracy;
  const labels: { readonly y: number; readonly name: string; readonly value: string; readonly mark: string; readonly from: number }[] = [];
  if (Number.isFinite(bound)) {
    body.push(line(box.left, y(bound), box.right, y(bound), `ln thin dot k${TEACHER}`));
    labels.push({ y: y(bound), name: 'centralized', value: percentSign(bound), mark: '', from: box.right });
  }
  for (const [index, client] of drawn.entries()) {
    const alone = toPoints(client.localOnlyByRound, x, y);
    const federated = toPoints(client.byRound, x, y);
    body.push(polyline(alone, `ln thin da k${index}`), ...thinned(alone).map(([px, py]) => marker(px, py, index, 'hollow', 3)));
    body.push(polyline(federated, `ln k${index}`), ...thinned(federated).map(([px, py]) => marker(px, py, index, 'solid')));
    const end = federated.at(-1) ?? [x(view.roundDomain[1]), y(client.federated)];
    if (Number.isFinite(end[1])) labels.push({ y: end[1], name: client.name, value: percentSign(lastAccuracy(client.byRound) ?? client.federated), mark: String(index), from: end[0] + 5 });
  }
  const ofTeacher = toPoints(report.teacher.byRound, x, y);
  body.push(polyline(ofTeacher, `ln thin k${TEACHER}`), ...thinned(ofTeacher).map(([px, py]) => marker(px, py, TEACHER, 'solid', 3.5)));
  const endOfTeacher = ofTeacher.at(-1);
  if (endOfTeacher) labels.push({ y: endOfTeacher[1], name: 'teacher', value: percentSign(lastAccuracy(report.teacher.byRound)), mark: String(TEACHER), from: endOfTeacher[0] + 5 });

  const labelX = box.right + (layout === 'wide' ? 22 : 16);
  const rows = spread(labels.map((label) => label.y), 17, box.top + 2, box.bottom - 2);
  for (const [index, label] of labels.entries()) {
    const row = rows[index]!;
    body.push(polyline([[label.from + 1, label.y], [box.right + 4, label.y], [labelX - 8, row]], 'ld'));
    const valueWidth = textWidth(label.value);
    if (label.mark !== '') body.push(marker(labelX, row, Number(label.mark), 'solid'));
    else body.push(line(labelX - 5, row, labelX + 5, row, `ln thin dot k${TEACHER}`));
    body.push(fittedText(labelX + 10, row + 4, visibleLine(label.name), width - labelX - 14 - valueWidth, ''));
    body.push(text(width, row + 4, label.value, 'e b'));
  }
  body.push(...key(layout, [
    { name: 'federated', line: `ln k${TEACHER}` },
    { name: 'local only', line: `ln thin da k${TEACHER}` },
  ]));
  return svgImage({ id: `accuracy-by-round-${layout}`, width, height: box.bottom + 46, title: view.title, description: view.description, body });
}

function roundsInPanels(view: RoundsView, layout: Layout): string {
  const { report, drawn } = view;
  const width = WIDTH[layout];
  const columns = layout === 'wide' ? 4 : 2;
  const left = 40;
  const gap = 14;
  const panelWidth = (width - left - 6 - gap * (columns - 1)) / columns;
  const panelHeight = 96;
  const rowHeight = panelHeight + 50;
  const top = layout === 'wide' ? 40 : 60;
  const body: string[] = [];
  for (const [index, client] of drawn.entries()) {
    const column = index % columns;
    const panelTop = top + Math.floor(index / columns) * rowHeight + 24;
    const box = { left: left + column * (panelWidth + gap), right: left + column * (panelWidth + gap) + panelWidth, top: panelTop, bottom: panelTop + panelHeight };
    const x = linearScale(view.roundDomain, [box.left + 6, box.right - 6]);
    const y = linearScale(view.shareDomain, [box.bottom, box.top]);
    const difference = points(client.federated - client.localOnly);
    body.push(fittedText(box.left, box.top - 8, visibleLine(client.name), panelWidth - textWidth(difference) - 22, 'b'), text(box.right, box.top - 8, difference, 'e'));
    body.push(...shareAxis(y, box, column === 0, 3), line(box.left, box.bottom, box.right, box.bottom, 'ax'));
    for (const round of new Set(view.roundDomain)) body.push(text(x(round), box.bottom + 15, String(round), 'mu sm m'));
    if (Number.isFinite(report.centralized.accuracy)) body.push(line(box.left, y(report.centralized.accuracy), box.right, y(report.centralized.accuracy), `ln thin dot k${TEACHER}`));
    const ofTeacher = toPoints(report.teacher.byRound, x, y);
    body.push(polyline(ofTeacher, `ln thin k${TEACHER}`));
    const lastOfTeacher = ofTeacher.at(-1);
    if (lastOfTeacher) body.push(marker(...lastOfTeacher, TEACHER, 'solid', 3));
    for (const [series, curve] of [[LOCAL_ONLY, client.localOnlyByRound], [FEDERATED, client.byRound]] as const) {
      const line_ = toPoints(curve, x, y);
      body.push(polyline(line_, `ln k${series}${series === LOCAL_ONLY ? ' thin da' : ''}`));
      const last = line_.at(-1);
      if (last) body.push(marker(...last, series, series === LOCAL_ONLY ? 'hollow' : 'solid', 3.2));
    }
  }
  const height = top + Math.ceil(drawn.length / columns) * rowHeight + 14;
  body.push(text(left + (width - left) / 2, height - 10, 'round', 'mu m'));
  body.push(...key(layout, [
    { name: 'federated', line: `ln k${FEDERATED}`, mark: [FEDERATED, 'solid'] },
    { name: 'local only', line: `ln thin da k${LOCAL_ONLY}`, mark: [LOCAL_ONLY, 'hollow'] },
    ...(report.teacher.byRound.length > 0 ? [{ name: 'teacher', line: `ln thin k${TEACHER}`, mark: [TEACHER, 'solid'] as const }] : []),
    { name: 'centralized', line: `ln thin dot k${TEACHER}` },
  ]));
  return svgImage({ id: `accuracy-by-round-${layout}`, width, height, title: view.title, description: view.description, body });
}

// --- local only against federated -------------------------------------------------------------------------------------

function gainByClientFigure(report: RunReport): Figure | undefined {
  const { clients } = report;
  if (clients.length === 0) return undefined;
  const title = 'Alone and in the federation, client by client';
  const alone = summarize(clients.map((client) => client.localOnly));
  const federated = summarize(clients.map((client) => client.federated));
  const gain = summarize(gains(clients));
  const drawn = clients.slice(0, MAX_DRAWN_CLIENTS);
  const reach = ({ mean, stddev }: typeof alone) => (mean === null ? [] : [mean - (stddev ?? 0), mean + (stddev ?? 0)].map((value) => Math.min(1, Math.max(0, value))));
  const domain = shareDomain([...drawn.flatMap((client) => [client.localOnly, client.federated]), ...reach(alone), ...reach(federated), report.centralized.accuracy]);
  const description = [
    'Dumbbell chart of test accuracy in percent: an open square for local only, a filled dot for the federation.',
    ...drawn.map((client) => `${visibleLine(client.name)}: ${percentSign(client.localOnly)} to ${percentSign(client.federated)}.`),
    `Mean: ${meanWithDeviation(alone)} to ${meanWithDeviation(federated)}.`,
  ].join(' ');

  const draw = (layout: Layout): string => {
    const width = WIDTH[layout];
    const rowHeight = 28;
    const box = { left: layout === 'wide' ? 170 : 84, right: width - (layout === 'wide' ? 112 : 82), top: 48, bottom: 48 + rowHeight * (drawn.length + 2) + 14 };
    const inset = layout === 'wide' ? 38 : 22;
    const x = linearScale(domain, [box.left + inset, box.right - inset]);
    const body: string[] = [...shareAxisBelow(x, box, layout)];
    body.push(text(width, box.top - 26, 'gain,', 'mu e'), text(width, box.top - 12, 'points', 'mu e'));
    for (const [index, client] of drawn.entries()) {
      const y = box.top + rowHeight * (index + 0.5);
      const [from, to] = [x(client.localOnly), x(client.federated)];
      body.push(fittedText(0, y + 4, visibleLine(client.name), box.left - 8));
      if (Number.isFinite(client.localOnly) && Number.isFinite(client.federated)) {
        body.push(line(from, y, to, y, 'ax'));
        const [left, right] = from <= to ? [client.localOnly, client.federated] : [client.federated, client.localOnly];
        body.push(text(Math.min(from, to) - 9, y + 4, percent(left), 'sm e halo'), text(Math.max(from, to) + 9, y + 4, percent(right), 'sm halo'));
      }
      if (Number.isFinite(client.localOnly)) body.push(marker(from, y, LOCAL_ONLY, 'hollow', 5));
      if (Number.isFinite(client.federated)) body.push(marker(to, y, FEDERATED, 'solid', 4.5));
      body.push(text(width, y + 4, points(client.federated - client.localOnly), 'e b'));
    }
    const rule = box.top + rowHeight * drawn.length + 7;
    body.push(line(0, rule, width, rule, 'ax'));
    for (const [index, [summary, series, name]] of ([[alone, LOCAL_ONLY, 'local only'], [federated, FEDERATED, 'federated']] as const).entries()) {
      const y = rule + 7 + rowHeight * (index + 0.5);
      body.push(text(0, y + 4, layout === 'wide' ? `mean ± sd, ${name}` : series === LOCAL_ONLY ? 'mean, alone' : 'mean, fed.'));
      if (summary.mean === null) continue;
      if (summary.stddev !== null) body.push(whisker([x(Math.max(0, summary.mean - summary.stddev)), y], [x(Math.min(1, summary.mean + summary.stddev)), y], series));
      body.push(marker(x(summary.mean), y, series, series === LOCAL_ONLY ? 'hollow' : 'solid', 5), text(width, y + 4, meanWithDeviation(summary), 'e b'));
    }
    if (Number.isFinite(report.centralized.accuracy)) {
      const bound = x(report.centralized.accuracy);
      body.splice(0, 0, line(bound, box.top - 8, bound, box.bottom, `ln thin dot k${TEACHER}`));
    }
    body.push(...key(layout, [
      { name: 'local only', mark: [LOCAL_ONLY, 'hollow'] },
      { name: 'federated', mark: [FEDERATED, 'solid'] },
      { name: layout === 'wide' ? `centralized ${percentSign(report.centralized.accuracy)}` : 'centralized', line: `ln thin dot k${TEACHER}` },
    ]));
    return svgImage({ id: `gain-by-client-${layout}`, width, height: box.bottom + 46, title, description, body });
  };

  return {
    id: 'gain-by-client',
    title,
    caption: [
      `Final test accuracy of each client's student: trained on its own records alone (open square), and with the federation (dot). Mean gain ${meanWithDeviation(gain, true)} percentage points.`,
      gain.stddev === null ? 'With one client there is no standard deviation.' : `± is the standard deviation over the ${plural(gain.count, 'client')}, not over repetitions of the run.`,
      axisNote(domain),
      drawnNote(report),
      settingsNote(report),
      samplingNote(report),
    ].filter(Boolean).join(' '),
    svg: { wide: draw('wide'), narrow: draw('narrow') },
    data: {
      columns: ['client', 'model', 'local only', 'federated', 'gain'],
      rows: [
        ...clients.map((client) => [visibleLine(client.name), visibleLine(client.model), dataShare(client.localOnly), dataShare(client.federated), dataShare(client.federated - client.localOnly)]),
        ['mean', '', dataShare(alone.mean), dataShare(federated.mean), dataShare(gain.mean)],
        ['standard deviation', '', dataShare(alone.stddev), dataShare(federated.stddev), dataShare(gain.stddev)],
      ],
    },
  };
}

// --- class histogram --------------------------------------------------------------------------------------------------

function classHistogramFigure(report: RunReport): Figure | undefined {
  const { clients, task } = report;
  const classes = Math.max(task.numClasses, ...clients.map((client) => client.classHistogram.length));
  if (!clients.some((client) => client.classHistogram.some((count) => count > 0)) || !Number.isFinite(classes) || classes < 1) return undefined;
  const title = 'Share of each class, client by client';
  const drawn = clients.slice(0, MAX_DRAWN_CLIENTS);
  const shares = drawn.map((client) => {
    const counts = Array.from({ length: classes }, (_, index) => Math.max(0, client.classHistogram[index] ?? 0));
    const total = counts.reduce((sum, count) => sum + count, 0);
    return { total, shares: counts.map((count) => (total > 0 ? count / total : 0)) };
  });
  const largest = Math.max(...shares.flatMap((row) => row.shares));
  const description = [
    `Heat strip: one row a client, one column for each of the ${classes} classes, darker for a larger share of the client's private records.`,
    ...drawn.map((client, index) => {
      const row = shares[index]!;
      const top = row.shares.map((share, label) => ({ share, label })).sort((a, b) => b.share - a.share || a.label - b.label).slice(0, 2);
      return `${visibleLine(client.name)}: mostly class ${top.map(({ share, label }) => `${label} (${percentSign(share, 0)})`).join(' and ')}.`;
    }),
  ].join(' ');

  const draw = (layout: Layout): string => {
    const width = WIDTH[layout];
    const left = layout === 'wide' ? 170 : 84;
    const right = width - (layout === 'wide' ? 76 : 50);
    const rowHeight = 26;
    const top = 44;
    const cellWidth = (right - left) / classes;
    const hasNumbers = cellWidth >= 21;
    const body: string[] = [text(left, 14, 'class', 'mu'), text(width, 14, 'private', 'mu e'), text(width, 28, 'records', 'mu e')];
    const columns = Array.from({ length: classes }, (_, index) => index);
    const centre = (index: number) => left + cellWidth * (index + 0.5);
    const extent = (index: number) => [centre(index) - textWidth(String(index)) / 2, centre(index) + textWidth(String(index)) / 2] as const;
    for (const index of withoutCollisions(columns, extent, 3)) body.push(text(centre(index), top - 8, String(index), 'm'));
    for (const [row, client] of drawn.entries()) {
      const y = top + row * rowHeight;
      body.push(fittedText(0, y + rowHeight / 2 + 4, visibleLine(client.name), left - 8));
      for (const [index, share] of shares[row]!.shares.entries()) {
        const cellX = left + cellWidth * index;
        const place = `x="${coordinate(cellX)}" y="${coordinate(y)}" width="${coordinate(cellWidth)}" height="${rowHeight}"`;
        body.push(share === 0 ? `<rect ${place} class="box"/>` : `<rect ${place} class="cell" fill-opacity="${coordinate(Math.max(0.05, (share / largest) * MAX_HEAT))}"/>`);
        if (hasNumbers && share > 0) body.push(text(centre(index), y + rowHeight / 2 + 4, share < 0.005 ? '<1' : percent(share, 0), 'sm m'));
      }
      body.push(text(width, y + rowHeight / 2 + 4, integer(client.privateRecords), 'e'));
    }
    const bottom = top + drawn.length * rowHeight;
    const steps = [0, 0.25, 0.5, 0.75, 1];
    for (const [index, step] of steps.entries()) {
      const place = `x="${coordinate(left + index * 24)}" y="${coordinate(bottom + 14)}" width="24" height="12"`;
      body.push(step === 0 ? `<rect ${place} class="box"/>` : `<rect ${place} class="cell" fill-opacity="${coordinate(step * MAX_HEAT)}"/>`);
    }
    body.push(text(left - 6, bottom + 24, '0%', 'mu e'), text(left + steps.length * 24 + 6, bottom + 24, layout === 'wide' ? `${percentSign(largest, 0)} of a client's records` : percentSign(largest, 0), 'mu'));
    return svgImage({ id: `class-histogram-${layout}`, width, height: bottom + 32, title, description, body });
  };

  return {
    id: 'class-histogram',
    title,
    caption: [
      `Share of each client's private records by class, in percent of that client's records; an empty box is a class the client has never seen.`,
      `Split: ${visibleLine(task.split)}.`,
      'A coordinator never learns this: it is drawn because here one reader owns all the data.',
      drawnNote(report),
      settingsNote(report),
    ].filter(Boolean).join(' '),
    svg: { wide: draw('wide'), narrow: draw('narrow') },
    data: {
      columns: ['client', 'private records', ...Array.from({ length: classes }, (_, index) => `class ${index}`)],
      rows: clients.map((client) => [visibleLine(client.name), integer(client.privateRecords), ...Array.from({ length: classes }, (_, index) => integer(client.classHistogram[index] ?? 0))]),
    },
  };
}
/** Text in ink stays readable (4.5:1) on this much of the heat color, in light and in dark. */
const MAX_HEAT = 0.75;

// --- bytes ------------------------------------------------------------------------------------------------------------

function bytesFigure(report: RunReport): Figure | undefined {
  const { clients } = report;
  const sizes = clients.flatMap((client) => [bytesMoved(client), client.weightSharingBytes]).filter((size) => Number.isFinite(size) && size > 0);
  if (sizes.length === 0) return undefined;
  const title = 'Bytes moved, against sharing weights';
  const drawn = clients.slice(0, MAX_DRAWN_CLIENTS);
  const domain = [Math.min(...sizes) / 1.3, Math.max(...sizes) * 1.3] as const;
  const moved = clients.reduce((sum, client) => sum + bytesMoved(client), 0);
  const weights = clients.reduce((sum, client) => sum + client.weightSharingBytes, 0);
  const description = [
    'Dot chart of bytes on a logarithmic axis: a filled dot for the federation, an open square for sharing weights every round.',
    ...drawn.map((client) => `${visibleLine(client.name)}: ${bytes(bytesMoved(client))} against ${bytes(client.weightSharingBytes)}.`),
  ].join(' ');

  const draw = (layout: Layout): string => {
    const width = WIDTH[layout];
    const rowHeight = 28;
    const box = { left: layout === 'wide' ? 170 : 84, right: width - (layout === 'wide' ? 100 : 78), top: 34, bottom: 34 + rowHeight * drawn.length };
    const inset = layout === 'wide' ? 62 : 12;
    const x = logScale(domain, [box.left + inset, box.right - inset]);
    const name = (tick: number) => bytes(tick).replace(/\.0+ /, ' ');
    const extent = (tick: number) => [x(tick) - textWidth(name(tick)) / 2, x(tick) + textWidth(name(tick)) / 2] as const;
    const ticks = withoutCollisions(logTicks(domain), extent, 10);
    const body: string[] = ticks.flatMap((tick) => [line(x(tick), box.top, x(tick), box.bottom, 'gr'), text(x(tick), box.bottom + 17, name(tick), 'mu m')]);
    body.push(text((box.left + box.right) / 2, box.bottom + 36, 'bytes up and down, log scale', 'mu m'));
    for (const [index, client] of drawn.entries()) {
      const y = box.top + rowHeight * (index + 0.5);
      const own = bytesMoved(client);
      const shared = client.weightSharingBytes;
      body.push(fittedText(0, y + 4, visibleLine(client.name), box.left - 8));
      if (own > 0 && shared > 0) body.push(line(x(own), y, x(shared), y, 'ax'));
      for (const [size, other, series, fill] of [[shared, own, LOCAL_ONLY, 'hollow'], [own, shared, FEDERATED, 'solid']] as const) {
        if (!(size > 0)) continue;
        body.push(marker(x(size), y, series, fill, 5));
        const isLeft = size === other ? series === FEDERATED : size < other;
        if (layout === 'wide') body.push(text(x(size) + (isLeft ? -9 : 9), y + 4, bytes(size), `sm halo${isLeft ? ' e' : ''}`));
      }
      body.push(text(width, y + 4, comparedWithWeights(own, shared), 'e b'));
    }
    body.push(...key(layout, [
      { name: 'moved here', mark: [FEDERATED, 'solid'] },
      { name: 'weight sharing', mark: [LOCAL_ONLY, 'hollow'] },
    ]));
    return svgImage({ id: `bytes-${layout}`, width, height: box.bottom + 46, title, description, body });
  };

  return {
    id: 'bytes',
    title,
    caption: [
      `Dot: what each client moved in ${plural(report.task.rounds, 'round')}, up and down together. Open square: what sending the weights of the same student up and down every round would have moved. The axis is logarithmic: distance is a ratio, not a difference. 1 kB is 1000 bytes.`,
      `All ${plural(clients.length, 'client')} together: ${bytes(moved)} against ${bytes(weights)} (${comparedWithWeights(moved, weights)}).`,
      drawnNote(report),
      settingsNote(report),
    ].filter(Boolean).join(' '),
    svg: { wide: draw('wide'), narrow: draw('narrow') },
    data: {
      columns: ['client', 'model', 'parameters', 'bytes up', 'bytes down', 'bytes moved', 'weight sharing'],
      rows: clients.map((client) => [visibleLine(client.name), visibleLine(client.model), integer(client.parameterCount), integer(client.bytesUp), integer(client.bytesDown), integer(bytesMoved(client)), integer(client.weightSharingBytes)]),
    },
  };
}

// --- accuracy against epsilon -----------------------------------------------------------------------------------------

interface EpsilonPoint {
  readonly epsilon: number;
  readonly federated: ReturnType<typeof summarize>;
  readonly localOnly: ReturnType<typeof summarize>;
  readonly teacher: number | null;
}

function accuracyByEpsilonFigure(report: RunReport): Figure | undefined {
  const mechanisms = new Map<string, EpsilonPoint[]>();
  for (const result of report.noisy) {
    if (!(result.epsilon > 0) || !Number.isFinite(result.epsilon)) continue;
    const name = visibleLine(result.mechanism);
    const group = mechanisms.get(name) ?? [];
    group.push({ epsilon: result.epsilon, federated: summarize(result.federated), localOnly: summarize(result.localOnly), teacher: result.teacher });
    mechanisms.set(name, group);
  }
  if (mechanisms.size === 0) return undefined;
  for (const group of mechanisms.values()) group.sort((a, b) => a.epsilon - b.epsilon);
  const noisyPoints = [...mechanisms.values()].flat();
  const clean: EpsilonPoint = {
    epsilon: Infinity,
    federated: summarize(report.clients.map((client) => client.federated)),
    localOnly: summarize(report.clients.map((client) => client.localOnly)),
    teacher: report.teacher.final,
  };
  // One line for local only: noise does not touch it, so results of the same epsilon repeat it.
  const localPoints = noisyPoints.filter((point, index) => noisyPoints.findIndex((other) => other.epsilon === point.epsilon) === index).sort((a, b) => a.epsilon - b.epsilon);
  const all = [...noisyPoints, clean];
  const ends = ({ mean, stddev }: EpsilonPoint['federated']) => (mean === null ? [] : [mean - (stddev ?? 0), mean + (stddev ?? 0)]);
  const chance = report.task.numClasses > 0 ? 1 / report.task.numClasses : NaN;
  const values = all.flatMap((point) => [...ends(point.federated), ...ends(point.localOnly), ...(point.teacher === null ? [] : [point.teacher])]).filter(Number.isFinite);
  const showsChance = Number.isFinite(chance) && values.length > 0 && Math.min(...values) < chance + 0.15;
  const domain = shareDomain(showsChance ? [...values, chance] : values);
  const epsilons = [...new Set(noisyPoints.map((point) => point.epsilon))].sort((a, b) => a - b);
  const smallest = epsilons[0]!;
  const largest = epsilons.at(-1)!;
  const title = 'What noise costs: accuracy against epsilon';
  const description = [
    'Test accuracy in percent, mean and standard deviation over clients, against epsilon on a logarithmic axis; smaller epsilon means more noise and more privacy.',
    ...[...mechanisms].flatMap(([name, group]) => group.map((point) => `${name}, epsilon ${epsilonText(point.epsilon)}: federated ${meanWithDeviation(point.federated)}, local only ${meanWithDeviation(point.localOnly)}.`)),
    `No noise: federated ${meanWithDeviation(clean.federated)}, local only ${meanWithDeviation(clean.localOnly)}.`,
  ].join(' ');
  const federatedSeries = (index: number) => (index === 0 ? FEDERATED : 2 + ((index - 1) % 3));
  const hasTeacher = all.some((point) => point.teacher !== null && Number.isFinite(point.teacher));

  const draw = (layout: Layout): string => {
    const width = WIDTH[layout];
    const slot = layout === 'wide' ? 110 : 74;
    const keyRows = layout === 'narrow' && mechanisms.size + (hasTeacher ? 2 : 1) > 2 ? Math.ceil((mechanisms.size + 2) / 2) : 1;
    const top = 40 + keyRows * 20;
    const box = { left: 44, right: width - 6, top, bottom: top + (layout === 'wide' ? 280 : 250) };
    const breakX = box.right - slot;
    const x = logScale([smallest, largest], [box.left + 30, breakX - (layout === 'wide' ? 46 : 34)]);
    const cleanX = breakX + slot / 2;
    const y = linearScale(domain, [box.bottom, box.top]);
    const body: string[] = [...shareAxis(y, box)];
    const extent = (value: number) => [x(value) - textWidth(epsilonText(value)) / 2, x(value) + textWidth(epsilonText(value)) / 2] as const;
    for (const value of withoutCollisions(epsilons, extent)) body.push(line(x(value), box.bottom, x(value), box.bottom + 4, 'ax'), text(x(value), box.bottom + 18, epsilonText(value), 'm'));
    body.push(text(cleanX, box.bottom + 18, 'no noise', 'm'));
    body.push(text(box.left, box.bottom + 37, '← more private', 'mu'), text(breakX, box.bottom + 37, layout === 'wide' ? 'less noise →' : 'ε, log scale', 'mu e'), text(0, box.top - 12, 'test accuracy', 'mu'));
    if (layout === 'wide') body.push(text((box.left + breakX) / 2, box.bottom + 37, 'ε, log scale', 'mu m'));
    body.push(`<path d="M${coordinate(breakX)} ${coordinate(box.top)}V${coordinate(box.bottom)}" class="gr da"/>`);
    if (showsChance) body.push(line(box.left, y(chance), box.right, y(chance), 'ax dot'), text(box.right, y(chance) - 5, `chance ${percentSign(chance, 0)}`, 'mu sm e halo'));

    const labels: string[] = [];
    const series: { readonly points: readonly EpsilonPoint[]; readonly pick: 'federated' | 'localOnly'; readonly index: number; readonly shift: number }[] = [
      { points: localPoints, pick: 'localOnly', index: LOCAL_ONLY, shift: 5 },
      ...[...mechanisms.values()].map((group, index) => ({ points: group, pick: 'federated' as const, index: federatedSeries(index), shift: -5 - index * 7 })),
    ];
    for (const { points: group, pick, index, shift } of series) {
      const place = (point: EpsilonPoint) => (point === clean ? cleanX : x(point.epsilon)) + shift;
      const withMean = group.filter((point) => point[pick].mean !== null);
      const upper = withMean.map((point): Point => [place(point), y(point[pick].mean! + (point[pick].stddev ?? 0))]);
      const lower = withMean.map((point): Point => [place(point), y(point[pick].mean! - (point[pick].stddev ?? 0))]);
      const fill = pick === 'federated' ? 'solid' : 'hollow';
      body.push(band(upper, lower, `bd k${index}`));
      body.push(polyline(withMean.map((point): Point => [place(point), y(point[pick].mean!)]), `ln k${index}${pick === 'localOnly' ? ' thin da' : ''}`));
      const isFirst = index === FEDERATED || pick === 'localOnly';
      for (const point of isFirst ? [...withMean, ...(clean[pick].mean === null ? [] : [clean])] : withMean) {
        const { mean, stddev } = point[pick];
        const px = place(point);
        if (stddev !== null) body.push(whisker([px, y(mean! - stddev)], [px, y(mean! + stddev)], index));
        body.push(marker(px, y(mean!), index, fill, 4.5));
        if (mean === null || (mechanisms.size > 1 && point !== clean && pick === 'federated')) continue;
        // Over the upper of the two series and under the lower, so that the two numbers never meet; beside it where the teacher is in the way.
        const rival = point[pick === 'federated' ? 'localOnly' : 'federated'].mean ?? mean;
        const isUpper = mean > rival || (mean === rival && pick === 'federated');
        const labelY = isUpper ? y(mean + (stddev ?? 0)) - 8 : y(mean - (stddev ?? 0)) + 16;
        const isBeside = point === clean || (point.teacher !== null && Math.abs(y(point.teacher) - labelY + 4) < 14);
        labels.push(isBeside ? text(px + (shift < 0 ? -9 : 9), y(mean) + 4, percent(mean), `sm halo${shift < 0 ? ' e' : ''}`) : text(px, labelY, percent(mean), 'sm m halo'));
      }
    }
    const teachers = (group: readonly EpsilonPoint[]) => group.filter((point) => point.teacher !== null && Number.isFinite(point.teacher));
    for (const group of mechanisms.values()) body.push(polyline(teachers(group).map((point): Point => [x(point.epsilon), y(point.teacher!)]), `ln thin dot k${TEACHER}`));
    for (const point of teachers(all)) body.push(marker(point === clean ? cleanX : x(point.epsilon), y(point.teacher!), TEACHER, 'solid', 4));
    body.push(...labels);
    body.push(...key(layout, [
      ...[...mechanisms.keys()].map((name, index) => ({ name: fitText(mechanisms.size === 1 ? 'federated' : `federated, ${name}`, 140), line: `ln k${federatedSeries(index)}`, mark: [federatedSeries(index), 'solid'] as const })),
      { name: 'local only', line: `ln thin da k${LOCAL_ONLY}`, mark: [LOCAL_ONLY, 'hollow'] },
      ...(hasTeacher ? [{ name: 'teacher', line: `ln thin dot k${TEACHER}`, mark: [TEACHER, 'solid'] as const }] : []),
    ]));
    return svgImage({ id: `accuracy-by-epsilon-${layout}`, width, height: box.bottom + 46, title, description, body });
  };

  const row = (name: string, value: string, point: EpsilonPoint) => [
    name,
    value,
    dataShare(point.federated.mean),
    dataShare(point.federated.stddev),
    dataShare(point.localOnly.mean),
    dataShare(point.localOnly.stddev),
    dataShare(point.teacher),
  ];
  return {
    id: 'accuracy-by-epsilon',
    title,
    caption: [
      `Final test accuracy, mean over the ${plural(report.clients.length, 'client')}; bars and bands are ± one standard deviation over the clients. Left to right, epsilon grows: less noise, less privacy; on a logarithmic axis. 'No noise' stands apart, because its epsilon is infinite.`,
      `Mechanism: ${[...mechanisms.keys()].join(', ')}.`,
      hasTeacher ? "Crosses: the coordinator's teacher." : '',
      'Where federated lies below local only, taking part did not pay at that epsilon. Bands are wide because clients differ from each other, also without noise: compare means, or client by client in the table of results.',
      axisNote(domain),
      settingsNote(report),
    ].filter(Boolean).join(' '),
    svg: { wide: draw('wide'), narrow: draw('narrow') },
    data: {
      columns: ['mechanism', 'epsilon', 'federated, mean', 'federated, sd', 'local only, mean', 'local only, sd', 'teacher'],
      rows: [...[...mechanisms].flatMap(([name, group]) => group.map((point) => row(name, epsilonText(point.epsilon), point))), row('no noise', '∞', clean)],
    },
  };
}

// --- shared parts -----------------------------------------------------------------------------------------------------

interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** Vertical axis of accuracies with grid lines; its unit stands over it. */
function shareAxis(y: Scale, box: Box, hasLabels = true, most = 6): string[] {
  const ticks = niceTicks(y.domain, most, 0.01);
  const lines = ticks.map((tick) => line(box.left, y(tick), box.right, y(tick), 'gr'));
  if (!hasLabels) return lines;
  return [...lines, ...ticks.map((tick) => text(box.left - 6, y(tick) + 4, percentSign(tick, 0), most < 6 ? 'mu sm e' : 'mu e'))];
}

/** Horizontal axis of accuracies. */
function shareAxisBelow(x: Scale, box: Box, layout: Layout): string[] {
  const ticks = niceTicks(x.domain, layout === 'wide' ? 8 : 4, 0.01);
  const extent = (tick: number) => [x(tick) - textWidth(percentSign(tick, 0)) / 2, x(tick) + textWidth(percentSign(tick, 0)) / 2] as const;
  return [
    ...ticks.map((tick) => line(x(tick), box.top - 2, x(tick), box.bottom, 'gr')),
    ...withoutCollisions(ticks, extent).map((tick) => text(x(tick), box.bottom + 17, percentSign(tick, 0), 'mu m')),
    text((box.left + box.right) / 2, box.bottom + 36, 'test accuracy', 'mu m'),
  ];
}

function roundAxis(x: Scale, box: Box, layout: Layout): string[] {
  const ticks = niceTicks(x.domain, layout === 'wide' ? 10 : 5, 1);
  return [
    line(box.left, box.bottom, box.right, box.bottom, 'ax'),
    ...ticks.flatMap((tick) => [line(x(tick), box.bottom, x(tick), box.bottom + 4, 'ax'), text(x(tick), box.bottom + 18, String(tick), 'mu m')]),
    text((box.left + box.right) / 2, box.bottom + 37, 'round', 'mu m'),
    text(0, box.top - 12, 'test accuracy', 'mu'),
  ];
}

interface KeyEntry {
  readonly name: string;
  readonly line?: string;
  readonly mark?: readonly [series: number, fill: 'solid' | 'hollow'];
}

/** What line and marker mean, in one row over the figure, wrapped where it is narrow. */
function key(layout: Layout, entries: readonly KeyEntry[]): string[] {
  const body: string[] = [];
  let x = 0;
  let y = 12;
  for (const entry of entries) {
    const sample = entry.line === undefined ? 14 : 28;
    const width = sample + 6 + textWidth(entry.name) + 16;
    if (x > 0 && x + width - 16 > WIDTH[layout] - (layout === 'wide' ? 110 : 0)) {
      x = 0;
      y += 20;
    }
    if (entry.line !== undefined) body.push(line(x, y, x + sample, y, entry.line));
    if (entry.mark !== undefined) body.push(marker(x + sample / 2, y, entry.mark[0], entry.mark[1], 4.5));
    body.push(text(x + sample + 6, y + 4, entry.name));
    x += width;
  }
  return body;
}

function toPoints(curve: readonly RoundAccuracy[], x: Scale, y: Scale): Point[] {
  return curve
    .filter(({ round, accuracy }) => Number.isFinite(round) && Number.isFinite(accuracy))
    .sort((a, b) => a.round - b.round)
    .map(({ round, accuracy }): Point => [x(round), y(accuracy)]);
}

/** At most about a dozen markers on a line, the last among them. */
function thinned(line_: readonly Point[]): Point[] {
  const every = Math.max(1, Math.ceil(line_.length / 12));
  return line_.filter((_, index) => (line_.length - 1 - index) % every === 0);
}

function lastAccuracy(curve: readonly RoundAccuracy[]): number | undefined {
  return curve.length === 0 ? undefined : curve.reduce((last, point) => (point.round >= last.round ? point : last)).accuracy;
}

/** Four decimals of a share: what the data behind a figure shows. */
function dataShare(share: number | null | undefined): string {
  return typeof share === 'number' && Number.isFinite(share) ? share.toFixed(4).replace('-', '−') : 'n/a';
}

function axisNote([low]: readonly [number, number]): string {
  return low > 0 ? `The accuracy axis starts at ${percentSign(low, 0)}, not at zero.` : '';
}

function drawnNote(report: RunReport): string {
  return report.clients.length > MAX_DRAWN_CLIENTS ? `Drawn: the first ${MAX_DRAWN_CLIENTS} of ${integer(report.clients.length)} clients; means and data are over all.` : '';
}

function settingsNote({ clients, task }: RunReport): string {
  return `${plural(clients.length, 'client')}, ${visibleLine(task.dataset)}, ${plural(task.rounds, 'round')}, ${plural(task.transferExamples, 'transfer example')}, ${plural(task.testExamples, 'test example')}, seed ${task.seed}.`;
}

function samplingNote({ clients, task }: RunReport): string {
  const widths = clients.flatMap((client) => [client.localOnly, client.federated]).map((accuracy) => samplingHalfWidth(accuracy, task.testExamples)).filter((width) => width !== null);
  return widths.length === 0 ? '' : `With this many test examples one accuracy is uncertain by up to ± ${percent(Math.max(...widths))} points (95%).`;
}
