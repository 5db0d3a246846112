// Copies what tsc does not: static files of the apps, from their source folder to the same place under dist/.
import { cp, chmod } from 'node:fs/promises';
import { existsSync } from 'node:fs';

for (const folder of ['simulations/assets', 'server/assets']) {
  if (existsSync(folder)) await cp(folder, `dist/${folder}`, { recursive: true });
}
await chmod('dist/simulations/main.js', 0o755);
