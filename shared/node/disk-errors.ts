/** Failures of the file system, with our codes and what to do about them. */
import { FederationError } from '../errors.ts';

export function isErrno(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error && 'syscall' in error;
}

/** Whether there is nothing at the path. */
export function isMissing(error: unknown): boolean {
  return isErrno(error) && error.code === 'ENOENT';
}

/** The error to throw for what happened at `path`; anything that is not the disk's doing is returned as it is. */
export function diskError(error: unknown, path: string): unknown {
  if (!isErrno(error)) return error;
  const code = error.code ?? 'unknown error';
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return new FederationError('disk-full', 'The disk is full; nothing that was acknowledged is lost.', { field: path, got: code, next: 'Free some space, then start again: the run goes on where it was.', cause: error });
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new FederationError('file-unreadable', 'A file or folder may not be read or written.', { field: path, got: code, next: 'Check who owns it and that its disk is writable, or choose another folder.', cause: error });
    case 'ENOENT':
      return new FederationError('file-unreadable', 'A folder is not there.', { field: path, got: code, next: 'Make it, or choose another folder.', cause: error });
    case 'ENOTDIR':
    case 'EISDIR':
    case 'EEXIST':
    case 'ELOOP':
    case 'ENAMETOOLONG':
      return new FederationError('file-unreadable', 'A path cannot be used: something else lies there.', { field: path, got: code, next: 'Choose another folder.', cause: error });
    case 'EMFILE':
    case 'ENFILE':
      return new FederationError('file-unreadable', 'Too many files are open.', { field: path, got: code, next: 'Raise the limit of open files (ulimit -n), see docs/deployment.md.', cause: error });
    default:
      return new FederationError('internal', 'The disk failed.', { field: path, got: code, next: 'Check the disk and the system log before starting again.', cause: error });
  }
}

/** Runs file work and gives its failures our codes. */
export async function guardDisk<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw diskError(error, path);
  }
}
