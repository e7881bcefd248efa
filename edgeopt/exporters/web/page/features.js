// A waveform goes in; it, its log mel spectrogram or its MFCCs come out, as tf.signal computes them.

const FLOOR = 1e-6;

export function features(wave, sound) {
  if (sound.features === "waveform") return wave;
  const { window, hop, frames, mels, coefficients } = sound;
  const size = 2 ** Math.ceil(Math.log2(window));
  const hann = Float64Array.from({ length: window }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / window));
  const weights = melWeights(sound, size / 2 + 1);
  const kept = sound.features === "mfcc" ? coefficients : mels;
  const out = new Float32Array(frames * kept);
  for (let frame = 0; frame < frames; frame++) {
    const spectrum = magnitudes(wave.subarray(frame * hop, frame * hop + window), hann, size);
    if (sound.spectrum === "power") spectrum.forEach((value, i) => (spectrum[i] = value * value));
    const logs = weights.map((band) => logarithm(band.reduce((sum, w, i) => sum + w * spectrum[i], 0), sound.log));
    out.set(sound.features === "mfcc" ? cosines(logs, kept) : logs, frame * kept);
  }
  return out;
}

function logarithm(energy, kind) {
  return { ln: Math.log, log10: Math.log10, db: (value) => 10 * Math.log10(value) }[kind](energy + FLOOR);
}

// HTK's mel scale, triangles between bands: tf.signal.linear_to_mel_weight_matrix. [bands][bins], without the 0 Hz bin.
function melWeights({ rate, mels, low, high }, bins) {
  const mel = (hertz) => 1127 * Math.log1p(hertz / 700);
  const edges = Array.from({ length: mels + 2 }, (_, i) => mel(low) + ((mel(high) - mel(low)) * i) / (mels + 1));
  return Array.from({ length: mels }, (_, band) =>
    Float64Array.from({ length: bins }, (_, bin) => {
      if (bin === 0) return 0;
      const at = mel((bin * rate) / 2 / (bins - 1));
      const [left, centre, right] = edges.slice(band, band + 3);
      return Math.max(0, Math.min((at - left) / (centre - left), (right - at) / (right - centre)));
    }),
  );
}

// DCT-II with tf.signal.mfccs_from_log_mel_spectrograms' factor.
function cosines(logs, kept) {
  const count = logs.length;
  return Array.from({ length: kept }, (_, k) =>
    logs.reduce((sum, value, i) => sum + 2 * value * Math.cos((Math.PI * k * (i + 0.5)) / count), 0) / Math.sqrt(2 * count),
  );
}

// |FFT| of a windowed frame: radix 2, in place.
function magnitudes(frame, hann, size) {
  const re = new Float64Array(size);
  const im = new Float64Array(size);
  const bits = Math.log2(size);
  for (let i = 0; i < frame.length; i++) {
    let to = 0;
    for (let b = 0; b < bits; b++) to |= ((i >> b) & 1) << (bits - 1 - b);
    re[to] = frame[i] * hann[i];
  }
  for (let half = 1; half < size; half *= 2) {
    for (let k = 0; k < half; k++) {
      const [c, s] = [Math.cos((-Math.PI * k) / half), Math.sin((-Math.PI * k) / half)];
      for (let i = k; i < size; i += 2 * half) {
        const j = i + half;
        const [x, y] = [re[j] * c - im[j] * s, re[j] * s + im[j] * c];
        [re[j], im[j]] = [re[i] - x, im[i] - y];
        [re[i], im[i]] = [re[i] + x, im[i] + y];
      }
    }
  }
  return Float64Array.from({ length: size / 2 + 1 }, (_, i) => Math.hypot(re[i], im[i]));
}
