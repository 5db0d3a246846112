import { describe, expect, it } from 'vitest';
import { displayWidth } from '../../../simulations/report/format.ts';
import { renderTable } from '../../../simulations/report/table.ts';
import { edgeCases, hundredClients, nothing, oneClient, sampleNoisy, sampleReport } from './sample-report.ts';

describe('the table of the demo', () => {
  it('looks as reviewed, in 100 columns, in 80 and with color', async () => {
    await expect(renderTable(sampleReport)).toMatchFileSnapshot('snapshots/table-100.txt');
    await expect(renderTable(sampleReport, { columns: 80 })).toMatchFileSnapshot('snapshots/table-80.txt');
    await expect(renderTable(sampleReport, { columns: 100, color: true })).toMatchFileSnapshot('snapshots/table-color.txt');
  });

  it.each([sampleReport, ...edgeCases].flatMap((report) => [60, 80, 100, 160].map((columns) => [report.title, columns, report] as const)))('%s fits into %i columns, without a broken number', (_, columns, report) => {
    const table = renderTable(report, { columns });
    expect(table).not.toMatch(/NaN|undefined|null|Infinity|\[object/);
    for (const line of table.split('\n')) expect(displayWidth(line), line).toBeLessThanOrEqual(columns);
  });

  it('aligns every row of numbers with its head', () => {
    const lines = renderTable(sampleReport).split('\n');
    const end = lines[0]!.indexOf('federated') + 'federated'.length;
    for (const row of [...lines.slice(3, 7), ...lines.slice(8, 12)]) expect(row.slice(0, end)).toMatch(/\d$/);
  });

  it('drops the least important columns first and says which', () => {
    const table = renderTable(sampleReport, { columns: 80 });
    expect(table).toContain('Not shown in 80 columns: records, model.');
    expect(renderTable(sampleReport)).not.toContain('Not shown');
    expect(renderTable(sampleReport, { columns: 40 }).split('\n')[0]).toMatch(/client.*local.*federated.*gain/);
  });

  it('says mean, deviation, teacher, bound, and the lesson of each noisy result', () => {
    const table = renderTable(sampleReport);
    expect(table).toMatch(/mean of 4 clients +69\.9 +87\.3 +\+17\.3 +73\.6 +59\.2 +49\.7/);
    expect(table).toMatch(/± sd over clients +± 9\.3 +± 3\.4 +± 6\.1/);
    expect(table).toMatch(/centralized \(bound\) +95\.8/);
    for (const { lesson } of sampleNoisy) expect(table.replace(/\n +/g, ' ')).toContain(lesson);
  });

  it('leaves out what there is none of', () => {
    expect(renderTable(oneClient)).not.toMatch(/± sd|ε =/);
    expect(renderTable(nothing)).not.toMatch(/mean of|teacher/);
  });

  it('lists forty clients of a hundred and counts the rest', () => {
    const table = renderTable(hundredClients);
    expect(table).toContain('… and 60 more clients, counted in the mean');
    expect(table).toContain('mean of 100 clients');
  });

  it('cannot be steered by a name', () => {
    const hostile = { ...sampleReport, clients: sampleReport.clients.map((client) => ({ ...client, name: '\u001b]0;owned\u0007a\nb', model: '\u202e\r' })) };
    // eslint-disable-next-line no-control-regex
    expect(renderTable(hostile)).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
  });

  it('colors only when asked, and every color ends on its line', () => {
    expect(renderTable(sampleReport)).not.toContain('\u001b');
    for (const line of renderTable(sampleReport, { color: true }).split('\n')) {
      const codes = line.split('\u001b[').slice(1).map((rest) => rest.slice(0, rest.indexOf('m')));
      const opened = codes.filter((code) => !['22', '39'].includes(code)).length;
      expect(codes.length - opened).toBe(opened);
    }
  });
});
