/** Appends to the store in the folder named on the command line until the disk takes no more, then prints what it was told. */
import { FederationError } from '../../shared/errors.ts';
import { openFileStore } from '../../shared/node/file-store.ts';

const store = await openFileStore(process.argv[2]!);
const record = (number: number) => ({ number, padding: 'x'.repeat(700) });
let acknowledged = 0;
let error: unknown;
while (error === undefined) {
  await store.append('log', record(acknowledged)).then(
    () => (acknowledged += 1),
    (caught: unknown) => (error = caught),
  );
}
const kept = (await store.readLog('log')).length;
await store.append('log', { short: true });
await store.close();
process.stdout.write(JSON.stringify({ acknowledged, kept, code: error instanceof FederationError ? error.code : 'another error' }));
