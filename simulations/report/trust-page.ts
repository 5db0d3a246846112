/** A trust report as one HTML file: no script, nothing loaded from anywhere; its images are in it. Its content security policy allows just that. */
import { bytes, escapeMarkup, integer, percent, percentSign, plural, smallNumber, summarize, visibleLine, visibleText } from './format.ts';
import { htmlPage } from './html-page.ts';
import { pageStyle } from './page-style.ts';
import { heatPixels, plainPixels, pngDataUri } from './png.ts';
import { figureMarkup, section, table, type Cell } from './report-page.ts';
import type { TrustModel, TrustReport } from './trust-data.ts';
import { renderTrustFigures, settingsNote } from './trust-figures.ts';
import { againstTeacher, threeDigits, trustRows } from './trust-table.ts';

const h = escapeMarkup;

const style = `${pageStyle}
.overview td{vertical-align:bottom}
.maps td,.maps th{text-align:center;vertical-align:top;white-space:normal;min-width:7rem;line-height:1.3}
.maps th:first-child{min-width:6rem}
.maps img{display:block;margin:0 auto .3rem;width:96px;height:96px;object-fit:contain;image-rendering:pixelated;background:var(--panel)}
.maps small{display:block;color:var(--muted);font-size:.8rem}
.scale{display:flex;align-items:center;gap:.6rem;font-size:.84rem;color:var(--muted);margin:0 0 .8rem}
.scale img{width:160px;height:12px;image-rendering:auto}`;

/** The whole page. The same report gives the same text. */
export function renderTrustPage(report: TrustReport): string {
  const figures = new Map(renderTrustFigures(report).map((figure) => [figure.id, figureMarkup(figure)]));
  const main = [
    header(report),
    section('overview', 'Side by side', overview(report)),
    section('calibration', 'Calibration: are its probabilities true?', calibrationWords(report), figures.get('reliability')!),
    section('fairness', 'Classes: who is served worse?', classWords(report), figures.get('classes')!),
    section('fidelity', 'Fidelity: does the student do what the teacher does?', fidelityWords(report)),
    section('explanations', 'Explanations: do they look at the same places?', explanationWords(report), figures.get('agreement') ?? '', pictures(report)),
    section('robustness', 'Robustness: how little does it take to mislead it?', robustnessWords(report), figures.get('attack')!),
    section('cost', 'Compression: what is the student cheaper by?', costTable(report)),
    section('reproduce', 'Settings and how to repeat it', settings(report)),
  ];
  return htmlPage({ title: 'Trust report', style, sources: 'img-src data:' }, main);
}

function teacherOf({ models }: TrustReport): TrustModel | undefined {
  return models[0]?.role === 'teacher' ? models[0] : undefined;
}

function studentsOf({ models }: TrustReport): readonly TrustModel[] {
  return models.filter(({ role }) => role === 'student');
}

/** Of the known ones; `null` when there is none. */
function mean(values: readonly (number | null | undefined)[]): number | null {
  return summarize(values.map((value) => value ?? NaN)).mean;
}

// --- headline ---------------------------------------------------------------------------------------------------------

function header(report: TrustReport): string {
  const teacher = teacherOf(report);
  const students = studentsOf(report);
  const subjects = students.length > 0 ? students : report.models;
  const who = subjects.length === 1 ? visibleLine(subjects[0]!.name) : plural(subjects.length, students.length > 0 ? 'student' : 'model');
  const accuracy = mean(subjects.map((model) => model.accuracy));
  const agreement = mean(students.map(({ fidelity }) => fidelity?.agreement));
  const error = mean(subjects.map(({ calibration }) => calibration.error));
  const middle = Math.floor(report.settings.epsilons.length / 2);
  const pgd = mean(subjects.map(({ attack }) => attack.pgd[middle]));
  const average = subjects.length > 1 ? ' on average' : '';
  const sentence = `${who}: ${percentSign(accuracy)} right${average}${agreement === null ? '' : `, ${percentSign(agreement)} the same answer as the teacher`}; confidence misses accuracy by ${percent(error)} points (ECE).`;
  const facts: [string, string, string][] = [
    ['Accuracy', percentSign(accuracy), teacher === undefined || students.length === 0 ? `${plural(report.data.examples, 'example')}` : `teacher ${percentSign(teacher.accuracy)}`],
    ['Calibration error', error === null ? 'n/a' : error.toFixed(3), teacher === undefined || students.length === 0 ? `calibrated: ${mean(subjects.map(({ calibration }) => calibration.errorOfCalibrated.mean))!.toFixed(3)}` : `teacher ${teacher.calibration.error.toFixed(3)}; calibrated: ${mean(subjects.map(({ calibration }) => calibration.errorOfCalibrated.mean))!.toFixed(3)}`],
    ['Worst class', percentSign(mean(subjects.map(({ recallGap, classes }) => (recallGap === null ? null : classes[recallGap.worst]!.recall)))), `recall${average}`],
    [`PGD at ${smallNumber(report.settings.epsilons[middle]!)}`, percentSign(pgd), teacher === undefined || students.length === 0 ? 'accuracy left' : `left; teacher ${percentSign(teacher.attack.pgd[middle])}`],
  ];
  const day = `${report.createdAt.slice(0, 10)} ${report.createdAt.slice(11, 16)} UTC`;
  return [
    '<header>',
    '<h1>Trust report</h1>',
    `<p class="headline">${h(sentence)}</p>`,
    `<p class="meta">${h(settingsNote(report))} Measured on labelled examples that no model should have been trained on; <time datetime="${h(report.createdAt)}">${h(day)}</time></p>`,
    `<dl class="facts">${facts.map(([term, value, more]) => `<div><dt>${h(term)}</dt><dd>${h(value)} <small>${h(more)}</small></dd></div>`).join('')}</dl>`,
    '</header>',
  ].join('\n');
}

// --- tables -----------------------------------------------------------------------------------------------------------

function overview(report: TrustReport): string {
  const rows = trustRows(report);
  const heads = [{ name: 'Measure', isText: true }, ...report.models.map((model) => ({ name: visibleLine(model.name), unit: visibleLine(model.architecture) }))];
  const cells = rows.map(({ group, name, cell }, i): Cell[] => [{ markup: `${i === 0 || group === rows[i - 1]!.group ? '' : `<small>${h(group)}</small> `}${h(name)}` }, ...report.models.map((model) => cell(model, report.models))]);
  const teacher = teacherOf(report);
  return [
    `<div class="overview">${table(
      `Every measure${teacher === undefined ? '' : ', the teacher first'}. In brackets: the class. ‘If calibrated’: the ECE that chance alone gives a calibrated model on as many examples. ‘Of other examples’: what two maps share without sharing an example. ${settingsNote(report)}`,
      'Measures side by side',
      heads,
      cells,
    )}</div>`,
    report.models.some(({ role }) => role === 'baseline') ? '<p>‘Alone’: the same client’s student, trained as long on its own records without the federation.</p>' : '',
  ].filter(Boolean).join('\n');
}

function calibrationWords({ models, data }: TrustReport): string {
  const beyond = models.filter(({ calibration }) => calibration.error > calibration.errorOfCalibrated.percentile95);
  const excess = ({ uncertainty, accuracy }: TrustModel) => uncertainty.meanConfidence - accuracy;
  const describe = (some: readonly TrustModel[], what: string) => {
    if (some.length === 0) return [];
    const sizes = some.map((model) => Math.abs(excess(model))).sort((a, b) => a - b);
    const range = sizes.length === 1 ? percent(sizes[0]) : `${percent(sizes[0])} to ${percent(sizes.at(-1))}`;
    return [`confidence is ${range} points ${what} accuracy (${some.map(({ name }) => visibleLine(name)).join(', ')})`];
  };
  const directions = [...describe(beyond.filter((model) => excess(model) > 0), 'above'), ...describe(beyond.filter((model) => excess(model) <= 0), 'below')].join('; ');
  const said =
    beyond.length === 0
      ? `No model is further from calibration than a perfectly calibrated one could be by chance on ${plural(data.examples, 'example')}.`
      : `${beyond.length === models.length ? 'Every model is' : `${beyond.length} of ${models.length} models are`} further from calibration than chance explains on ${plural(data.examples, 'example')}: ${directions}.`;
  return `<p>${h(said)}</p>\n<p>ECE hides what a bin averages out, and it is never 0 on few examples. NLL and Brier score are proper scores: they reward both being right and saying how surely. AUROC of confidence: how often a right answer is surer than a wrong one (0.5 is chance).</p>`;
}

function classWords(report: TrustReport): string {
  const changed = report.models.filter(({ largestChange }) => largestChange !== null && largestChange.change < 0);
  const worst = changed.toSorted((a, b) => a.largestChange!.change - b.largestChange!.change)[0];
  return [
    '<p>An accuracy can be high while one class is lost. Classes are all this report can tell apart: gaps between groups of people need a group label, which these data do not have.</p>',
    worst === undefined ? '' : `<p>${h(`The largest loss against the teacher: ${visibleLine(worst.name)} recognises class ${worst.largestChange!.class} less often, by ${percent(-worst.largestChange!.change)} points.`)}</p>`,
  ].filter(Boolean).join('\n');
}

function fidelityWords(report: TrustReport): string {
  const compared = report.models.flatMap((model) => (model.fidelity === null ? [] : [{ model, fidelity: model.fidelity }]));
  const teacher = teacherOf(report);
  if (compared.length === 0 || teacher === undefined) return '<p>There is no teacher to compare with: name one with <code>--teacher</code>.</p>';
  const rows = compared.map(({ model, fidelity }): Cell[] => [visibleLine(model.name), percent(fidelity.agreement), percent(fidelity.agreementWhereTeacherRight), percent(fidelity.agreementWhereTeacherWrong), fidelity.meanKl.toFixed(3), percent(model.accuracy)]);
  return [
    `<p>A student can be right without doing what its teacher does. Agreement where the teacher is right is mostly shared knowledge; agreement where it is wrong (${plural(compared[0]!.fidelity.teacherWrong, 'example')} here) means its mistakes were learned with the rest.</p>`,
    table(
      `Agreement with the teacher in percent of the examples, and mean KL(teacher ‖ student) at temperature 1. The teacher itself is right on ${percentSign(teacher.accuracy)}. ${settingsNote(report)}`,
      'Fidelity to the teacher',
      [{ name: 'Student', isText: true }, { name: 'Same answer', unit: '%' }, { name: 'Teacher right', unit: '%' }, { name: 'Teacher wrong', unit: '%' }, { name: 'KL', unit: 'nats' }, { name: 'Accuracy', unit: '%' }],
      rows,
    ),
  ].join('\n');
}

function explanationWords(report: TrustReport): string {
  const compared = report.models.flatMap(({ saliency }) => (saliency === null ? [] : [saliency]));
  const same = mean(compared.map(({ rankCorrelation }) => rankCorrelation?.mean));
  const other = mean(compared.map(({ control }) => control?.rankCorrelation));
  const said = same === null || other === null ? '' : `<p>${h(`Maps of student and teacher correlate by ${smallNumber(Number(same.toFixed(2)))} for the same example and by ${smallNumber(Number(other.toFixed(2)))} for different examples${compared.length > 1 ? ', on average over the students' : ''}.`)}</p>`;
  return `<p>A saliency map shows where a small change of the input changes the loss most. It says where a model is sensitive, not why it decided, and not that it decided well.</p>\n${said}`;
}

function robustnessWords({ models, data }: TrustReport): string {
  const flat = models.filter(({ attack }) => attack.zeroGradients > 0);
  const warning = flat.length === 0 ? '' : `\n<p class="warn">${h(`A gradient of zeros gives an attack no direction, which is no robustness: ${flat.map((model) => `${visibleLine(model.name)} on ${attackedShare(model, data.examples)}`).join(', ')}. Those accuracies say too much.`)}</p>`;
  return `<p>A model that was not trained to withstand attacks does not, so low curves are what to expect. What to look for is a student that is easier to mislead than its teacher.</p>${warning}`;
}

function attackedShare({ attack }: TrustModel, examples: number): string {
  return `${plural(attack.zeroGradients, 'example')} of ${integer(examples)}`;
}

function costTable(report: TrustReport): string {
  const teacher = teacherOf(report);
  const rows = report.models.map((model): Cell[] => {
    const { parameters, bytes: size, multiplications, single, batch } = model.cost;
    return [
      visibleLine(model.name),
      integer(parameters),
      teacher === undefined || model === teacher ? '–' : againstTeacher(parameters, teacher.cost.parameters),
      bytes(size),
      multiplications === null ? '–' : integer(multiplications),
      threeDigits(single.median),
      `${threeDigits(batch.median)} (${threeDigits(batch.quartiles[0])} to ${threeDigits(batch.quartiles[1])})`,
      teacher === undefined || model === teacher ? '–' : percentSign(teacher.accuracy > 0 ? model.accuracy / teacher.accuracy : NaN),
    ];
  });
  const { machine } = report;
  return table(
    `Size and speed. Bytes are those of the weights as float32; multiplications are those of dense and convolutional layers for one example. Times are medians (quartiles in brackets) of 15 predictions with the engine ${visibleLine(machine.engine)}, one thread, weights loaded, on ${visibleLine(machine.cpu)}, ${plural(machine.cores, 'core')}, which other programs may have shared: compare within this table. Accuracy kept is the student’s as a share of the teacher’s. ${settingsNote(report)}`,
    'Size and speed',
    [{ name: 'Model', isText: true }, { name: 'Parameters' }, { name: 'Against teacher' }, { name: 'Weights' }, { name: 'Multiplications' }, { name: 'One example', unit: 'ms' }, { name: `${integer(report.models[0]!.cost.batch.size)} examples`, unit: 'ms' }, { name: 'Accuracy kept' }],
    rows,
  );
}

// --- pictures ---------------------------------------------------------------------------------------------------------

function pictures(report: TrustReport): string {
  if (report.pictures.length === 0) return '<p>No example is shown: either none was asked for, or the examples are no images.</p>';
  const image = (uri: string, alt: string, { width, height }: { width: number; height: number }) => `<img src="${uri}" width="${width}" height="${height}" alt="${h(alt)}">`;
  const rows = report.pictures.map((picture): Cell[] => [
    { markup: `${image(pngDataUri(picture.width, picture.height, plainPixels(picture.example, picture.channels)), `Example ${picture.position}, class ${picture.label}`, picture)}class ${picture.label} <small>example ${integer(picture.position)}</small>` },
    ...picture.models.map((seen, m): Cell => {
      const name = visibleLine(report.models[m]!.name);
      const verdict = seen.predicted === picture.label ? 'right' : 'wrong';
      return {
        markup: `${image(pngDataUri(picture.width, picture.height, heatPixels(seen.map)), `Saliency map of ${name} for example ${picture.position}`, picture)}${seen.predicted}, ${percentSign(seen.confidence, 0)} <small>${verdict}${seen.rankCorrelation === null ? '' : `; ρ ${seen.rankCorrelation.toFixed(2).replace('-', '−')}`}</small>`,
      };
    }),
  ]);
  const teacher = teacherOf(report);
  const chosen = teacher === undefined ? 'The first of the examples' : 'Examples chosen by rule: evenly from the highest agreement of the maps with the teacher’s (top) to the lowest';
  const ramp = Array.from({ length: 64 }, (_, i) => (255 * i) / 63);
  return [
    '<h3>Maps, side by side</h3>',
    `<p class="scale">least in its map <img src="${pngDataUri(64, 1, heatPixels(ramp))}" width="64" height="1" alt="Color scale from dark blue, the least, to yellow, the most"> most in its map</p>`,
    `<div class="maps">${table(
      `Saliency maps: absolute gradient of the loss of the true class by each input${report.pictures[0]!.channels > 1 ? ', the largest over the channels' : ''}, each map scaled to its own largest value. Below each: what the model says and how surely; ρ is the rank correlation with the teacher’s map. ${chosen}. ${settingsNote(report)}`,
      'Saliency maps',
      [{ name: 'Example', isText: true }, ...report.models.map(({ name, architecture }) => ({ name: visibleLine(name), unit: visibleLine(architecture) }))],
      rows,
    )}</div>`,
  ].join('\n');
}

// --- settings ---------------------------------------------------------------------------------------------------------

function settings(report: TrustReport): string {
  const { data, machine } = report;
  const entries: [string, string][] = [
    ['Data', `${data.source}: ${integer(data.examples)} of ${integer(data.available)} examples${data.examples < data.available ? ', drawn by the seed' : ''}, shape [${data.exampleShape.join(', ')}], ${integer(data.numClasses)} classes`],
    ['Input range', `${smallNumber(data.inputRange.low)} to ${smallNumber(data.inputRange.high)}`],
    ['Calibration', `${report.settings.bins} bins`],
    ['Attacks', `epsilon ${report.settings.epsilons.map(smallNumber).join(', ')} of the input range; PGD with ${plural(report.settings.pgdSteps, 'step')}`],
    ['Seed', String(report.settings.seed)],
    ['Models', report.models.map(({ name, path }) => `${name}: ${path}`).join('; ')],
    ['Machine', `${machine.cpu}, ${plural(machine.cores, 'core')}, ${machine.platform}`],
    ['Software', `fedstill ${report.version}, Node ${machine.node}; gradients and predictions by ${machine.gradients}, latencies of ${machine.engine}`],
  ];
  return [
    `<dl class="settings">${entries.map(([term, value]) => `<dt>${h(term)}</dt><dd>${h(visibleLine(value))}</dd>`).join('\n')}</dl>`,
    '<h3>To repeat this report</h3>',
    `<pre>${h(visibleText(report.command))}</pre>`,
    '<p class="note">Everything but the latencies repeats with the seed on the same kind of machine. docs/trust.md of fedstill defines each number and names its source.</p>',
    report.pictures.length > 0 ? '<p class="note">This file shows some of the examples. Where they are private, make the report with <code>--pictures 0</code> before it is passed on.</p>' : '',
  ].filter(Boolean).join('\n');
}
