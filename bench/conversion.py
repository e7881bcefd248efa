"""Full int8 conversion of a Keras 3 ResNet-8 with 200 calibration samples beside a bare TFLiteConverter script.

Whole processes from the `.keras` file to the `.tflite`. Ours also proves the bridge, checks the data, reads the file
back and runs it. Then every default scheme in one run beside int8 alone, as `optimize` converts them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import common

_BY_HAND = """
import sys
import keras, numpy as np, tensorflow as tf
model = keras.models.load_model(sys.argv[1])
x = np.load(sys.argv[2])["x_train"][:200].astype(np.float32)
converter = tf.lite.TFLiteConverter.from_keras_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([sample[None]] for sample in x)
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(sys.argv[3], "wb").write(converter.convert())
"""

_SCHEMES = """
import sys
from pathlib import Path
from edgeopt import data
from edgeopt.conversion import ConvertOptions, IsolatedConverter
dataset = data.load(sys.argv[2])
with IsolatedConverter(Path(sys.argv[1]), ConvertOptions(calibration=dataset.calibration)) as converter:
    for scheme in sys.argv[4:]:
        converter.convert(scheme, Path(sys.argv[3]) / f"{scheme}.tflite")
"""


def section(*, repeats: int = 3) -> str:
    """Returns the tables of this benchmark as Markdown."""
    from edgeopt.schemes import DEFAULTS

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = common.reference_model(folder, "resnet8")
        generator = np.random.default_rng(0)
        x = generator.integers(0, 256, (1000, 32, 32, 3), np.uint8)
        y = generator.integers(0, 10, 1000)
        data = folder / "data.npz"
        np.savez(data, x_train=x, y_train=y, x_test=x[:100], y_test=y[:100])
        inputs = [str(model), str(data)]
        ours = [*common.EDGEOPT, "convert", str(model), "-o", str(folder / "ours.tflite"), "--scheme", "int8"]
        commands = {
            "TFLiteConverter script, int8": [sys.executable, "-c", _BY_HAND, *inputs, str(folder / "hand.tflite")],
            "`edgeopt convert --scheme int8`": [*ours, "--data", str(data), "--force"],
            "edgeopt, int8 alone": [sys.executable, "-c", _SCHEMES, *inputs, name, "int8"],
            "edgeopt, all schemes": [sys.executable, "-c", _SCHEMES, *inputs, name, *DEFAULTS],
        }
        seconds = common.in_turn(commands, repeats=repeats)
    first = next(iter(seconds.values()))
    rows = [
        [name, f"{statistics.median(values):.1f}", f"{common.ratio(values, first):.2f}"]
        for name, values in seconds.items()
    ]
    one, every = list(seconds.values())[2:]
    return (
        common.markdown(["whole process", "seconds", "times the script's"], rows)
        + f"\n\nAll schemes together take {common.ratio(every, one):.2f} times the time of int8 alone."
    )


if __name__ == "__main__":
    print(section())
