/**
 * A scenario over several seeds, and what each group of clients gains: `npx tsx bench/modalities/by-view.ts SCENARIO.yaml [SEEDS, default 1,2,3]`. Prints a table for docs/data.md.
 */
import { openWorkerPool } from '../../shared/compute/worker-pool.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData, readScenario } from '../../simulations/load-scenario.ts';
import { runSimulation } from '../../simulations/run-simulation.ts';
import type { Scenario } from '../../simulations/scenario.ts';

const [file, seeds = '1,2,3'] = process.argv.slice(2);
if (file === undefined) throw new Error('Name a scenario file.');
const { scenario: written, baseDir } = await readScenario(file);
const data = await loadScenarioData(written, baseDir);
const engine = await openWorkerPool({ workers: 1, engine: 'auto' });

/** Group -> for each seed the mean test accuracies of its clients. */
const groups = new Map<string, { readonly local: number[]; readonly federated: number[] }>();
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
const percent = (share: number) => (100 * share).toFixed(1);
try {
  for (const seed of seeds.split(',').map(Number)) {
    const scenario: Scenario = { ...written, task: { ...written.task, seed } };
    const { clients } = await runSimulation({ scenario, data, engine, random: (party) => new InsecureSeededRandom(deriveSeed(seed, 'insecure', party)), events: { emit: () => undefined } });
    for (const group of new Set(clients.map(({ view, model }) => `${view} | ${model}`))) {
      const summaries = clients.filter(({ view, model }) => `${view} | ${model}` === group).map(({ summary, error }) => {
        if (summary === undefined) throw error ?? new Error('A client failed.');
        return summary;
      });
      const found = groups.get(group) ?? { local: [], federated: [] };
      groups.set(group, found);
      found.local.push(mean(summaries.map(({ localOnlyAccuracy }) => localOnlyAccuracy ?? NaN)));
      found.federated.push(mean(summaries.map(({ finalAccuracy }) => finalAccuracy ?? NaN)));
    }
  }
  console.log(`| what clients see | their model | local only, % | federated, % | by seed (${seeds}): local to federated |\n| --- | --- | ---: | ---: | --- |`);
  for (const [group, { local, federated }] of groups) {
    console.log(`| ${group} | ${percent(mean(local))} | ${percent(mean(federated))} | ${local.map((share, i) => `${percent(share)} to ${percent(federated[i]!)}`).join(', ')} |`);
  }
} finally {
  await engine.dispose();
}
