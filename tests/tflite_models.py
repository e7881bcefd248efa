"""Small real `.tflite` files of every kind, converted once for all test modules that read them."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks

CLUSTERS = 16
SCHEMES = ("float32", "float16", "dynamic", "int8", "int8-float-io", "int16x8")


@functools.cache
def cnn() -> Any:
    """Conv2D 3 → 8, depthwise, 1x1 8 → 160, Dense 160 → 10 on 16 x 16 x 3 images."""
    keras = frameworks.load("tf_keras")
    layers = keras.layers
    keras.utils.set_random_seed(1)
    image = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise", bias_initializer="normal")(x)
    x = layers.Conv2D(160, 1, activation="relu", name="pointwise", bias_initializer="normal")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(10, name="classes", bias_initializer="normal")(x))
    # Zeros in the biases would make the converter share or drop them.
    model.get_layer("norm").set_weights(
        [np.random.default_rng(i).uniform(0.5, 1.5, 8).astype("float32") for i in range(4)]
    )
    return model


@functools.cache
def recurrent() -> Any:
    """LSTM 64 → 32 over 12 steps, Dense 32 → 5; batch 1, so that it becomes one fused operator."""
    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(2)
    steps = keras.layers.Input((12, 64), batch_size=1)
    return keras.Model(steps, keras.layers.Dense(5)(keras.layers.LSTM(32)(steps)))


@functools.cache
def upsampling() -> Any:
    """Conv2DTranspose 16 → 16, the operator whose dynamic-range form older runtimes refuse late."""
    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(3)
    image = keras.layers.Input((8, 8, 16), batch_size=1)
    return keras.Model(image, keras.layers.Conv2DTranspose(16, 3, strides=2)(image))


@functools.cache
def with_a_float_operator() -> Any:
    """A cumulative sum, which has no integer kernel, between two Dense layers."""
    keras = frameworks.load("tf_keras")
    values = keras.layers.Input((8,), batch_size=1)
    summed = frameworks.load("tensorflow").cumsum(keras.layers.Dense(16)(values), axis=1)
    return keras.Model(values, keras.layers.Dense(4)(summed))


@functools.cache
def wide() -> Any:
    """A 1x1 convolution 2 → 8,000 on one pixel: scales of its channels take more memory than a small arena has."""
    keras = frameworks.load("tf_keras")
    pixel = keras.layers.Input((1, 1, 2), batch_size=1)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8000, 1)(pixel))
    return keras.Model(pixel, keras.layers.Dense(2)(x))


@functools.cache
def dense(kind: str = "random") -> Any:
    """Dense 96 → 64; kind "pruned" has 4 of 5 blocks of 1 x 4 at zero, "clustered" CLUSTERS distinct weights."""
    keras = frameworks.load("tf_keras")
    random = np.random.default_rng(4)
    kernel = random.normal(size=(96, 64)).astype("float32")
    if kind == "pruned":
        keep = np.arange(96 // 4 * 64).reshape(96 // 4, 64) % 5 == 0
        kernel *= np.repeat(keep, 4, axis=0)
    if kind == "clustered":
        kernel = random.normal(size=CLUSTERS).astype("float32")[random.integers(0, CLUSTERS, (96, 64))]
    values = keras.layers.Input((96,), batch_size=1)
    model = keras.Model(values, keras.layers.Dense(64, use_bias=False)(values))
    model.set_weights([kernel])
    return model


@functools.cache
def convert(build: Any, scheme: str, *arguments: str) -> bytes:
    """Converts `build(*arguments)` with TFLiteConverter; scheme is one of SCHEMES or "sparse"."""
    tf = frameworks.load("tensorflow")
    model = build(*arguments)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "sparse":
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme in ("int8", "int8-float-io", "int16x8"):
        shape = (1, *model.input_shape[1:])

        def samples() -> Iterator[list[np.ndarray]]:
            for seed in range(4):
                yield [np.random.default_rng(seed).normal(size=shape).astype("float32")]

        converter.representative_dataset = samples
    if scheme == "int16x8":
        kernels = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [kernels]
    if scheme == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


@functools.cache
def requantized(recipe: str) -> bytes:
    """Quantizes the float CNN's weights with a recipe of ai-edge-quantizer, which calls every operator version 1."""
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer import recipe as recipes

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.tflite"
        path.write_bytes(convert(cnn, "float32"))
        return bytes(quantizer.Quantizer(str(path), getattr(recipes, recipe)()).quantize().quantized_model)


def behind(content: bytes, change: Callable[[list[Any]], None] = lambda buffers: None) -> bytes:
    """Returns the file with its buffers behind its flatbuffer, as `change` leaves their offsets and sizes."""
    import flatbuffers

    schema = frameworks.load("litert_schema")

    def packed(start: int) -> tuple[bytes, bytes]:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        data = b""
        for buffer in model.buffers:
            if buffer.data is not None:
                data += bytes(-(start + len(data)) % 16)
                buffer.offset, buffer.size = start + len(data), len(buffer.data)
                data += bytes(buffer.data)
                buffer.data = None
        change(model.buffers)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output()), data

    flatbuffer, _ = packed(1 << 20)
    flatbuffer, data = packed(len(flatbuffer))
    return flatbuffer + data


_RUN = """
import json, sys
import numpy as np
package, path = sys.argv[1:]

def values(shape, dtype):
    size = 1 if np.dtype(dtype).kind == "f" else 30
    return (size * np.random.default_rng(9).normal(size=shape)).astype(dtype)

if package == "tflite_micro":
    from tflite_micro import runtime
    interpreter = runtime.Interpreter.from_file(path, arena_size=1 << 22)
    detail = interpreter.get_input_details(0)
    interpreter.set_input(values(detail["shape"], detail["dtype"]), 0)
    interpreter.invoke()
    result = interpreter.get_output(0)
else:
    module = __import__(package + ".interpreter", fromlist=["Interpreter"])
    interpreter = module.Interpreter(model_path=path)
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], values(detail["shape"], detail["dtype"]))
    interpreter.invoke()
    result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
print("RESULT" + json.dumps(result.astype(float).tolist()))
"""


def run(content: bytes, package: str, folder: Path) -> np.ndarray | None:
    """Runs a file in a process of its own and returns its first output; None where the runtime refuses it."""
    path = folder / "model.tflite"
    path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", _RUN, package, str(path)], capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return np.array(json.loads(lines[0].removeprefix("RESULT"))) if lines else None
