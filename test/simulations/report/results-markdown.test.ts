import { describe, expect, it } from 'vitest';
import { resultsFiles } from '../../../simulations/report/results-markdown.ts';
import { bareExperiment, gridExperiment, sampleExperiment } from './sample-experiment.ts';

const options = { command: 'npx fedstill results --runs runs/a runs/b', fileName: 'results.md' };

describe('the page of results', () => {
  it('reads as reviewed', async () => {
    const files = await resultsFiles([[sampleExperiment], [gridExperiment], [bareExperiment]], options);
    expect(files.map(({ path }) => path)).toEqual(['figures/privacy-accuracy-frontier.svg', 'figures/temperature-settings.svg', 'results.md']);
    await expect(String(files.at(-1)!.content)).toMatchFileSnapshot('snapshots/results.md');
  });

  it('is the same bytes for the same folders', async () => {
    const [first, second] = await Promise.all([1, 2].map(() => resultsFiles(structuredClone([[sampleExperiment]]), options)));
    expect(first).toEqual(second);
  });

  it('explains every epsilon of its tables, and gives the command, seeds and machine', async () => {
    const page = String((await resultsFiles([[sampleExperiment]], options)).at(-1)!.content);
    expect(page).toContain(`npx ${sampleExperiment.command}`);
    expect(page).toContain('| task.seed | 1, 2, 3 |');
    for (const [name, value] of sampleExperiment.environment) expect(page).toContain(`| ${name} | ${value} |`);
    const letters = new Set([...page.matchAll(/ε ≤ [\d.]+ \[(\w)\]/g)].map((match) => match[1]!));
    expect([...letters]).toEqual(['b', 'c', 'd']);
    for (const letter of letters) expect(page).toMatch(new RegExp(`^\\[${letter}\\] ε over all releases: unit (client|record); adjacency replace-one[a-z-]*; adversary .*; δ.=.1e−5; accountant .* version \\d+; \\d+ releases; \\d+ transfer rows`, 'm'));
  });

  it('puts experiments that belong together into one section, with the commands of both', async () => {
    const [reference, other] = [{ ...sampleExperiment, name: 'reference', command: 'fedstill experiment reference.yaml', results: sampleExperiment.results.slice(0, 3) }, { ...sampleExperiment, results: sampleExperiment.results.slice(3) }];
    const files = await resultsFiles([[other, reference]], options);
    const page = String(files.at(-1)!.content);
    expect(page.match(/^## .*$/gm)).toEqual(['## privacy-accuracy and reference']);
    for (const { command } of [reference, other]) expect(page).toContain(`npx ${command}`);
    expect(String(files[0]!.content)).toMatch(/no noise: 87\.9 ± 1\.6% \(no guarantee\)/);
  });

  it('lets no name become markup, a cell or a path', async () => {
    const hostile = { ...bareExperiment, name: '../../a|b `c`', results: gridExperiment.results.map((result) => ({ ...result, case: '| x | <b> [y](z) *w* ``` \n# h' })) };
    const files = await resultsFiles([[hostile], [{ ...hostile, command: '```\n# out' }]], options);
    expect(files.map(({ path }) => path)).toEqual(['figures/a-b-c-settings.svg', 'figures/a-b-c-2-settings.svg', 'results.md']);
    const page = String(files.at(-1)!.content);
    expect(page).not.toMatch(/(^|[^\\])<b>|^# h|[^\\]\[y\]/m);
    const rows = page.split('\n').filter((line) => line.startsWith('| \\#'));
    expect(new Set(rows.map((line) => line.replaceAll('\\|', '').split('|').length)).size).toBe(1);
    expect(page).toContain('````\nnpx ```\n# out\n````');
  });
});
