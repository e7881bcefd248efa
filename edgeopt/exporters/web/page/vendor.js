// Copies what the page needs of LiteRT.js from node_modules into litert/, so that it calls no other host.
import { cpSync, mkdirSync } from "node:fs";

const [core, utils] = ["core", "wasm-utils"].map((name) => `node_modules/@litertjs/${name}`);
mkdirSync("litert", { recursive: true });
cpSync(`${core}/dist/index.js`, "litert/index.js");
cpSync(`${utils}/dist/index.js`, "litert/wasm-utils.js");
for (const kind of ["", "compat_", "jspi_"]) {
  for (const suffix of ["js", "wasm"]) {
    cpSync(`${core}/wasm/litert_wasm_${kind}internal.${suffix}`, `litert/litert_wasm_${kind}internal.${suffix}`);
  }
}
