import { it } from 'vitest';
import { loadBackend } from '../../../shared/compute/backend.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';
import { computeEngineContract } from '../../contracts/compute-engine.ts';

// An optional package whose native binary can't be had everywhere: docs/compute.md says how to put one together.
const { available, reason } = await loadBackend('tfjs-node');
if (available) computeEngineContract('tfjs-node', { setup: () => selectEngine('tfjs-node') });
else it.skip(`compute engine contract: tfjs-node (skipped: ${reason})`);
