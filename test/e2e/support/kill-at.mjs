/**
 * `node --import kill-at.mjs main.js ...`: kills the process with SIGKILL at its durable operations. Production code has no hook for this; the file
 * functions of Node are wrapped instead.
 *
 * Every point has a name: what is done to which file, without round numbers and client ids. Processes that share a folder of claims die once at each
 * name: start them again and again, and they will have died everywhere. A process dies
 *
 * - before a record is appended, and before the append is acknowledged (it is in the file by then);
 * - before a blob is replaced or deleted, and before that is acknowledged;
 * - within a plain `writeFile`: with half of it on disk.
 *
 * Environment: KILL_AT_CLAIMS the folder of claims, KILL_AT_ROOT what paths are relative to, KILL_AT_POINTS a regular expression of the names to die at
 * (default: all), KILL_AT_TRACE a file to which outbox entries are copied before they can be charged or sent.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';

const { KILL_AT_CLAIMS: claims, KILL_AT_ROOT: root, KILL_AT_TRACE: trace } = process.env;
const points = new RegExp(process.env['KILL_AT_POINTS'] ?? '');
const { appendFileSync, closeSync, openSync, readdirSync, readFileSync, writeFileSync } = fs;

if (isMainThread && claims !== undefined && root !== undefined) await install();

async function install() {
  const paths = new WeakMap(); // by file handle
  const descriptors = new Map(); // path by file descriptor
  let isImmortal = false;
  let lastNamed = ''; // what the next fsync of a folder makes durable
  let lastRecord = ''; // what the next fsync of a log makes durable

  const { promises } = fs;
  const original = { open: promises.open, openSync: fs.openSync };
  const handle = await promises.open(fileURLToPath(import.meta.url));
  const handles = Object.getPrototypeOf(handle);
  await handle.close();

  promises.open = async (path, ...rest) => {
    const opened = await original.open(path, ...rest);
    paths.set(opened, path);
    return opened;
  };
  around(handles, 'write', function (bytes) {
    const path = paths.get(this);
    if (path === undefined || isTemporary(path)) return;
    lastRecord = `${nameOf(path)}${recordOf(path, bytes)}`;
    dieAt(`append ${lastRecord}`);
  });
  around(handles, 'datasync', function () {
    if (paths.has(this)) dieAt(`appended ${lastRecord}`);
  });
  around(handles, 'truncate', function () {
    dieAt(`truncate ${nameOf(paths.get(this))}`);
  });
  around(handles, 'sync', function () {
    const path = paths.get(this);
    if (path !== undefined && isFolder(path) && lastNamed !== '') dieAt(`done: ${lastNamed}`);
  });
  const naming = (verb) => (from, to) => {
    lastNamed = `${verb} ${nameOf(to ?? from)}${to === undefined ? '' : contentOf(from, to)}`;
    if (to !== undefined && trace !== undefined && /outbox\/round-\d+$/.test(to)) immortally(() => appendFileSync(trace, `${JSON.stringify({ file: to, header: headerOf(from) })}\n`));
    dieAt(lastNamed);
  };
  around(promises, 'rename', naming('put'));
  around(promises, 'link', naming('link'));
  around(promises, 'unlink', naming('delete'));
  around(promises, 'writeFile', (path, data) => dieAt(`half of ${nameOf(path)}`, () => writeHalf(path, data)));

  // The privacy ledger is synchronous.
  fs.openSync = (path, ...rest) => {
    const descriptor = original.openSync(path, ...rest);
    descriptors.set(descriptor, path);
    return descriptor;
  };
  around(fs, 'closeSync', (descriptor) => void descriptors.delete(descriptor));
  around(fs, 'writeSync', (descriptor) => {
    if (!descriptors.has(descriptor)) return;
    lastRecord = nameOf(descriptors.get(descriptor));
    dieAt(`append ${lastRecord}`);
  });
  around(fs, 'fsyncSync', (descriptor) => {
    const path = descriptors.get(descriptor);
    if (path === undefined) return;
    dieAt(isFolder(path) ? `done: ${lastNamed}` : `appended ${nameOf(path)}`);
  });
  around(fs, 'renameSync', naming('put'));
  around(fs, 'linkSync', naming('link'));
  around(fs, 'rmSync', (path) => dieAt(`delete ${nameOf(path)}`));
  around(fs, 'writeFileSync', (path, data) => {
    if (typeof path === 'string') dieAt(`half of ${nameOf(path)}`, () => writeHalf(path, data));
  });
  syncBuiltinESMExports();

  /** Calls `before` with the arguments, then the function itself. */
  function around(target, name, before) {
    const inner = target[name];
    target[name] = function (...args) {
      before.apply(this, args);
      return inner.apply(this, args);
    };
  }

  /** Our own file work goes through the wrapped functions, too. */
  function immortally(work) {
    isImmortal = true;
    try {
      work();
    } finally {
      isImmortal = false;
    }
  }

  /** Dies at the first sight of this name, over all processes that share the claims. */
  function dieAt(name, lastDeed = () => undefined) {
    if (isImmortal || !points.test(name)) return;
    try {
      closeSync(openSync(join(claims, encodeURIComponent(name)), 'wx'));
    } catch (error) {
      if (error.code === 'EEXIST') return;
      throw error;
    }
    immortally(lastDeed);
    process.kill(process.pid, 'SIGKILL');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }
}

function isTemporary(path) {
  return String(path).includes('/.tmp/');
}

function isFolder(path) {
  return fs.statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** Without what differs from run to run. */
function nameOf(path) {
  return relative(root, resolve(String(path)))
    .replace(/rounds\/\d+/, 'rounds/N')
    .replace(/(round|answer)-\d+$/, '$1-N')
    .replace(/\b[a-z2-7]{26}\b/g, 'ID')
    // A lock's lock is taken over under a lock of its own, and so on: whoever died at each of them would never end.
    .replace(/(\.takeover)+/, '.takeover')
    .replace(/\.[0-9a-f]{16,}/g, '.TOKEN')
    .replace(/^clients\/[^/]+/, 'client');
}

/** What tells the records of one log apart. */
function recordOf(path, bytes) {
  try {
    const [first] = Buffer.from(bytes).toString('utf8').split('\n');
    const { type, event, phase, stage } = JSON.parse(first);
    if (stage !== undefined && stage !== 'contribution') return ` ${type ?? event} ${stage}`;
    const counted = type === 'contribution-stored' ? ` ${readdirSync(join(dirname(path), 'rounds', String(JSON.parse(first).round), 'contributions')).length}` : '';
    return ` ${type ?? event ?? phase ?? ''}${counted}`.trimEnd();
  } catch {
    return '';
  }
}

/** What tells the versions of one blob apart. */
function contentOf(from, to) {
  const name = basename(to);
  if (basename(dirname(to)) === 'contributions') return ` after ${countFiles(dirname(to))}`;
  if (name === 'progress.json') {
    const { last, lastAdvertised } = JSON.parse(readFileSync(from, 'utf8'));
    return ` ${last?.state ?? ''}${last !== null && lastAdvertised === last.round ? ' advertised' : ''}`;
  }
  if (name === 'student' || name === 'student-local-only') return ` ${headerOf(from).step}`;
  if (name === 'run.json') return ` ${JSON.parse(readFileSync(from, 'utf8')).state}`;
  return '';
}

function countFiles(folder) {
  try {
    return readdirSync(folder).length;
  } catch {
    return 0;
  }
}

/** The JSON header of a blob that begins with its length. */
function headerOf(path) {
  const bytes = readFileSync(path);
  return JSON.parse(bytes.toString('utf8', 4, 4 + bytes.readUInt32LE(0)));
}

function writeHalf(path, data) {
  const bytes = Buffer.from(data);
  writeFileSync(path, bytes.subarray(0, Math.floor(bytes.length / 2)));
}
