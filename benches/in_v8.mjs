// Runs a benchmark that was compiled for wasm32-wasip1, in Node's V8: node benches/in_v8.mjs FILE.wasm
// What the file imports of Envoy is not called by a benchmark.
import { readFile } from 'node:fs/promises';
import { WASI } from 'node:wasi';

const wasi = new WASI({ version: 'preview1' });
const benchmark = await WebAssembly.compile(await readFile(process.argv[2]));
const imports = { ...wasi.getImportObject() };
for (const { module, name } of WebAssembly.Module.imports(benchmark)) {
  imports[module] ??= {};
  imports[module][name] ??= () => { throw new Error(`${name} is Envoy's`); };
}
const { exports } = await WebAssembly.instantiate(benchmark, imports);
// The plugin's own `_initialize` is there as well, and WASI wants one of the two.
wasi.start({ exports: { memory: exports.memory, _start: exports._start } });
