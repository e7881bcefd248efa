"""Files and data go in; a table of the usual one-sample loop beside `edgeopt.evaluation.evaluate` comes out.

Both run in this process, one after the other, several times; the ratio of each pair counts, so that a busy machine
slows both. Predictions of the two are compared bit for bit. Without files it builds ResNet-8 and a small CNN with
random weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import data, frameworks
from edgeopt.evaluation import Predictor, evaluate_here
from edgeopt.runtimes import RUNTIMES


@dataclass(frozen=True)
class Row:
    """One file, as medians over the pairs of runs.

    Attributes:
        loop_s, ours_s: wall-clock time.
        ratio: of the two, pair by pair.
        processor_ratio: of the processor time of all threads, ours with the opening of the file: what others on the
            machine cannot change.
        equal: whether all outputs were the same bits.
    """

    name: str
    samples: int
    loop_s: float
    ours_s: float
    ratio: float
    processor_ratio: float
    equal: bool
    batch_size: int
    threads: int


def hand_loop(file: Path, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Returns outputs, accuracy, seconds and processor seconds of the usual loop: sample by sample on one thread.

    Each sample is quantized where it is fed, as TensorFlow's own guides do it.
    """
    interpreter = frameworks.load("litert").Interpreter(str(file))
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = inputs["quantization"]
    dtype = np.dtype(inputs["dtype"])
    results, right = [], 0
    start, used = time.perf_counter(), time.process_time()
    for i in range(len(x)):
        sample = x[i : i + 1]
        if scale:
            limits = np.iinfo(dtype)
            sample = np.clip(np.round(sample / scale + zero_point), limits.min, limits.max).astype(dtype)
        interpreter.set_tensor(inputs["index"], sample)
        interpreter.invoke()
        output = interpreter.get_tensor(outputs["index"])[0]
        results.append(output)
        right += int(np.argmax(output) == y[i])
    seconds, used = time.perf_counter() - start, time.process_time() - used
    return np.array(results), right / len(x), seconds, used


def measure(file: Path, x: np.ndarray, y: np.ndarray, *, repeats: int) -> Row:
    """Times the loop and ours in turn, `repeats` times."""
    part = data.load((x, y), validation_share=1).validation
    settings: dict[str, Any] = {"metric": "top1", "output": None, "threads": None, "batch_size": None, "delegate": None}
    loops, ours, processor, equal = [], [], [], True
    for _ in range(repeats):
        outputs, accuracy, seconds, loop_used = hand_loop(file, x, y)
        loops.append(seconds)
        used = time.process_time()
        result = evaluate_here(file, part, RUNTIMES["litert"], **settings)
        ours.append(result.seconds)
        processor.append(loop_used / (time.process_time() - used))
        with Predictor(file, part, RUNTIMES["litert"]) as predictor:
            (name,) = (spec.name for spec in predictor.outputs)
            got = predictor.raw(predictor.part.arrays())[name]
        equal &= outputs.tobytes() == got.tobytes() and abs(accuracy - result.metric.value) < 1e-12
    ratio = statistics.median(loop / our for loop, our in zip(loops, ours))
    return Row(
        file.stem,
        len(x),
        statistics.median(loops),
        statistics.median(ours),
        ratio,
        statistics.median(processor),
        equal,
        result.batch_size,
        result.threads,
    )


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| model | samples | loop s | edgeopt s | times faster | less processor time | batch x threads | same bits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.name} | {row.samples} | {row.loop_s:.3f} | {row.ours_s:.3f} | {row.ratio:.2f} | "
            f"{row.processor_ratio:.2f} | {row.batch_size} x {row.threads} | {'yes' if row.equal else 'NO'} |"
        )
    return "\n".join(lines)


def resnet8(keras: Any) -> Any:
    """Returns ResNet-8 of MLPerf Tiny, 32x32x3 to 10 classes, untrained."""
    layers = keras.layers

    def convolution(x: Any, filters: int, *, strides: int = 1, relu: bool = True) -> Any:
        x = layers.Conv2D(filters, 3, strides=strides, padding="same")(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU()(x) if relu else x

    inputs = keras.Input((32, 32, 3))
    x = convolution(inputs, 16)
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = convolution(convolution(x, filters, strides=strides), filters, relu=False)
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides=strides, padding="same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def small_cnn(keras: Any) -> Any:
    """Returns a CNN of a few microseconds, 8x8x1 to 10 classes, untrained."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def build(folder: Path, make: Callable[[Any], Any], *, integer: bool) -> Path:
    """Converts an untrained model, calibrated on random samples."""
    tensorflow, keras = frameworks.load("tensorflow"), frameworks.load("tf_keras")
    keras.utils.set_random_seed(0)
    model = make(keras)
    converter = tensorflow.lite.TFLiteConverter.from_keras_model(model)
    if integer:
        samples = np.random.default_rng(0).random((32, *model.input_shape[1:]), np.float32)
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tensorflow.int8
    file = folder / f"{make.__name__}_{'int8' if integer else 'float32'}.tflite"
    file.write_bytes(converter.convert())
    return file


def section(files: Sequence[Path] = (), *, samples: int = 5000, repeats: int = 7) -> str:
    """Returns the table of this benchmark as Markdown.

    Raises:
        ValueError: outputs differ.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        chosen = files or [
            build(Path(folder), make, integer=integer) for make in (resnet8, small_cnn) for integer in (True, False)
        ]
        for file in chosen:
            interpreter = frameworks.load("litert").Interpreter(str(file))
            shape = interpreter.get_input_details()[0]["shape"][1:]
            generator = np.random.default_rng(0)
            # Pixels: no value lies between two steps of the input, where the two could round differently.
            x = (generator.integers(0, 256, (samples, *shape)) / 255).astype(np.float32)
            y = generator.integers(0, interpreter.get_output_details()[0]["shape"][-1], samples)
            rows.append(measure(file, x, y, repeats=repeats))
    if unequal := [row.name for row in rows if not row.equal]:
        raise ValueError(f"outputs differ from the loop's: {', '.join(unequal)}")
    return table(rows)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path, help="classifiers with one float or quantized input")
    parser.add_argument("--samples", type=int, default=5000, help="random ones (default: 5000)")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of runs (default: 7)")
    options = parser.parse_args()
    print(section(options.files, samples=options.samples, repeats=options.repeats))


if __name__ == "__main__":
    main()
