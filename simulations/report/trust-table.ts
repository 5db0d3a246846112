/** A trust report as text for a terminal: one row a measure, one column a model, so that teacher and student stand side by side. */
import { bytes, displayWidth, integer, percent, percentSign, points, smallNumber, truncate, visibleLine } from './format.ts';
import type { TrustModel, TrustReport } from './trust-data.ts';

export interface TrustRow {
  readonly group: string;
  readonly name: string;
  readonly cell: (model: TrustModel, models: readonly TrustModel[]) => string;
}

const NONE = '–';

/** As many decimals as leave about three digits. */
export function threeDigits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value >= 1 ? value.toFixed(2) : value.toFixed(3);
}

/** `12x smaller` than the teacher, by parameters. */
export function againstTeacher(value: number, reference: number): string {
  if (!(value > 0) || !(reference > 0)) return NONE;
  const ratio = Math.max(value, reference) / Math.min(value, reference);
  const text = ratio >= 9.95 ? ratio.toFixed(0) : ratio.toFixed(1);
  return text === '1.0' ? 'the same' : `${text}× ${value < reference ? 'less' : 'more'}`;
}

/** Every measure that fits a cell, in the order of the page. */
export function trustRows({ settings }: TrustReport): TrustRow[] {
  const decimals = (value: number | null | undefined, digits = 3) => (value === null || value === undefined || !Number.isFinite(value) ? NONE : value.toFixed(digits).replace('-', '−'));
  const withSpread = (spread: { readonly mean: number; readonly stddev: number | null } | null | undefined) => (spread === null || spread === undefined ? NONE : `${decimals(spread.mean, 2)} ± ${decimals(spread.stddev, 2)}`);
  const share = (value: number | undefined) => (value === undefined ? NONE : percentSign(value, 0));
  const largest = settings.epsilons.length - 1;
  const middle = Math.floor(settings.epsilons.length / 2);
  const shown = [...new Set([middle, largest])];
  const teacherOf = (models: readonly TrustModel[]) => (models[0]?.role === 'teacher' ? models[0] : undefined);
  return [
    { group: 'accuracy', name: 'accuracy, %', cell: (model) => percent(model.accuracy) },
    { group: 'accuracy', name: '95% interval', cell: ({ interval: [low, high] }) => `${percent(low)} to ${percent(high)}` },
    { group: 'calibration', name: 'ECE', cell: ({ calibration }) => decimals(calibration.error) },
    { group: 'calibration', name: 'ECE if calibrated', cell: ({ calibration }) => decimals(calibration.errorOfCalibrated.mean) },
    { group: 'calibration', name: 'adaptive ECE', cell: ({ calibration }) => decimals(calibration.adaptiveError) },
    { group: 'calibration', name: 'MCE', cell: ({ calibration }) => decimals(calibration.maximumError) },
    { group: 'calibration', name: 'NLL, nats', cell: ({ calibration }) => decimals(calibration.negativeLogLikelihood) },
    { group: 'calibration', name: 'Brier (0 to 2)', cell: ({ calibration }) => decimals(calibration.brier) },
    { group: 'calibration', name: 'confidence, %', cell: (model) => percent(model.uncertainty.meanConfidence) },
    { group: 'calibration', name: 'AUROC of confidence', cell: (model) => decimals(model.uncertainty.auroc) },
    { group: 'classes', name: 'lowest recall, %', cell: ({ recallGap, classes }) => (recallGap === null ? NONE : `${percent(classes[recallGap.worst]!.recall)} (${recallGap.worst})`) },
    { group: 'classes', name: 'gap best to worst', cell: ({ recallGap }) => (recallGap === null ? NONE : `${percent(recallGap.gap)} points`) },
    { group: 'classes', name: 'most changed class', cell: ({ largestChange }) => (largestChange === null ? NONE : `${points(largestChange.change)} (${largestChange.class})`) },
    { group: 'fidelity', name: 'agreement, %', cell: ({ fidelity }) => percent(fidelity?.agreement).replace('n/a', NONE) },
    { group: 'fidelity', name: 'where teacher errs', cell: ({ fidelity }) => percent(fidelity?.agreementWhereTeacherWrong).replace('n/a', NONE) },
    { group: 'fidelity', name: 'KL, nats', cell: ({ fidelity }) => decimals(fidelity?.meanKl) },
    { group: 'explanations', name: 'map correlation', cell: ({ saliency }) => withSpread(saliency?.rankCorrelation) },
    { group: 'explanations', name: 'of other examples', cell: ({ saliency }) => decimals(saliency?.control?.rankCorrelation, 2) },
    { group: 'explanations', name: `top ${percent(settings.topShare, 0)}% overlap`, cell: ({ saliency }) => share(saliency?.topOverlap?.mean) },
    { group: 'explanations', name: 'of other examples', cell: ({ saliency }) => share(saliency?.control?.topOverlap) },
    ...shown.flatMap((index) => [
      { group: 'robustness', name: `FGSM at ${smallNumber(settings.epsilons[index]!)}, %`, cell: ({ attack }: TrustModel) => percent(attack.fgsm[index]) },
      { group: 'robustness', name: `PGD at ${smallNumber(settings.epsilons[index]!)}, %`, cell: ({ attack }: TrustModel) => percent(attack.pgd[index]) },
    ]),
    { group: 'robustness', name: 'gradients of zero', cell: ({ attack }) => integer(attack.zeroGradients) },
    { group: 'cost', name: 'parameters', cell: ({ cost }) => integer(cost.parameters) },
    { group: 'cost', name: 'against teacher', cell: (model, models) => (teacherOf(models) === undefined || model.role === 'teacher' ? NONE : againstTeacher(model.cost.parameters, teacherOf(models)!.cost.parameters)) },
    { group: 'cost', name: 'bytes', cell: ({ cost }) => bytes(cost.bytes) },
    { group: 'cost', name: 'multiplications', cell: ({ cost }) => (cost.multiplications === null ? NONE : integer(cost.multiplications)) },
    { group: 'cost', name: 'one example', cell: ({ cost }) => `${threeDigits(cost.single.median)} ms` },
    { group: 'cost', name: '256 examples', cell: ({ cost }) => `${threeDigits(cost.batch.median)} ms` },
  ];
}

/** Ends with a line feed. Models that do not fit beside each other follow in a block of their own, each with the teacher's column again. */
export function renderTrustTable(report: TrustReport, columns: number): string {
  const rows = trustRows(report);
  const nameWidth = Math.max(...rows.map(({ name }) => displayWidth(name)));
  const cells = report.models.map((model) => [truncate(visibleLine(model.name), 16), truncate(visibleLine(model.architecture), 16), ...rows.map(({ cell }) => cell(model, report.models))]);
  const widths = cells.map((column) => Math.max(...column.map(displayWidth)));
  const hasTeacher = report.models[0]?.role === 'teacher';
  const blocks: number[][] = [];
  for (let next = 0; next < cells.length; ) {
    const block = blocks.length > 0 && hasTeacher ? [0] : [];
    const widthOf = (some: readonly number[]) => nameWidth + some.reduce((sum, column) => sum + 2 + widths[column]!, 0);
    do block.push(next++);
    while (next < cells.length && widthOf([...block, next]) <= Math.max(columns, 40));
    blocks.push(block);
  }
  const pad = (text: string, width: number) => ' '.repeat(Math.max(0, width - displayWidth(text))) + text;
  const lines = blocks.flatMap((block) => {
    const render = (name: string, row: number) => [name.padEnd(nameWidth), ...block.map((column) => pad(cells[column]![row]!, widths[column]!))].join('  ').trimEnd();
    const width = nameWidth + block.reduce((sum, column) => sum + 2 + widths[column]!, 0);
    return [
      render('', 0),
      render('', 1),
      ...rows.flatMap(({ group, name }, i) => [...(group === rows[i - 1]?.group ? [] : ['─'.repeat(width)]), render(name, i + 2)]),
      '',
    ];
  });
  const { data, settings } = report;
  return [
    ...lines,
    `${integer(data.examples)} of ${integer(data.available)} examples of ${visibleLine(data.source)}, seed ${settings.seed}. An accuracy under attack is an upper bound; "of other examples" is what maps share by chance.`,
    '',
  ].join('\n');
}
