// Raw values go in, what the model takes comes out: an optional resize, then (value * scale - mean) / std.

export function affine(raw, { scale, mean, std }) {
  const f = Math.fround;
  return Float32Array.from(raw, (value, i) =>
    f(f(f(f(value) * f(scale)) - f(mean[i % mean.length])) / f(std[i % std.length])),
  );
}

// Two taps a direction, half-pixel centres, no smoothing: as tf.image.resize by default.
export function resized(pixels, [height, width], [rows, columns], channels) {
  const down = taps(height, rows);
  const across = taps(width, columns);
  const out = new Float32Array(rows * columns * channels);
  for (let y = 0, at = 0; y < rows; y++) {
    const top = down[y].lower * width;
    const bottom = down[y].upper * width;
    for (let x = 0; x < columns; x++) {
      const { lower, upper, share } = across[x];
      for (let c = 0; c < channels; c++) {
        const value = (row, column) => pixels[(row + column) * channels + c];
        const above = value(top, lower) + (value(top, upper) - value(top, lower)) * share;
        const below = value(bottom, lower) + (value(bottom, upper) - value(bottom, lower)) * share;
        out[at++] = above + (below - above) * down[y].share;
      }
    }
  }
  return out;
}

function taps(length, wanted) {
  return Array.from({ length: wanted }, (_, i) => {
    const centre = (i + 0.5) * (length / wanted) - 0.5;
    const floor = Math.floor(centre);
    return { lower: Math.max(floor, 0), upper: Math.min(Math.ceil(centre), length - 1), share: centre - floor };
  });
}

// RGBA bytes, as a canvas gives them, as raw values of one or three channels, 0 to `peak`.
export function channelsOf(rgba, channels, peak) {
  const count = rgba.length / 4;
  const out = new Float32Array(count * channels);
  for (let i = 0; i < count; i++) {
    const [red, green, blue] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
    if (channels === 3) out.set([red, green, blue], 3 * i);
    // ITU-R 601 in 16 bits, as Pillow's "L".
    else out[i] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
  }
  return peak === 255 ? out : out.map((value) => (value * peak) / 255);
}
