// Runs a WebAssembly program of the WASI kind: node --no-warnings tests/wasi.mjs PROGRAM [WORD]...
// It sees the folder that node was started in, and no other.
import { readFile } from 'node:fs/promises';
import { setFlagsFromString } from 'node:v8';
import { WASI } from 'node:wasi';

// Calls of WASI that V8 has optimised damage Node's own heap (v20.20.2): it falls over in the end.
setFlagsFromString('--no-turbo-fast-api-calls');

const wasi = new WASI({
  version: 'preview1', args: process.argv.slice(2), preopens: { '.': '.' }, returnOnExit: true
});
const module = await WebAssembly.compile(await readFile(process.argv[2]));
const instance = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: wasi.wasiImport });
process.exit(wasi.start(instance));
