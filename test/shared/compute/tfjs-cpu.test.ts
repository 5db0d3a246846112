import { computeEngineContract } from '../../contracts/compute-engine.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';

computeEngineContract('tfjs-cpu', { setup: () => selectEngine('tfjs-cpu') });
