// A microphone and sound files: a recording goes in, the waveform or the features that the model takes come out.
import { features } from "../features.js";
import { affine } from "../preprocess.js";

export function offer(section, model, run) {
  const seconds = model.sound.samples / model.sound.rate;
  const label = document.createElement("label");
  label.className = "drop";
  label.textContent = `Drop a sound file here, or choose one: its loudest ${seconds.toPrecision(3)} s are heard`;
  const chooser = document.createElement("input");
  chooser.type = "file";
  chooser.accept = "audio/*";
  label.append(chooser);
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `Listen for ${seconds.toPrecision(3)} s`;
  section.append(label, button);

  const take = (file) => file && run(file.arrayBuffer().then((bytes) => heard(bytes, file.name, model)));
  chooser.addEventListener("change", () => take(chooser.files[0]));
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
  document.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
  button.addEventListener("click", () => {
    button.disabled = true;
    const recording = record(seconds).then((bytes) => heard(bytes, "the recording", model));
    run(recording).finally(() => (button.disabled = false));
  });
}

async function record(seconds) {
  if (!navigator.mediaDevices) throw new Error("A browser gives its microphone to pages of https and localhost only.");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  try {
    const recorder = new MediaRecorder(stream);
    const parts = [];
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    const stopped = new Promise((resolve) => recorder.addEventListener("stop", resolve));
    recorder.start();
    // Encoders swallow the first and the last moments.
    setTimeout(() => recorder.stop(), 1000 * seconds + 300);
    await stopped;
    return await new Blob(parts).arrayBuffer();
  } finally {
    stream.getTracks().forEach((track) => track.stop());
  }
}

async function heard(bytes, name, model) {
  const { rate, samples } = model.sound;
  let audio;
  try {
    // Decoding resamples to the context's rate.
    audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  } catch {
    throw new Error(`Expected a sound, got ${name}, which this browser cannot read.`);
  }
  const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
  const mixed = channels[0].map((_, i) => channels.reduce((sum, one) => sum + one[i], 0) / channels.length);
  const wave = loudest(mixed, samples).map((value) => value * model.peak);
  return [affine(features(wave, model.sound), model.preprocessing)];
}

// Shorter ones get silence behind them, as in most data of keywords.
export function loudest(wave, length) {
  const part = new Float32Array(length);
  let energy = 0;
  let most = -1;
  let end = Math.min(length, wave.length);
  for (let i = 0; i < wave.length; i++) {
    energy += wave[i] ** 2 - (i >= length ? wave[i - length] ** 2 : 0);
    if (i + 1 >= length && energy > most) [most, end] = [energy, i + 1];
  }
  part.set(wave.subarray(Math.max(0, end - length), end));
  return part;
}
