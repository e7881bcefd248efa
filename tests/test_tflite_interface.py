"""Files with other dtypes at their inputs and outputs compute the same real values on every runtime that takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runtime_models

from edgeopt import frameworks, runtimes, workers
from edgeopt.errors import ModelError
from edgeopt.runtimes import samples
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.tflite.interface import with_interface, with_moved_integers, with_static_shapes
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed


def _outputs(content: bytes, real: list[dict[str, np.ndarray]], folder: Path, runtime: str) -> list[np.ndarray]:
    file = folder / "model.tflite"
    file.write_bytes(content)
    model = read(content)
    session = runtimes.isolated(file, runtimes.RUNTIMES[runtime])
    try:
        given = [{spec.name: quantize(sample[spec.name], spec) for spec in model.inputs} for sample in real]
        results = [session.run(sample) for sample in given]
    finally:
        session.close()
    return [dequantize(result[spec.name], spec) for result in results for spec in model.outputs]


def _real(model: TFLiteModel) -> list[dict[str, np.ndarray]]:
    """Returns inputs that the file stores exactly."""
    made = [samples.generated(model.inputs, seed=seed) for seed in range(3)]
    return [{spec.name: dequantize(sample[spec.name], spec) for spec in model.inputs} for sample in made]


@pytest.mark.parametrize("runtime", ["litert", "litert-reference", "tflite-runtime", "tflm"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("scheme", ["int8", "int8-float-io"])
def test_other_edges_give_the_same_values(scheme: str, dtype: str, runtime: str, tmp_path: Path) -> None:
    pytest.importorskip({"tflm": "tflite_micro", "tflite-runtime": "tflite_runtime"}.get(runtime, "ai_edge_litert"))
    content = runtime_models.models()[scheme].read_bytes()
    stored = read(runtime_models.models()["int8"].read_bytes())
    real = _real(stored)
    expected = _outputs(content, real, tmp_path, runtime)
    changed = with_interface(content, dtype)
    model = read(changed)
    assert {spec.dtype for spec in (*model.inputs, *model.outputs)} == {dtype}
    assert [spec.name for spec in model.inputs] == [spec.name for spec in read(content).inputs]
    for wanted, got in zip(expected, _outputs(changed, real, tmp_path, runtime), strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_the_way_back_is_the_same_file_inside(tmp_path: Path) -> None:
    content = runtime_models.models()["int8"].read_bytes()
    there = with_interface(with_interface(content, "float32"), "uint8")
    real = _real(read(content))
    expected, got = (_outputs(c, real, tmp_path, "litert") for c in (content, there))
    np.testing.assert_array_equal(expected, got)
    assert read(there).inputs[0].dtype == "uint8"


@pytest.mark.parametrize("scheme", ["float32", "dynamic"])
def test_a_float_file_has_no_scale_for_bytes(scheme: str) -> None:
    content = runtime_models.models()[scheme].read_bytes()
    assert with_interface(content, "float32") == content
    with pytest.raises(ModelError, match=r"Expected a file quantized to int8 for uint8 .*, got .*picture"):
        with_interface(content, "uint8")


def test_free_dimensions_become_those_that_are_stored(tmp_path: Path) -> None:
    content = runtime_models.models()["float32"].read_bytes()
    fixed = with_static_shapes(content)
    before, after = read(content), read(fixed)
    assert before.inputs[0].shape == (None, 8, 8, 1)
    assert after.inputs[0].shape == (1, 8, 8, 1)
    assert with_static_shapes(fixed) == fixed
    real = [samples.generated(before.inputs, seed=0)]
    expected, got = (_outputs(c, real, tmp_path, "litert") for c in (content, fixed))
    np.testing.assert_array_equal(expected, got)


def test_tensors_without_names_get_other_edges() -> None:
    """Microcontrollers' files have none."""

    def forget(model: Any, schema: Any) -> None:
        model.signatureDefs = None
        for tensor in model.subgraphs[0].tensors:
            tensor.name = None

    content = changed(runtime_models.models()["int8"].read_bytes(), forget)
    model = read(with_interface(content, "float32"))
    assert [(spec.name, spec.dtype) for spec in (*model.inputs, *model.outputs)] == [("", "float32")] * 2


def write_maps(file: Path) -> None:
    """Writes an int8 network whose first output, a sigmoid, is read in two scales and put into another shape."""
    tf, keras = frameworks.load("tensorflow"), frameworks.load("tf_keras")
    layers, random = keras.layers, np.random.default_rng(0)
    picture = layers.Input((8, 8, 1), batch_size=1)
    hidden = layers.Conv2D(4, 3, padding="same", activation="relu")(picture)
    first = layers.Conv2D(2, 3, padding="same", activation="sigmoid")(hidden)
    second = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(layers.Concatenate()([hidden, first]))
    outputs = [layers.Reshape((2, 64))(layers.Permute((3, 1, 2))(first)), layers.Reshape((8, 8))(second)]
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(picture, outputs))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [sample] for sample in random.normal(size=(32, 1, 8, 8, 1)).astype(np.float32)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    file.write_bytes(converter.convert())


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("maps") / "maps.tflite"
    with workers.Worker() as worker:
        worker.call("test_tflite_interface:write_maps", file, timeout_s=120)
    return file.read_bytes()


@pytest.mark.parametrize("runtime", ["litert", "litert-reference", "tflm"])
def test_outputs_that_only_take_another_shape_stay_integers(maps: bytes, runtime: str, tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro" if runtime == "tflm" else "ai_edge_litert")
    assert sorted(spec.dtype for spec in read(maps).outputs) == ["float32", "int8"], "else there is nothing to mend"
    changed = with_moved_integers(maps)
    assert [spec.dtype for spec in read(changed).outputs] == ["int8", "int8"]
    assert "DEQUANTIZE" not in [operator.name for operator in read(changed).main.operators]
    real = _real(read(maps))
    wanted, got = (_outputs(one, real, tmp_path, runtime) for one in (maps, changed))
    for before, after in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(before, after)
    assert with_moved_integers(changed) == changed
