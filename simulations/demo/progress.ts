/** Which parts of a demo are done, with their results: what a demo that was stopped goes on with. */
import { existsSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { FederationError } from '../../shared/errors.ts';

const DemoProgressSchema = z.strictObject({
  format: z.literal('fedstill-demo/1'),
  seed: z.int(),
  clients: z.array(z.strictObject({ name: z.string(), model: z.string(), directory: z.string(), examples: z.int(), classHistogram: z.array(z.int()) })).optional(),
  federation: z.strictObject({ seconds: z.number() }).optional(),
  /** The federation whose guarantee is for every record. */
  records: z.strictObject({ seconds: z.number() }).optional(),
  centralized: z.strictObject({ accuracy: z.number(), seconds: z.number(), engine: z.string(), models: z.array(z.strictObject({ name: z.string(), parameterCount: z.int(), weightBytes: z.int() })) }).optional(),
  noisy: z.array(z.strictObject({ epsilon: z.number(), federated: z.array(z.number()), teacher: z.number().nullable(), meanNoiseStddev: z.number(), guarantee: z.string(), seconds: z.number() })).optional(),
});
export type DemoProgress = z.infer<typeof DemoProgressSchema>;

const fileName = 'demo.json';

export async function readDemoProgress(directory: string): Promise<DemoProgress | undefined> {
  const path = join(directory, fileName);
  if (!existsSync(path)) return undefined;
  try {
    return DemoProgressSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch (cause) {
    throw new FederationError('state-mismatch', `${path} is damaged.`, { field: path, next: 'Start a new demo: npm start.', cause });
  }
}

export async function writeDemoProgress(directory: string, progress: DemoProgress): Promise<void> {
  const path = join(directory, fileName);
  await writeFile(`${path}.new`, `${JSON.stringify(progress, undefined, 2)}\n`);
  await rename(`${path}.new`, path);
}
