/** Charges a file ledger in a loop and prints each acknowledged round, until it is killed. Arguments: path, first round. */
import { writeSync } from 'node:fs';
import { openFileLedger } from '../../shared/node/file-ledger.ts';
import { testCharge } from './test-charge.ts';

const path = process.argv[2]!;
const ledger = await openFileLedger(path);
writeSync(1, `open ${ledger.entries().length}\n`);
for (let round = Number(process.argv[3]); ; round++) {
  await ledger.charge(testCharge(round));
  writeSync(1, `charged ${round}\n`);
}
