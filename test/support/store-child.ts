/** Appends to the store in the folder named on the command line until it is killed, and prints the number of each record once it is acknowledged. */
import { writeSync } from 'node:fs';
import { openFileStore } from '../../shared/node/file-store.ts';

const store = await openFileStore(process.argv[2]!);
let next = (await store.readLog('log')).length;
writeSync(1, 'open\n');
/** Several at once, so that some are killed within one flush. */
const appendForever = async () => {
  for (;;) {
    const number = next++;
    await store.append('log', { number, padding: 'x'.repeat(number % 5000) });
    await store.putBlob(`blobs/${number % 7}`, new TextEncoder().encode(JSON.stringify({ number })));
    writeSync(1, `${number}\n`);
  }
};
await Promise.all([appendForever(), appendForever(), appendForever(), appendForever()]);
