/** The part of WebAssembly that is used here, with types: neither TypeScript's ES library nor Node's types (20) declare it. */

export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

/** A compiled module. */
export interface WasmModule {
  readonly wasmModule: unique symbol;
}

interface WebAssemblyNamespace {
  /** `initial`: 64 KiB pages. */
  readonly Memory: new (descriptor: { readonly initial: number }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => WasmModule;
  readonly Instance: new (module: WasmModule, imports: Record<string, Record<string, unknown>>) => { readonly exports: Readonly<Record<string, unknown>> };
}

export const wasm: WebAssemblyNamespace = (globalThis as unknown as { readonly WebAssembly: WebAssemblyNamespace }).WebAssembly;
