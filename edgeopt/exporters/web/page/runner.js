// A .tflite goes in; what runs it on real values comes out: flat arrays by the order of model.json.
import { loadAndCompile, loadLiteRt, supportsFeature, Tensor } from "@litertjs/core";

const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

export async function open(content, model, accelerator) {
  // A model that the GPU takes in part needs WebAssembly that can wait for it.
  const jspi = accelerator === "webgpu" && (await supportsFeature("jspi"));
  if (accelerator === "webgpu" && !(await navigator.gpu?.requestAdapter())) {
    throw new Error("this browser gives no GPU to WebGPU. Try the CPU.");
  }
  await loadLiteRt("litert/", { jspi });
  // As exact as the CPU where the GPU can be.
  const compiled = await loadAndCompile(content, { accelerator, gpuOptions: { precision: "fp32" } });
  const signature = Object.values(compiled.signatures).find((s) => matches(s, model));
  if (!signature) throw new Error("model.tflite is not the file that model.json describes. Try exporting it again.");
  const inputs = signature.getInputDetails();
  const outputs = signature.getOutputDetails();
  const slot = (details, name) => details.findIndex((one) => one.name === name);
  const whole = accelerator === "wasm" || compiled.isFullyAccelerated;

  async function run(values) {
    const tensors = [];
    try {
      model.inputs.forEach(({ name, dtype, shape, elements }, i) => {
        if (values[i].length !== elements) {
          throw new Error(`Expected ${elements} values for ${name}, got ${values[i].length}.`);
        }
        tensors[slot(inputs, name)] = new Tensor(ARRAYS[dtype].from(values[i]), shape);
      });
      const results = await signature.run(tensors);
      tensors.push(...results);
      return await Promise.all(model.outputs.map(({ name }) => results[slot(outputs, name)].data()));
    } finally {
      tensors.forEach((tensor) => tensor?.delete());
    }
  }
  const ranOn = { wasm: "the CPU", webgpu: whole ? "the GPU" : "the GPU, and in part on the CPU" }[accelerator];
  return { run, ranOn };
}

function matches(signature, model) {
  const same = (details, tensors) =>
    details.length === tensors.length && tensors.every(({ name }) => details.some((one) => one.name === name));
  return same(signature.getInputDetails(), model.inputs) && same(signature.getOutputDetails(), model.outputs);
}
