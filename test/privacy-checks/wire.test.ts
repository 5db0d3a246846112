/**
 * Checks 6 and 21 (docs/privacy-model.md, section 9): metrics, counts of examples and weights are not on the wire. Whole federations over the network of the simulations, in which
 * everything that a participant gives to its connection is written down: requests, acknowledgements, paths, and what is inside the boxes. The clients differ in model
 * and in how many examples they hold, and nothing that they send has a place for the difference: members, lengths and frames are those of the public parameters. And no secret that a participant has drawn is in
 * anything that it sends, emits or logs, and no key or nonce comes twice.
 */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { silentLogger } from '../../shared/ports/logger.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import type { Connector } from '../../shared/ports/transport.ts';
import { envelopeBytes } from '../../shared/protocol/envelope.ts';
import { decodeFrame, frameBytes } from '../../shared/protocol/matrix-frame.ts';
import { clientEventSchemas, secureStageNames, type ClientEvent } from '../../shared/protocol/messages.ts';
import { fromBase64, toBase64, toHex } from '../../shared/types/bytes.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../simulations/load-scenario.ts';
import { runSimulation, type SimulationResult } from '../../simulations/run-simulation.ts';
import { parseScenario } from '../../simulations/scenario.ts';

/** What one participant has given to its connection. */
interface Sent {
  readonly requests: { readonly event: ClientEvent; readonly payload: Record<string, unknown> }[];
  readonly acks: unknown[];
  readonly paths: string[];
}
const wire = vi.hoisted(() => ({ participants: [] as unknown[], boxed: [] as Uint8Array[] }));

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => {
  const boxes = (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original());
  return {
    ...boxes,
    sealBox: (message, ...keys) => {
      wire.boxed.push(message.slice());
      return boxes.sealBox(message, ...keys);
    },
  };
});
vi.mock(import('../../simulations/network/memory-transport.ts'), async (original) => {
  const real = await original();
  return { ...real, memoryConnector: (options) => writtenDown(real.memoryConnector(options)) };
});

function writtenDown(inner: Connector): Connector {
  const sent: Sent = { requests: [], acks: [], paths: [] };
  wire.participants.push(sent);
  return {
    connect: async (signal) => {
      const connection = await inner.connect(signal);
      return {
        request: (event, payload) => {
          sent.requests.push({ event, payload: structuredClone(payload) as Record<string, unknown> });
          return connection.request(event, payload);
        },
        fetchFrame: (path, ...rest) => {
          sent.paths.push(path);
          return connection.fetchFrame(path, ...rest);
        },
        onEvent: (handler) =>
          connection.onEvent(async (event, payload) => {
            const ack = await handler(event, payload);
            sent.acks.push(structuredClone(ack));
            return ack;
          }),
        onDisconnect: (handler) => connection.onDisconnect(handler),
        close: () => connection.close(),
      };
    },
  };
}

/** Every member that a participant may send. A new one has to be written down here too, with a reason why it tells nothing private. */
const members: Record<ClientEvent, readonly string[]> = {
  hello: ['clientKey', 'clientNonce', 'protocols'],
  join: ['signature'],
  'upload-begin': ['bytes', 'digest', 'round', 'stage'],
  'upload-chunk': ['data', 'offset', 'upload'],
  'upload-end': ['upload'],
  decline: ['code', 'round'],
  leave: [],
};
const forbidden = /accura|loss|nll|metric|epoch|example|sample|weight|count|size|epsilon|budget|label|gradient|model|softmax|mlp|private|noise|clip/i;

const [clients, rounds, rows, columns] = [6, 2, 40, 3];
const [trainingExamples, testExamples] = [180, 60];
/** Secrets and nonces of keys, seeds and handshakes are drawn by so many bytes; noise and shares by more. */
const secretBytes = 32;

/** Of the context at the head of a box (docs/protocol.md): task 32, round 4, stage 4, sender 32, transcript 32. */
const contextBytes = 104;
/** Of what is in the box of each stage: the frame, or the messages of docs/secure-aggregation.md with everybody present. */
const frameLengths = {
  advertiseKeys: 236,
  shareKeys: 176 + 236 * (clients - 1),
  maskedInput: 176 + 4 * rows * columns,
  consistencyCheck: 204,
  unmask: 208 + 40 * clients,
};

let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
});
afterAll(() => engine.dispose());

async function federation(privacy: string, models: string): Promise<{ readonly participants: readonly Sent[]; readonly boxed: readonly Uint8Array[]; readonly result: SimulationResult; readonly secrets: readonly Uint8Array[]; readonly said: string }> {
  wire.participants.length = 0;
  wire.boxed.length = 0;
  const scenario = parseScenario(
    `
scenario: wire
task:
  task: wire
  seed: 4
  data: { numClasses: ${columns}, exampleShape: [8] }
  transferSet: { source: synthetic, size: ${rows}, seed: 7 }
  teacher: { kind: learner, model: softmax-regression, epochs: 1 }
  student: { model: softmax-regression, pretrainEpochs: 2, digestEpochs: 1, revisitEpochs: 1 }
  privacy: ${privacy}
  schedule: { rounds: ${rounds}, minClients: ${clients}, quorum: 5 }
clients:
  groups: ${models}
  data: { source: synthetic, size: ${trainingExamples}, seed: 9 }
  partition: { kind: quantity, alpha: 1, minPerClient: 5 }
  testSet: { source: synthetic, size: ${testExamples}, seed: 10 }
`,
    'wire.yaml',
  );
  const secrets: Uint8Array[] = [];
  const said: unknown[] = [];
  const random = (party: string): RandomSource => {
    const source = new InsecureSeededRandom(deriveSeed(4, 'insecure', party));
    const bytes = (length: number) => {
      const drawn = source.bytes(length);
      if (length === secretBytes && party !== 'coordinator') secrets.push(drawn.slice());
      return drawn;
    };
    return { bytes };
  };
  const logged = (['debug', 'info', 'warn', 'error'] as const).map((level) => vi.spyOn(silentLogger, level).mockImplementation((...line) => void said.push(line)));
  const result = await runSimulation({ scenario, data: await loadScenarioData(scenario, '.'), engine, random, events: { emit: (event) => said.push(event) } });
  for (const spy of logged) spy.mockRestore();
  return { participants: wire.participants.slice() as Sent[], boxed: wire.boxed.slice(), result, secrets, said: JSON.stringify(said) };
}

/** Event, member names and lengths of everything sent, in order: no values. */
const shapeOf = ({ requests, acks, paths }: Sent) => ({
  requests: requests.map(({ event, payload }) => [event, Object.entries(payload).map(([member, value]) => [member, typeof value, value instanceof Uint8Array ? value.length : String(value).length])]),
  acks,
  paths,
});

const twoModels = '[{ count: 4, model: softmax-regression }, { count: 2, model: mlp-small }]';

describe.each([
  ['sealed', 'int32', '{ mechanism: gaussian, epsilon: 8 }', ['contribution']],
  ['sealed, private training', 'float32', '{ mechanism: dpSgd, unit: record, epsilon: 8, dpSgd: { samplingRate: 0.2, stepsPerRound: 5, learningRate: 0.1 } }', ['contribution']],
  ['secure-aggregation', 'int32', '{ trustMode: secure-aggregation, mechanism: discreteGaussian, epsilon: 8 }', secureStageNames],
] as const)('trust mode %s: everything that a participant sends in a whole federation', (trustMode, dtype, privacy, stages) => {
  let run: Awaited<ReturnType<typeof federation>>;
  beforeAll(async () => {
    run = await federation(privacy, twoModels);
  });

  it('was sent in a federation that went well, by clients that differ', () => {
    expect(run.result.reason).toBe('rounds-done');
    expect(run.result.rounds.map(({ contributions }) => contributions)).toEqual([clients, clients]);
    expect(run.participants).toHaveLength(clients);
    expect(new Set(run.result.clients.map(({ privateRecords }) => privateRecords)).size).toBeGreaterThan(3);
  });

  it('is the events of the protocol, with their members and no others', () => {
    for (const { requests } of run.participants) {
      for (const { event, payload } of requests) {
        expect(clientEventSchemas[event].safeParse(payload).success, event).toBe(true); // strict: unknown members fail
        expect(Object.keys(payload).sort(), event).toEqual(members[event]);
      }
      expect(requests.filter(({ event }) => event === 'upload-begin').map(({ payload }) => [payload['round'], payload['stage']])).toEqual([1, 2].flatMap((round) => stages.map((stage) => [round, stage])));
    }
    for (const names of Object.values(members)) expect(names.join(' ')).not.toMatch(forbidden);
  });

  it('has no word for what is private in any text', () => {
    for (const { requests, acks, paths } of run.participants) {
      const texts = requests.flatMap(({ event, payload }) => [event, ...Object.values(payload).filter((value) => typeof value === 'string')]).filter((text) => !/^(sha256:)?[\w+/=]{40,}$/.test(text));
      expect(texts.join(' ')).not.toMatch(forbidden);
      // Acknowledgements say yes, and nothing else.
      expect(new Set(acks.map((ack) => JSON.stringify(ack)))).toEqual(new Set(['{"ok":true}']));
      // What is fetched is the same for all: no query, no path of one's own.
      expect(paths.every((path) => path === '/transfer-set' || /^\/(rounds\/\d+|finished)\/soft-labels$/.test(path)), paths.join(' ')).toBe(true);
    }
  });

  it('has the same members and lengths for every client, whatever its model and however many its examples', () => {
    const [first, ...others] = run.participants.map(shapeOf);
    for (const other of others) expect(other).toEqual(first);
  });

  it('has lengths that follow from public parameters, with no byte to spare', () => {
    for (const { requests } of run.participants) {
      const begun = requests.filter(({ event }) => event === 'upload-begin').map(({ payload }) => [payload['stage'], payload['bytes']]);
      const uploaded = requests.filter(({ event }) => event === 'upload-chunk').reduce((sum, { payload }) => sum + (payload['data'] as Uint8Array).length, 0);
      expect(uploaded).toBe(begun.reduce((sum, [, bytes]) => sum + (bytes as number), 0));
      expect(begun).toEqual(Array.from({ length: rounds }, () => stages.map((stage) => [stage, envelopeBytes(stage === 'contribution' ? frameBytes(dtype, [rows, columns]) : frameLengths[stage])])).flat());
    }
  });

  it('is, inside the boxes, one matrix (of integers on the grid, where noise is added to it) or a message of secure aggregation', () => {
    expect(run.boxed).toHaveLength(clients * rounds * stages.length);
    for (const plain of run.boxed) {
      const content = plain.subarray(contextBytes);
      if (trustMode !== 'secure-aggregation') {
        const frame = decodeFrame(content); // refuses any other length
        expect([frame.dtype, frame.shape]).toEqual([dtype, [rows, columns]]);
      } else expect(toHex(content.subarray(0, 5))).toBe('4644505301'); // FDPS, version 1
      expect(new TextDecoder('latin1').decode(content)).not.toMatch(/accuracy|loss|metric|epoch|example|weight/i);
    }
  });

  it('holds no secret that a participant has drawn, and neither do its events and its log', () => {
    const nonces = run.participants.flatMap(({ requests }) => requests.filter(({ event }) => event === 'hello').map(({ payload }) => toHex(fromBase64(payload['clientNonce'] as string)!)));
    expect(nonces).toHaveLength(clients);
    // In hexadecimal, where a match may begin at any byte: envelopes as they are sent, and what is in them.
    const bytes = [...run.participants.flatMap(({ requests }) => requests.filter(({ event }) => event === 'upload-chunk').map(({ payload }) => payload['data'] as Uint8Array)), ...run.boxed].map(toHex);
    const texts = [run.said, ...run.participants.flatMap(({ requests, acks, paths }) => [JSON.stringify(requests.map(({ event, payload }) => [event, { ...payload, data: undefined }])), JSON.stringify(acks), paths.join(' ')])];
    const found = run.secrets.filter((secret) => {
      const [hex, base64] = [toHex(secret), toBase64(secret)];
      return bytes.some((message) => message.includes(hex)) || texts.some((text) => text.includes(hex) || text.includes(base64) || text.includes(`"0":${secret[0]},"1":${secret[1]},"2":${secret[2]},"3":${secret[3]},`));
    });
    // Identities, box keys and, in secure rounds, channel keys, mask keys and self seeds; and of all that only the nonces of the handshake are public.
    expect(run.secrets.length).toBeGreaterThanOrEqual(clients * (2 + rounds * (trustMode === 'secure-aggregation' ? 8 : 1)));
    expect(found.map(toHex).sort()).toEqual(nonces.sort());
    expect(run.said.length).toBeGreaterThan(1000);
  });

  it('draws every secret once, and no key or nonce of an envelope comes twice', () => {
    const envelopes = run.participants.flatMap(({ requests }) => requests.filter(({ event }) => event === 'upload-chunk').map(({ payload }) => payload['data'] as Uint8Array));
    expect(envelopes).toHaveLength(clients * rounds * stages.length);
    // Ephemeral key and nonce of an envelope (docs/protocol.md).
    const once = [...run.secrets, ...envelopes.map((envelope) => envelope.subarray(44, 76)), ...envelopes.map((envelope) => envelope.subarray(76, 100))].map(toHex);
    expect(new Set(once).size).toBe(once.length);
  });
});
