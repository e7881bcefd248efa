// The golden file and what runs the model go in; by how much each output is off comes out.

// Big-endian numbers of 32 bits: how many samples, then all inputs and outputs of each.
export function expected(golden, model) {
  const view = new DataView(golden);
  let place = 4;
  const read = ({ elements }) => Float32Array.from({ length: elements }, () => view.getFloat32((place += 4) - 4));
  return Array.from({ length: view.getInt32(0) }, () => ({
    inputs: model.inputs.map(read),
    outputs: model.outputs.map(read),
  }));
}

export async function selfTest(runner, samples, model, accelerator) {
  const outputs = model.outputs.map(({ name, tolerance }) => ({ name, worst: 0, allowed: tolerance[accelerator] }));
  for (const sample of samples) {
    const got = await runner.run(sample.inputs);
    outputs.forEach((one, i) => (one.worst = Math.max(one.worst, difference(sample.outputs[i], got[i]))));
  }
  return { outputs, passed: outputs.every(({ worst, allowed }) => worst <= allowed) };
}

// The largest difference; infinity where one is a number and the other is not.
function difference(wanted, got) {
  let worst = 0;
  for (let i = 0; i < wanted.length; i++) {
    if (!Object.is(wanted[i], got[i])) {
      const off = Math.abs(wanted[i] - got[i]);
      worst = Math.max(worst, Number.isNaN(off) ? Infinity : off);
    }
  }
  return worst;
}
