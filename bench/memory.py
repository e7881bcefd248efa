"""Peak memory of calibrating and evaluating on data far larger than it: a 2 GB `.npz` and a 2 GB folder of images."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from bench import common


def section(*, size_bytes: int = 2_000_000_000) -> str:
    """Returns the table of this benchmark as Markdown; all processes of a command are added up."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = common.reference_model(folder, "resnet8")
        file = folder / "resnet8.tflite"
        small = folder / "small.npz"
        _write_npz(small, 1000 * 32 * 32 * 3)
        npz, images = folder / "data.npz", folder / "images"
        _write_npz(npz, size_bytes)
        _write_images(images, size_bytes)
        rows = []
        for label, data, options in (
            ("3 MB .npz, to compare with", small, []),
            (f"{npz.stat().st_size / 1e9:.2f} GB .npz", npz, []),
            (f"{_folder_size(images) / 1e9:.2f} GB of PNG files", images, ["--resize", "32x32"]),
        ):
            settings = ["--data", str(data), *options]
            convert = ["convert", str(model), "-o", str(file), "--scheme", "int8", "--force"]
            calibrating = common.peak_memory_bytes([*common.EDGEOPT, *convert, *settings])
            evaluating = common.peak_memory_bytes([*common.EDGEOPT, "evaluate", str(file), *settings])
            rows.append([label, f"{calibrating / 1e6:.0f}", f"{evaluating / 1e6:.0f}"])
    return common.markdown(["data", "calibrate and convert, MB", "evaluate, MB"], rows)


def _write_npz(path: Path, size_bytes: int) -> None:
    samples = size_bytes // (32 * 32 * 3)
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (samples, 32, 32, 3), np.uint8)
    y = generator.integers(0, 10, samples)
    tenth = samples // 10
    np.savez(path, x_train=x[tenth:], y_train=y[tenth:], x_test=x[:tenth], y_test=y[:tenth])


def _write_images(folder: Path, size_bytes: int, *, side: int = 512) -> None:
    """Writes uncompressed PNGs of noise in ten class folders."""
    generator = np.random.default_rng(0)
    for number in range(size_bytes // (side * side * 3)):
        path = folder / str(number % 10) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(path, compress_level=0)


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.png"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    print(section(size_bytes=int(parser.parse_args().gigabytes * 1e9)))
