/** The figures of a trust report, each as two SVG layouts, a caption that names examples, models and settings, and the numbers behind it. Pure. */
import type { Figure } from './figures.ts';
import { fitText } from './svg.ts';
import { coordinate, fittedText, line, linearScale, marker, niceTicks, polyline, svgImage, text, textWidth, whisker, withoutCollisions, SERIES_COUNT, TEACHER, type Layout } from './svg.ts';
import { integer, percent, percentSign, plural, smallNumber, visibleLine } from './format.ts';
import type { TrustModel, TrustReport } from './trust-data.ts';

const WIDTH: Readonly<Record<Layout, number>> = { wide: 840, narrow: 358 };
/** More models than this stay out of the drawings, not out of the tables. */
const MAX_DRAWN = 12;
/** Curves that can be told apart: one a marker. */
const MAX_CURVES = SERIES_COUNT;
const MAX_HEAT = 0.75;

export function renderTrustFigures(report: TrustReport): Figure[] {
  return [reliabilityFigure(report), classFigure(report), agreementFigure(report), attackFigure(report)].filter((figure) => figure !== undefined);
}

/** The teacher is the cross; students count from 0. */
function seriesOf(models: readonly TrustModel[]): number[] {
  let next = 0;
  return models.map((model) => (model.role === 'teacher' ? TEACHER : next++ % TEACHER));
}

function shareText(value: number | null | undefined): string {
  return typeof value === 'number' && Number.isFinite(value) ? value.toFixed(4).replace('-', '−') : 'n/a';
}

export function settingsNote({ data, models, settings }: TrustReport): string {
  return `${plural(models.length, 'model')}, ${plural(data.examples, 'example')} of ${visibleLine(data.source)}, seed ${settings.seed}.`;
}

function drawnNote(all: number, drawn: number): string {
  return all > drawn ? `Drawn: the first ${drawn} of ${all} models; the data are of all.` : '';
}

// --- reliability ------------------------------------------------------------------------------------------------------

function reliabilityFigure(report: TrustReport): Figure {
  const drawn = report.models.slice(0, MAX_DRAWN);
  const title = 'Reliability: does 80% sure mean 80% right?';
  const draw = (layout: Layout): string => {
    const width = WIDTH[layout];
    const columns = layout === 'wide' ? 3 : 1;
    const gap = 26;
    const left = 38;
    const panelWidth = (width - left - gap * (columns - 1)) / columns - (columns > 1 ? 12 : 8);
    const side = layout === 'wide' ? 200 : 240;
    const histogram = 46;
    const top = 66;
    const rowHeight = side + histogram + 84;
    const body: string[] = [];
    for (const [index, model] of drawn.entries()) {
      const x0 = left + (index % columns) * (panelWidth + gap + 12);
      const y0 = top + Math.floor(index / columns) * rowHeight;
      const x = linearScale([0, 1], [x0, x0 + panelWidth]);
      const y = linearScale([0, 1], [y0 + side, y0]);
      const { bins, error } = model.calibration;
      const errorText = `ECE ${error.toFixed(3)}`;
      body.push(fittedText(x0, y0 - 24, visibleLine(model.name), panelWidth, 'b'));
      body.push(text(x0, y0 - 9, `${errorText}, accuracy ${percentSign(model.accuracy)}`, 'mu sm'));
      for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
        body.push(line(x0, y(tick), x0 + panelWidth, y(tick), 'gr'));
        if (index % columns === 0) body.push(text(x0 - 6, y(tick) + 4, percentSign(tick, 0), 'mu sm e'));
      }
      body.push(line(x(0), y(0), x(1), y(1), `ln thin da k${TEACHER}`));
      const series = model.role === 'teacher' ? TEACHER : 0;
      const known = bins.filter(({ count }) => count > 0);
      const most = Math.max(...bins.map(({ count }) => count));
      for (const { meanConfidence, accuracy, interval } of known) {
        body.push(whisker([x(meanConfidence!), y(interval![0])], [x(meanConfidence!), y(interval![1])], series));
        body.push(marker(x(meanConfidence!), y(accuracy!), series, 'solid', 3.4));
      }
      const base = y0 + side + 14 + histogram;
      for (const { low, high, count } of bins) {
        const height = most === 0 ? 0 : (count / most) * histogram;
        if (count > 0) body.push(`<rect x="${coordinate(x(low) + 0.75)}" y="${coordinate(base - height)}" width="${coordinate(x(high) - x(low) - 1.5)}" height="${coordinate(Math.max(height, 1))}" class="mk k${series}"/>`);
      }
      body.push(line(x0, base, x0 + panelWidth, base, 'ax'));
      for (const tick of [0, 0.5, 1]) body.push(text(x(tick), base + 14, percentSign(tick, 0), `mu sm ${tick === 0 ? '' : tick === 1 ? 'e' : 'm'}`));
      // On the side where a classifier of several classes has no confidences.
      body.push(text(x0 + 2, base - histogram + 9, `most in a bin: ${integer(most)}`, 'mu sm'));
    }
    const height = top + Math.ceil(drawn.length / columns) * rowHeight - 34;
    body.push(text(0, 14, 'accuracy', 'mu'));
    body.push(text(left + (width - left) / 2, height - 6, 'confidence', 'mu m'));
    return svgImage({
      id: `reliability-${layout}`,
      width,
      height,
      title,
      description: ['Reliability diagrams: accuracy against confidence, a histogram of confidences below each.', ...drawn.map((model) => `${visibleLine(model.name)}: expected calibration error ${model.calibration.error.toFixed(3)}, mean confidence ${percentSign(model.uncertainty.meanConfidence)}, accuracy ${percentSign(model.accuracy)}.`)].join(' '),
      body,
    });
  };
  return {
    id: 'reliability',
    title,
    caption: [
      'Each point is a bin of examples by confidence (the largest probability): how many of them were right, with the 95% interval (Wilson). On the dashed diagonal a model is as often right as it says; below it, it is too sure of itself. Below each: how many examples have which confidence.',
      `${report.settings.bins} bins of equal width; a bin with few examples says little, as its whisker shows.`,
      drawnNote(report.models.length, drawn.length),
      settingsNote(report),
    ].filter(Boolean).join(' '),
    svg: { wide: draw('wide'), narrow: draw('narrow') },
    data: {
      columns: ['model', 'confidence above', 'to', 'examples', 'mean confidence', 'accuracy', 'low', 'high'],
      rows: report.models.flatMap((model) => model.calibration.bins.filter(({ count }) => count > 0).map((bin) => [visibleLine(model.name), shareText(bin.low), shareText(bin.high), integer(bin.count), shareText(bin.meanConfidence), shareText(bin.accuracy), shareText(bin.interval?.[0]), shareText(bin.interval?.[1])])),
    },
  };
}

// --- classes ----------------------------------------------------------------------------------------------------------

function classFigure(report: TrustReport): Figure {
  const drawn = report.models.slice(0, MAX_DRAWN);
  const { numClasses } = report.data;
  const title = 'Recall of each class';
  const supports = report.models[0]!.classes.map(({ support }) => support);
  const draw = (layout: Layout): string => {
    const width = WIDTH[layout];
    const left = layout === 'wide' ? 150 : 84;
    const right = width - (layout === 'wide' ? 70 : 46);
    const cellWidth = (right - left) / numClasses;
    const hasNumbers = cellWidth >= 21;
    const rowHeight = 26;
    const top = 44;
    const centre = (c: number) => left + cellWidth * (c + 0.5);
    const extent = (c: number) => [centre(c) - textWidth(String(c)) / 2, centre(c) + textWidth(String(c)) / 2] as const;
    const body: string[] = [text(left, 14, 'class', 'mu'), text(width, 14, 'best less', 'mu e'), text(width, 28, 'worst', 'mu e')];
    for (const c of withoutCollisions(Array.from({ length: numClasses }, (_, i) => i), extent, 3)) body.push(text(centre(c), top - 8, String(c), 'm'));
    for (const [row, model] of drawn.entries()) {
      const y = top + row * rowHeight;
      body.push(fittedText(0, y + rowHeight / 2 + 4, visibleLine(model.name), left - 8));
      for (const [c, { recall }] of model.classes.entries()) {
        const place = `x="${coordinate(left + cellWidth * c)}" y="${coordinate(y)}" width="${coordinate(cellWidth)}" height="${rowHeight}"`;
        body.push(recall === null || recall === 1 ? `<rect ${place} class="box"/>` : `<rect ${place} class="cell" fill-opacity="${coordinate(Math.max(0.04, (1 - recall) * MAX_HEAT))}"/>`);
        if (hasNumbers) body.push(text(centre(c), y + rowHeight / 2 + 4, recall === null ? '–' : percent(recall, 0), 'sm m'));
      }
      body.push(text(width, y + rowHeight / 2 + 4, model.recallGap === null ? '–' : percent(model.recallGap.gap, 0), 'e b'));
    }
    const bottom = top + drawn.length * rowHeight;
    for (const [index, missed] of [0, 0.25, 0.5, 0.75, 1].entries()) {
      const place = `x="${coordinate(left + index * 24)}" y="${coordinate(bottom + 14)}" width="24" height="12"`;
      body.push(missed === 0 ? `<rect ${place} class="box"/>` : `<rect ${place} class="cell" fill-opacity="${coordinate(missed * MAX_HEAT)}"/>`);
    }
    body.push(text(left - 6, bottom + 24, '100%', 'mu e'), text(left + 5 * 24 + 6, bottom + 24, layout === 'wide' ? '0% of the class recognised' : '0%', 'mu'));
    return svgImage({
      id: `classes-${layout}`,
      width,
      height: bottom + 34,
      title,
      description: ['Heat strip: one row a model, one column a class, more color where more of the class is missed.', ...drawn.map((model) => (model.recallGap === null ? '' : `${visibleLine(model.name)}: best class ${model.recallGap.best}, worst class ${model.recallGap.worst}, ${percent(model.recallGap.gap, 0)} points apart.`))].filter(Boolean).join(' '),
      body,
    });
  };
  return {
    id: 'classes',
    title,
    caption: [
      `Percent of the examples of each class that were recognised; the more color, the more were missed. At the right: points between the best and the worst class. A class has ${integer(Math.min(...supports))} to ${integer(Math.max(...supports))} examples here, so a cell is uncertain by up to ± ${percent(largestHalfWidth(report.models), 0)} points (95%, Wilson), and a gap of that size may be chance.`,
      drawnNote(report.models.length, drawn.length),
      settingsNote(report),
    ].filter(Boolean).join(' '),
    svg: { wide: draw('wide'), narrow: draw('narrow') },
    data: {
      columns: ['model', 'class', 'examples', 'recall', 'low', 'high', 'taken for it', 'precision'],
      rows: report.models.flatMap((model) => model.classes.map((quality, c) => [visibleLine(model.name), String(c), integer(quality.support), shareText(quality.recall), shareText(quality.interval?.[0]), shareText(quality.interval?.[1]), integer(quality.predicted), shareText(quality.precision)])),
    },
  };
}

function largestHalfWidth(models: readonly TrustModel[]): number {
  return Math.max(0, ...models.flatMap(({ classes }) => classes.flatMap(({ interval }) => (interval === null ? [] : [(interval[1] - interval[0]) / 2]))));
}

// --- explanations -----------------------------------------------------------------------------------------------------

function agreementFigure(report: TrustReport): Figure | undefined {
  const compared = report.models.filter(({ saliency }) => (saliency?.rankCorrelation ?? null) !== null);
  if (compared.length === 0) return undefined;
  const drawn = compared.slice(0, MAX_DRAWN);
  const title = 'Do student and teacher look at the same places?';
  const lows = drawn.flatMap(({ saliency }) => [saliency!.rankCorrelation!.mean - (saliency!.rankCorrelation!.stddev ?? 0), saliency!.control?.rankCorrelation ?? 0, 0]);
  const domain = [Math.max(-1, Math.floor(Math.min(...lows) * 5) / 5), 1] as const;
  const draw = (layout: Layout): string => {
    const width = WIDTH[layout];
    const box = { left: layout === 'wide' ? 150 : 84, right: width - 60, top: 34, bottom: 34 + 28 * drawn.length };
    const x = linearScale(domain, [box.left + 6, box.right]);
    const body: string[] = [marker(8, 11, 0, 'solid', 4.5), text(20, 15, 'same example'), marker(138, 11, 1, 'hollow', 4.5), text(150, 15, layout === 'wide' ? 'another example (control)' : 'another (control)')];
    for (const tick of niceTicks(domain, layout === 'wide' ? 8 : 5, 0.2)) body.push(line(x(tick), box.top - 4, x(tick), box.bottom, 'gr'), text(x(tick), box.bottom + 16, tick.toFixed(1).replace('-', '−'), 'mu m'));
    for (const [row, { name, saliency }] of drawn.entries()) {
      const y = box.top + 28 * (row + 0.5);
      const { mean, stddev } = saliency!.rankCorrelation!;
      body.push(fittedText(0, y + 4, visibleLine(name), box.left - 8));
      if (stddev !== null) body.push(whisker([x(Math.max(-1, mean - stddev)), y], [x(Math.min(1, mean + stddev)), y], 0));
      if (saliency!.control !== null) body.push(marker(x(saliency!.control.rankCorrelation), y, 1, 'hollow', 4.5));
      body.push(marker(x(mean), y, 0, 'solid', 4.5), text(width, y + 4, mean.toFixed(2).replace('-', '−'), 'e b'));
    }
    body.push(text((box.left + box.right) / 2, box.bottom + 36, 'rank correlation of the maps', 'mu m'));
    return svgImage({
      id: `agreement-${layout}`,
      width,
      height: box.bottom + 46,
      title,
      description: ['Dot chart of the rank correlation of saliency maps with the teacher.', ...drawn.map(({ name, saliency }) => `${visibleLine(name)}: ${saliency!.rankCorrelation!.mean.toFixed(2)}, control ${saliency!.control?.rankCorrelation.toFixed(2) ?? 'none'}.`)].join(' '),
      body,
    });
  };
  const number = (value: number | null | undefined) => shareText(value);
  return {
    id: 'agreement',
    title,
    caption: [
      "Spearman's rank correlation between the student's and the teacher's saliency map (size of the loss's gradient at each input), mean over the examples; bars are ± one standard deviation over the examples. The control takes the teacher's map of one example and the student's of another: only what lies above it is agreement about the example.",
      `Compared: at least ${integer(Math.min(...compared.map(({ saliency }) => saliency!.compared)))} examples for each student, those where both maps are not flat.`,
      drawnNote(compared.length, drawn.length),
      settingsNote(report),
    ].filter(Boolean).join(' '),
    svg: { wide: draw('wide'), narrow: draw('narrow') },
    data: {
      columns: ['model', 'examples', 'rank correlation', 'sd', 'control', `top ${compared[0]!.saliency!.topPlaces} overlap`, 'sd', 'control'],
      rows: compared.map(({ name, saliency }) => [visibleLine(name), integer(saliency!.compared), number(saliency!.rankCorrelation?.mean), number(saliency!.rankCorrelation?.stddev), number(saliency!.control?.rankCorrelation), number(saliency!.topOverlap?.mean), number(saliency!.topOverlap?.stddev), number(saliency!.control?.topOverlap)]),
    },
  };
}

// --- attacks ----------------------------------------------------------------------------------------------------------

function attackFigure(report: TrustReport): Figure {
  const drawn = report.models.slice(0, MAX_CURVES);
  const series = seriesOf(drawn);
  const { epsilons, pgdSteps } = report.settings;
  const title = 'Accuracy under attack';
  const draw = (layout: Layout): string => {
    const width = WIDTH[layout];
    const columns = layout === 'wide' ? 2 : 1;
    const left = 42;
    const body: string[] = [];
    let [keyX, keyY] = [0, 12];
    for (const [index, model] of drawn.entries()) {
      const name = fitText(visibleLine(model.name), 150);
      const entry = 28 + 6 + textWidth(name) + 18;
      if (keyX > 0 && keyX + entry - 18 > width) [keyX, keyY] = [0, keyY + 20];
      body.push(line(keyX, keyY, keyX + 28, keyY, curveClass(model, series[index]!)), marker(keyX + 14, keyY, series[index]!, 'solid', 4), text(keyX + 34, keyY + 4, name));
      keyX += entry;
    }
    const panelWidth = layout === 'wide' ? (width - left - 34) / 2 : width - left - 6;
    const panelHeight = 220;
    const top = keyY + 44;
    for (const [panel, name] of (['FGSM, one step', `PGD, ${pgdSteps} steps`] as const).entries()) {
      const x0 = left + (panel % columns) * (panelWidth + 34);
      const y0 = top + Math.floor(panel / columns) * (panelHeight + 74);
      const x = linearScale([0, epsilons.at(-1)!], [x0 + 4, x0 + panelWidth - 8]);
      const y = linearScale([0, 1], [y0 + panelHeight, y0]);
      body.push(text(x0, y0 - 12, name, 'b'));
      for (const tick of niceTicks([0, 1], 5)) body.push(line(x0, y(tick), x0 + panelWidth, y(tick), 'gr'), ...(panel % columns === 0 ? [text(x0 - 6, y(tick) + 4, percentSign(tick, 0), 'mu e')] : []));
      body.push(line(x0, y0 + panelHeight, x0 + panelWidth, y0 + panelHeight, 'ax'));
      const chance = 1 / report.data.numClasses;
      body.push(line(x0, y(chance), x0 + panelWidth, y(chance), `ln thin dot k${TEACHER}`));
      for (const tick of niceTicks([0, epsilons.at(-1)!], 5)) body.push(text(x(tick), y0 + panelHeight + 17, smallNumber(tick), 'mu m'));
      for (const [index, model] of drawn.entries()) {
        const curve = panel === 0 ? model.attack.fgsm : model.attack.pgd;
        const points = [0, ...epsilons].map((epsilon, i) => [x(epsilon), y(i === 0 ? model.accuracy : curve[i - 1]!)] as const);
        body.push(polyline(points, curveClass(model, series[index]!)), ...points.map(([px, py]) => marker(px, py, series[index]!, 'solid', 3.4)));
      }
      body.push(text(x0 + panelWidth / 2, y0 + panelHeight + 36, 'epsilon, share of the input range', 'mu m'));
    }
    const rows = Math.ceil(2 / columns);
    return svgImage({
      id: `attack-${layout}`,
      width,
      height: top + rows * (panelHeight + 74) - 30,
      title,
      description: [`Two line charts of accuracy against epsilon from 0 to ${smallNumber(epsilons.at(-1)!)}.`, ...drawn.map((model) => `${visibleLine(model.name)}: ${percentSign(model.accuracy)} without an attack, ${percentSign(model.attack.fgsm.at(-1))} under FGSM and ${percentSign(model.attack.pgd.at(-1))} under PGD at the largest.`)].join(' '),
      body,
    });
  };
  const { low, high } = report.data.inputRange;
  return {
    id: 'attack',
    title,
    caption: [
      `Share of all examples that stay right when each input may move by epsilon times the input range (${smallNumber(low)} to ${smallNumber(high)}), inside that range. FGSM moves once along the sign of the loss's gradient; PGD takes ${pgdSteps} steps of 2.5 / ${pgdSteps} epsilon from one random start. Dotted: guessing (${percentSign(1 / report.data.numClasses, 0)}); an attack can push below it.`,
      'An upper bound: a stronger attack finds more. That a curve is high proves nothing; that it is low shows a weakness.',
      drawnNote(report.models.length, drawn.length),
      settingsNote(report),
    ].filter(Boolean).join(' '),
    svg: { wide: draw('wide'), narrow: draw('narrow') },
    data: {
      columns: ['model', 'epsilon', 'FGSM', 'PGD'],
      rows: report.models.flatMap((model) => [[visibleLine(model.name), '0', shareText(model.accuracy), shareText(model.accuracy)], ...epsilons.map((epsilon, i) => [visibleLine(model.name), smallNumber(epsilon), shareText(model.attack.fgsm[i]), shareText(model.attack.pgd[i])])]),
    },
  };
}

function curveClass(model: TrustModel, series: number): string {
  return model.role === 'teacher' ? `ln da k${series}` : `ln thin k${series}`;
}
