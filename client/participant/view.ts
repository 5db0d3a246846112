/**
 * A client that sees every example, public and private, through a view of its own: its student is trained and asked through it, and nobody else needs to know. It
 * stays the same for a task: another one of the same shape would silently mean something else to the weights of before.
 */
import type { View } from '../../shared/config/view-config.ts';
import { formatView, viewLabelled } from '../../shared/datasets/views.ts';
import { FederationError } from '../../shared/errors.ts';
import { fromUtf8, utf8 } from '../../shared/types/bytes.ts';
import type { Workspace } from './participant.ts';
import { studentBlob } from './training.ts';

const viewBlob = 'view';

/** The workspace with its own examples as the view shows them. Throws `state-mismatch` when the student has learned through another view, `config-invalid` when it does not fit. */
export async function throughView(workspace: Workspace): Promise<Workspace> {
  const { view = [], privateDataset, testSet } = workspace;
  await keepToView(workspace, view);
  if (view.length === 0) return workspace;
  return { ...workspace, privateDataset: viewLabelled(view, privateDataset), ...(testSet === undefined ? {} : { testSet: viewLabelled(view, testSet) }) };
}

async function keepToView({ store }: Workspace, view: View): Promise<void> {
  const got = formatView(view);
  const stored = await store.getBlob(viewBlob);
  const expected = stored !== undefined ? fromUtf8(stored) : (await store.getBlob(studentBlob)) === undefined ? undefined : formatView([]);
  if (expected === undefined) {
    if (view.length > 0) await store.putBlob(viewBlob, utf8(got));
  } else if (expected !== got) {
    throw new FederationError('state-mismatch', 'The student of this task has learned through another view.', { field: 'view', expected, got, next: 'Give the view of then, or remove the folder of this task below `tasks/` to start afresh with this one. Keep the ledger.' });
  }
}
