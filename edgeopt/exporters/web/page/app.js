// model.json goes in; a page that has tested itself and runs the model on what its user gives comes out.
import { expected, selfTest } from "./selftest.js";
import { open } from "./runner.js";
import { show } from "./results.js";

const byId = (id) => document.getElementById(id);
const say = (text, state) => {
  byId("status").textContent = text;
  document.body.dataset.state = state;
};

async function fetched(file) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`Expected the file ${file} beside this page, got status ${response.status}.`);
  return response;
}

function introduce(model) {
  document.title = model.name;
  byId("name").textContent = model.name;
  const words = (tensors) => tensors.map((t) => `${t.name} ${t.dtype} ${t.shape.join("×")}`).join(", ");
  byId("facts").textContent = `${model.file}: ${words(model.inputs)} → ${words(model.outputs)}`;
}

// LiteRT.js is loaded once a page, so what computes stands in the address.
function offerAccelerators(chosen) {
  const names = { wasm: "CPU (WebAssembly)", webgpu: "GPU (WebGPU)" };
  for (const [key, name] of Object.entries(names)) {
    const link = document.createElement("a");
    link.textContent = name;
    link.href = `?accelerator=${key}`;
    if (key === chosen) link.setAttribute("aria-current", "true");
    byId("accelerators").append(link);
  }
}

function report(test) {
  byId("selftest").hidden = false;
  byId("selftest").open = !test.passed;
  const body = byId("selftest").querySelector("tbody");
  for (const { name, worst, allowed } of test.outputs) {
    const cells = [name, worst.toPrecision(3), allowed.toPrecision(3)];
    const row = body.insertRow();
    row.className = worst <= allowed ? "near" : "far";
    for (const text of cells) row.insertCell().textContent = text;
  }
}

async function main() {
  const model = await (await fetched("model.json")).json();
  introduce(model);
  const asked = new URLSearchParams(location.search).get("accelerator");
  const accelerator = asked === "webgpu" ? "webgpu" : "wasm";
  offerAccelerators(accelerator);
  const [content, golden] = await Promise.all(
    ["model.tflite", "model.golden"].map(async (file) => (await fetched(file)).arrayBuffer()),
  );
  const runner = await open(new Uint8Array(content), model, accelerator);
  const samples = expected(golden, model);
  const test = await selfTest(runner, samples, model, accelerator);
  report(test);
  const count = `${samples.length} ${model.real_samples ? "samples of real data" : "generated samples"}`;
  if (!test.passed) {
    // An accelerator may take a whole model and compute it wrongly: nothing is shown that was not proven.
    const hint = accelerator === "wasm" ? "" : " Try the CPU.";
    say(`The self-test FAILED on ${runner.ranOn}, ${count}: its results would be wrong.${hint}`, "failed");
    return;
  }
  say(`Self-test passed on ${runner.ranOn}, ${count}. Ready.`, "passed");

  async function run(values) {
    const start = performance.now();
    const outputs = await runner.run(values);
    const took = performance.now() - start;
    show(byId("output"), model, outputs);
    say(`Ran on ${runner.ranOn} in ${took.toPrecision(3)} ms.`, "ran");
  }
  const guarded = (values) => Promise.resolve(values).then(run).catch((error) => say(String(error.message ?? error), "error"));
  const { offer } = await import(`./inputs/${model.input}.js`);
  offer(byId("input"), model, guarded, samples[0].inputs);
}

main().catch((error) => say(`This page does not work: ${error.message ?? error}`, "broken"));
