"""Data of any kind that edgeopt reads go in; a small, seeded, class-balanced sample of it comes out as a `.npz`.

    python calibration_data/make.py --data my_images/ --samples 200 -o calibration_data/mine.npz

Without options it makes `digits.npz` anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeopt import data, files
from edgeopt.errors import EdgeoptError

DIGITS = Path(__file__).parent / "digits.npz"
DIGITS_SAMPLES = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the sample and says what it holds; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="what `edgeopt --data` takes (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=DIGITS_SAMPLES, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (default: %(default)s)")
    parser.add_argument("--labels-column", help="CSV column or TFRecord feature that holds the labels")
    parser.add_argument("--resize", metavar="HxW", help="bring images to this size")
    parser.add_argument("-o", "--output", type=Path, default=DIGITS, help="the .npz (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="overwrite it")
    options = parser.parse_args(arguments)
    try:
        print(make(options))
    except EdgeoptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make(options: argparse.Namespace) -> str:
    """Writes the sample of the training part, raw (before scale, mean and deviation), and returns what to say of it."""
    files.require_free(options.output, force=options.force)
    loaded = data.load(
        options.data,
        calibration_samples=options.samples,
        seed=options.seed,
        labels_column=options.labels_column,
        preprocessing=data.parse_preprocessing(resize=options.resize),
    )
    sample = loaded.calibration.raw_arrays()
    arrays = {"x" if len(sample.inputs) == 1 else f"x_{name}": array for name, array in sample.inputs.items()}
    if sample.labels is not None:
        arrays["y"] = sample.labels
    with files.atomic_path(options.output) as temporary:
        np.savez_compressed(temporary, **arrays)
    told = (f"{n} {a.shape} {a.dtype}, {a.min():g} to {a.max():g}" for n, a in arrays.items())
    return f"{options.output}: {'; '.join(told)}; {options.output.stat().st_size} bytes"


if __name__ == "__main__":
    sys.exit(main())
