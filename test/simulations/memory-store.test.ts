import { MemoryStore } from '../../simulations/memory-store.ts';
import { describeDurableStoreContract } from '../contracts/durable-store.ts';

describeDurableStoreContract({
  name: 'memory',
  create: async () => new MemoryStore(),
  reopen: async (store) => (store as MemoryStore).reopen(),
});
