// A field of numbers for each input: text goes in, its values come out.

export function offer(section, model, run, sample) {
  const fields = model.inputs.map(({ name, dtype, elements, shape }, i) => {
    const label = document.createElement("label");
    label.textContent = `${name}: ${elements} numbers (${shape.join("×")}, ${dtype})`;
    const field = document.createElement("textarea");
    field.spellcheck = false;
    field.value = Array.from(sample[i], (value) => Number(value.toPrecision(7))).join(", ");
    label.append(field);
    section.append(label);
    return field;
  });
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Run";
  button.addEventListener("click", () => {
    run(new Promise((resolve) => resolve(fields.map((field, i) => numbers(field.value, model.inputs[i])))));
  });
  section.append(button);
}

export function numbers(text, { name, dtype, elements }) {
  const words = text.split(/[\s,;[\]]+/).filter((word) => word !== "");
  const bad = words.find((word) => Number.isNaN(Number(word)) && word !== "NaN");
  if (bad !== undefined) throw new Error(`Expected numbers for ${name}, got ${bad}.`);
  if (words.length !== elements) throw new Error(`Expected ${elements} numbers for ${name}, got ${words.length}.`);
  const values = Float32Array.from(words, Number);
  if (dtype !== "float32" && values.some((value) => !Number.isInteger(value))) {
    throw new Error(`Expected whole numbers for ${name}, got fractions.`);
  }
  return values;
}
