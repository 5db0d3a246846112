/**
 * Our engines against each other, PyTorch and Opacus, in turns within one run. Prints a table with medians of elapsed time (with quartiles) and of
 * processor time, and the median over the rounds of each one's time over the first one's. On a shared machine elapsed time also counts what
 * others do: the ratio of processor times is the more robust one, the ratio of elapsed times what a user feels.
 *
 *     npx tsx bench/compute/engines.ts [--engines onnx,tfjs-wasm] [--models MLP,CNN,...] [--work train,predict,private] [--batches 32,256]
 *       [--rows 10000] [--rounds 7] [--budget-ms 150] [--threads 1] [--python path/to/python] [--opacus]
 *
 * `--python`: one with PyTorch in it, for `bench/peers/pytorch.py`; with `--opacus` also with Opacus, for `bench/peers/opacus_dpsgd.py`. Make one with
 * `python3 -m venv v && v/bin/pip install torch numpy opacus` in a folder of its own.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus, loadavg } from 'node:os';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { type EnginePreference, enginePreferences, selectEngine } from '../../shared/compute/select-engine.ts';
import { FederationError } from '../../shared/errors.ts';
import { compare, type Contestant, engineContestant, type Result, threeDigits, type Time, type WorkKind } from '../../simulations/measure/compute-bench.ts';
import { benchModels } from '../../simulations/measure/models.ts';

const { values: flags } = parseArgs({
  options: {
    engines: { type: 'string', default: 'onnx,tfjs-wasm' },
    models: { type: 'string', default: 'MLP,CNN' },
    work: { type: 'string', default: 'train' },
    batches: { type: 'string', default: '32,256' },
    rows: { type: 'string', default: '10000' },
    rounds: { type: 'string', default: '7' },
    'budget-ms': { type: 'string', default: '150' },
    threads: { type: 'string', default: '1' },
    python: { type: 'string' },
    opacus: { type: 'boolean', default: false },
  },
});

/** A script of `bench/peers` that answers requests; idle between them. */
function peerContestant(name: string, python: string, script: string, args: readonly string[]): Contestant {
  const peer = spawn(python, [new URL(`../peers/${script}`, import.meta.url).pathname, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  const answers = createInterface({ input: peer.stdout })[Symbol.asyncIterator]();
  const ask = async (request: string): Promise<Time | undefined> => {
    peer.stdin.write(`${request}\n`);
    const { value, done } = (await answers.next()) as IteratorResult<string, undefined>;
    if (done === true) throw new FederationError('internal', `bench/peers/${script} ended by itself.`);
    const [elapsed, processor] = value.split(' ').map(Number);
    return value === 'none' ? undefined : { elapsed: elapsed!, processor: processor! };
  };
  return {
    name,
    async prepare({ kind, model, batch }, budgetMs) {
      const request = `${kind} ${model.name} ${batch} ${budgetMs}`;
      return (await ask(request)) === undefined ? undefined : { run: async () => (await ask(request))!, dispose: async () => {} };
    },
    async dispose() {
      peer.stdin.end();
      await once(peer, 'exit');
    },
  };
}

async function main(): Promise<void> {
  const [rounds, budgetMs] = [Number(flags.rounds), Number(flags['budget-ms'])];
  const contestants: Contestant[] = [];
  for (const name of flags.engines.split(',')) {
    if (!enginePreferences.includes(name as EnginePreference)) throw new FederationError('engine-unavailable', `There is no engine ${name}.`, { field: 'engines', expected: enginePreferences.join(', '), got: name });
    contestants.push(engineContestant(await selectEngine(name as EnginePreference)));
  }
  if (flags.python !== undefined) {
    contestants.push(peerContestant('pytorch', flags.python, 'pytorch.py', [flags.threads]));
    if (flags.opacus) for (const mode of ['hooks', 'ghost']) contestants.push(peerContestant(`opacus, ${mode}`, flags.python, 'opacus_dpsgd.py', [mode, flags.threads]));
  }
  const [{ model: cpu = 'unknown processor' } = {}] = cpus();
  console.log(`${cpu}, ${cpus().length} cores with a load of ${loadavg()[0]!.toFixed(1)}, Node ${process.versions.node}, ${flags.threads} thread(s); 28x28x1, 10 classes; ${rounds} rounds in turns\n`);
  console.log(`${row(['work', 'model', 'who', 'ms (quartiles)', 'processor ms', 'to first', 'processor, to first'])}\n${row(['---', '---', '---', '---:', '---:', '---:', '---:'])}`);
  const models = benchModels().filter(({ name }) => flags.models.split(',').includes(name));
  for (const kind of flags.work.split(',') as WorkKind[]) {
    for (const model of models) {
      for (const batch of kind === 'predict' ? [Number(flags.rows)] : flags.batches.split(',').map(Number)) {
        for (const result of await compare({ kind, model, batch }, contestants, { rounds, budgetMs })) console.log(row(cells(result)));
      }
    }
  }
  for (const contestant of contestants) await contestant.dispose();
  console.log(`\nload at the end ${loadavg()[0]!.toFixed(1)}`);
}

function row(texts: readonly string[]): string {
  return `| ${texts.join(' | ')} |`;
}

function cells({ work: { kind, model, batch }, contestant, elapsed, processor, elapsedRatio, processorRatio }: Result): string[] {
  const withQuartiles = ({ median, quartiles }: Result['elapsed']) => `${threeDigits(median)} (${quartiles.map(threeDigits).join(' to ')})`;
  return [`${kind} ${batch}`, model.name, contestant, withQuartiles(elapsed), threeDigits(processor.median), withQuartiles(elapsedRatio), threeDigits(processorRatio.median)];
}

await main();
