// A drop zone for pictures: a file goes in, the pixels that the model takes come out.
import { affine, channelsOf, resized } from "../preprocess.js";

// What is larger is halved first: a phone's photo as floats would take a gigabyte.
const LARGEST = 4096;

export function offer(section, model, run) {
  const label = document.createElement("label");
  label.className = "drop";
  label.textContent = "Drop a picture here, or choose one";
  const chooser = document.createElement("input");
  chooser.type = "file";
  chooser.accept = "image/*";
  label.append(chooser);
  const canvas = document.createElement("canvas");
  canvas.hidden = true;
  section.append(label, canvas);

  const take = (file) => file && run(read(file, canvas, model));
  chooser.addEventListener("change", () => take(chooser.files[0]));
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
  document.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
}

async function read(file, canvas, model) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`Expected a picture, got ${file.name}, which this browser cannot read.`);
  }
  const shrink = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * shrink));
  canvas.height = Math.max(1, Math.round(bitmap.height * shrink));
  canvas.hidden = false;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  // Where a picture is transparent, the data have black as well.
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const [, height, width, channels] = model.inputs[0].shape;
  const raw = channelsOf(data, channels, model.peak);
  const fitting = resized(raw, [canvas.height, canvas.width], [height, width], channels);
  return [affine(fitting, model.preprocessing)];
}
