// The outputs of one run go in; bars of classes, a map over a picture or plain numbers come out on the page.

const BEST = 5;
const MOST_NUMBERS = 64;
const MOST_CLASSES = 100000;

export function show(section, model, outputs) {
  section.replaceChildren();
  model.outputs.forEach((output, i) => {
    const labels = i === 0 ? model.labels : [];
    const heading = document.createElement("h2");
    heading.textContent = output.name;
    const map = mapOf(output, model);
    const shown = map ? painted(outputs[i], map, labels) : ranks(output, model) ? bars(outputs[i], labels) : numbers(outputs[i]);
    section.append(heading, shown);
  });
}

const label = (labels, index) => labels[index] ?? `class ${index}`;

// A vector is scores of classes, unless it is what the input was: a reconstruction.
function ranks({ shape, elements }, { inputs }) {
  const isVector = shape.slice(0, -1).every((size) => size === 1) && elements > 1 && elements <= MOST_CLASSES;
  return isVector && !inputs.some((input) => input.elements === elements);
}

function bars(values, labels) {
  const best = Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b).slice(0, BEST);
  const low = Math.min(0, ...best.map((i) => values[i]));
  const high = Math.max(...best.map((i) => values[i]), low);
  const list = document.createElement("ol");
  list.className = "bars";
  for (const i of best) {
    const item = document.createElement("li");
    const [name, value, meter] = ["span", "span", "meter"].map((tag) => document.createElement(tag));
    name.textContent = label(labels, i);
    value.textContent = values[i].toPrecision(4);
    Object.assign(meter, { min: low, max: high > low ? high : low + 1, value: values[i] });
    item.append(name, meter, value);
    list.append(item);
  }
  return list;
}

function numbers(values) {
  const text = document.createElement("pre");
  const shown = Array.from(values.slice(0, MOST_NUMBERS), (value) => value.toPrecision(6)).join("  ");
  text.textContent = values.length > MOST_NUMBERS ? `${shown}  … ${values.length} numbers` : shown;
  return text;
}

// [1, height, width, classes], or [1, height, width] of class numbers, of a model that sees pictures.
function mapOf({ shape, dtype }, { input }) {
  const [batch, height, width, classes = 1] = shape;
  if (input !== "picture" || batch !== 1 || shape.length < 3 || shape.length > 4 || Math.min(height, width) < 2) return null;
  return { height, width, classes, ready: classes === 1 && dtype !== "float32" };
}

function painted(values, { height, width, classes, ready }, labels) {
  const found = new Uint32Array(height * width);
  for (let i = 0; i < found.length; i++) {
    if (ready) found[i] = Math.max(0, values[i]);
    // One channel of scores says yes or no.
    else if (classes === 1) found[i] = Number(values[i] > 0.5);
    else for (let c = 1; c < classes; c++) if (values[i * classes + c] > values[i * classes + found[i]]) found[i] = c;
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  canvas.className = "map";
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const counts = new Map();
  found.forEach((kind, i) => {
    image.data.set([...color(kind), 255], 4 * i);
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  });
  context.putImageData(image, 0, 0);
  const figure = document.createElement("figure");
  const list = document.createElement("ul");
  list.className = "legend";
  for (const [kind, count] of [...counts].sort((a, b) => b[1] - a[1]).slice(0, 4 * BEST)) {
    const item = document.createElement("li");
    const swatch = document.createElement("canvas");
    [swatch.width, swatch.height] = [1, 1];
    const paint = swatch.getContext("2d");
    paint.fillStyle = `rgb(${color(kind).join(" ")})`;
    paint.fillRect(0, 0, 1, 1);
    item.append(swatch, `${label(labels, kind)}: ${((100 * count) / found.length).toFixed(1)} %`);
    list.append(item);
  }
  figure.append(canvas, list);
  return figure;
}

// PASCAL VOC's colours: the bits of the class number, spread over the three channels.
function color(kind) {
  const channels = [0, 0, 0];
  for (let bit = 7, rest = kind; rest > 0 && bit >= 0; bit--, rest >>= 3) {
    channels.forEach((_, c) => (channels[c] |= ((rest >> c) & 1) << bit));
  }
  return channels;
}
