/** A simulation that is stopped and run again with its journal: the same bits, and nothing is trained twice. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { ComputeEngine, OpenModel } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { ComputationJournal } from '../../simulations/computation-journal.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../simulations/load-scenario.ts';
import { ContentHashes, rememberingEngine } from '../../simulations/remembering-engine.ts';
import { metricsLines, runSimulation } from '../../simulations/run-simulation.ts';
import { parseScenario } from '../../simulations/scenario.ts';
import { tinyScenario } from './experiment/tiny-scenario.ts';

let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
});
afterAll(() => engine.dispose());

function journalPath(): string {
  const folder = mkdtempSync(join(tmpdir(), 'fedstill-journal-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'computations');
}

/** The engine, telling of every training and prediction that it really makes. */
function watched(tell: (what: 'fit' | 'predict') => void): ComputeEngine {
  const watch = (model: OpenModel): OpenModel => ({
    summary: model.summary,
    fit: async (data, options) => {
      const report = await model.fit(data, options);
      tell('fit');
      return report;
    },
    fitPrivately: async (data, options) => {
      const report = await model.fitPrivately!(data, options);
      tell('fit');
      return report;
    },
    predict: (examples) => {
      tell('predict');
      return model.predict(examples);
    },
    save: () => model.save(),
    load: (saved) => model.load(saved),
    dispose: () => model.dispose(),
  });
  return { name: engine.name, reason: engine.reason, open: async (source, seed) => watch(await engine.open(source, seed)), dispose: () => Promise.resolve() };
}

/** Everything that a run leaves, as text, and what was really computed. `stopAfter`: trainings, after which it is given up. */
async function run(text: string, { path, stopAfter = Infinity }: { path?: string; stopAfter?: number } = {}) {
  const scenario = parseScenario(text, 'tiny.yaml');
  const stop = new AbortController();
  const computed = { fit: 0, predict: 0 };
  const own = watched((what) => {
    computed[what]++;
    if (computed.fit === stopAfter) stop.abort(new Error('stopped'));
  });
  const journal = path === undefined ? undefined : new ComputationJournal(path);
  const known = journal?.size ?? 0;
  const hashes = new ContentHashes();
  const events: RunEvent[] = [];
  try {
    const result = await runSimulation({
      scenario,
      data: await loadScenarioData(scenario, '.'),
      engine: own,
      random: (party) => new InsecureSeededRandom(deriveSeed(scenario.task.seed, 'insecure', party)),
      events: { emit: (event) => events.push(event) },
      signal: stop.signal,
      ...(journal === undefined ? {} : { remember: (device: ComputeEngine) => rememberingEngine(device, journal, hashes) }),
    });
    return { left: JSON.stringify([metricsLines(result), events, result.reason, [...(result.testLogits?.values ?? [])]]), computed, known };
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    return { left: undefined, computed, known };
  } finally {
    journal?.close();
  }
}

const scenarios = {
  'students of all kinds': tinyScenario.replace('groups: [{ count: 4, model: softmax-regression }]', 'groups: [{ count: 2, model: softmax-regression }, { count: 2, model: mlp-small, stepMs: 40 }]'),
  'early stopping and a consensus': tinyScenario.replace('teacher: { kind: learner, model: softmax-regression, epochs: 2 }', 'teacher: { kind: consensus }').replace('pretrainEpochs: 1', 'pretrainEpochs: 4, earlyStoppingPatience: 1'),
  'private training': tinyScenario.replace('  schedule:', '  privacy: { mechanism: dpSgd, unit: record, epsilon: 20, dpSgd: { samplingRate: 0.2, stepsPerRound: 3 } }\n  schedule:'),
};

describe('a simulation with a journal', () => {
  for (const [name, text] of Object.entries(scenarios)) {
    it(`goes on after a stop at any training with the same bits, and trains nothing twice: ${name}`, { timeout: 60_000 }, async () => {
      const whole = await run(text);
      expect(whole.left).toBeDefined();
      const path = journalPath();
      let trained = 0;
      for (const stopAfter of [3, 4, 5]) {
        const stopped = await run(text, { path, stopAfter });
        expect(stopped.left).toBeUndefined();
        // What was under way when it was given up is not kept; all else is.
        trained += stopped.computed.fit;
      }
      const resumed = await run(text, { path });
      expect(resumed.left).toBe(whole.left);
      expect(resumed.known).toBeGreaterThan(0);
      expect(resumed.computed.fit).toBeGreaterThan(0);
      expect(trained + resumed.computed.fit).toBeLessThanOrEqual(whole.computed.fit + 3);
      // Now everything is known.
      const again = await run(text, { path });
      expect(again.left).toBe(whole.left);
      expect(again.computed).toEqual({ fit: 0, predict: 0 });
    });
  }

  it('takes nothing of another seed for its own', async () => {
    const path = journalPath();
    await run(tinyScenario, { path });
    const other = tinyScenario.replace('  task: tiny\n', '  task: tiny\n  seed: 2\n');
    const expected = await run(other);
    expect((await run(other, { path })).left).toBe(expected.left);
  });
});

describe('a journal', () => {
  const record = (n: number) => ({ json: { n, list: [n + 0.1] }, bytes: Uint8Array.of(n, n, n) });
  function written(path: string): void {
    const journal = new ComputationJournal(path);
    for (const n of [1, 2, 3]) journal.keep(`key-${n}`, record(n));
    journal.close();
  }

  it('gives back what was kept, to the next one that opens it', () => {
    const path = journalPath();
    written(path);
    const journal = new ComputationJournal(path);
    expect(journal.size).toBe(3);
    for (const n of [1, 2, 3]) expect(journal.find(`key-${n}`)).toEqual(record(n));
    expect(journal.find('key-4')).toBeUndefined();
    expect(journal.hits).toBe(3);
    journal.remove();
    expect(new ComputationJournal(path).size).toBe(0);
  });

  it('loses only the record that a kill cut off, at whatever byte, and goes on behind the others', () => {
    const path = journalPath();
    written(path);
    const whole = readFileSync(path);
    const length = whole.length / 3;
    for (let bytes = 0; bytes < whole.length; bytes += 5) {
      writeFileSync(path, whole);
      truncateSync(path, bytes);
      const journal = new ComputationJournal(path);
      expect(journal.size).toBe(Math.floor(bytes / length));
      journal.keep('next', record(9));
      journal.close();
      const again = new ComputationJournal(path);
      expect(again.size).toBe(Math.floor(bytes / length) + 1);
      expect(again.find('next')).toEqual(record(9));
      again.close();
    }
  });

  it('does not know a record whose bytes have changed', () => {
    const path = journalPath();
    written(path);
    const whole = readFileSync(path);
    for (const at of [whole.length / 3 - 17, whole.length / 3 - 1]) {
      const broken = Buffer.from(whole);
      broken[at]! ^= 1;
      writeFileSync(path, broken);
      const journal = new ComputationJournal(path);
      expect(journal.find('key-1')).toBeUndefined();
      expect(journal.find('key-2')).toEqual(record(2));
      journal.close();
    }
  });

  it('keeps no numbers that JSON cannot hold, and no more than its limit', () => {
    const path = journalPath();
    const journal = new ComputationJournal(path, { limitBytes: 200 });
    journal.keep('nan', { json: { loss: NaN }, bytes: new Uint8Array() });
    journal.keep('small', { json: 1, bytes: new Uint8Array(10) });
    journal.keep('large', { json: 1, bytes: new Uint8Array(1000) });
    journal.close();
    const again = new ComputationJournal(path);
    expect([again.find('nan'), again.find('small')?.bytes.length, again.find('large')]).toEqual([undefined, 10, undefined]);
    again.close();
  });
});
