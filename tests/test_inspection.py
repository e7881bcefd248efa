"""What `inspect` says of real files and models, compared with what they are and what conversion makes of them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tflite_models as models

from edgeopt import files, frameworks
from edgeopt.advice import advice
from edgeopt.errors import ModelError
from edgeopt.inspection import Inspection, inspect_converted, inspect_keras, inspection_tables
from edgeopt.loading import LoadedModel
from edgeopt.plain import to_plain
from edgeopt.prospects import Advice
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import TECHNIQUES
from edgeopt.tflite.rewrite import compact
from edgeopt.vocabulary import TensorSpec


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspection")


def _inspect(folder: Path, *source: Any) -> Inspection:
    path = folder / f"{'-'.join(getattr(part, '__name__', part) for part in source)}.tflite"
    path.write_bytes(models.convert(*source))
    return inspect_converted(path)


def _inspect_keras(folder: Path, model: Any, **fields: Any) -> Inspection:
    path = folder / f"{model.name}.h5"
    model.save(path)
    spec = TensorSpec("input", tuple(model.input_shape))
    loaded = LoadedModel(path, "keras2-h5", (spec,), (), keras=model, original=model)
    return inspect_keras(replace(loaded, **fields))


def _advice(inspection: Inspection) -> dict[str, Advice]:
    return {each.technique: each for each in advice(inspection.facts)}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ((models.cnn, "float32"), "float32, float32 inputs and outputs"),
        ((models.cnn, "float16"), "float16 weights, float32 arithmetic, float32 inputs and outputs"),
        (
            (models.cnn, "dynamic"),
            "dynamic range: int8 weights, activations quantized at each inference; weights left in float: CONV_2D, "
            "DEPTHWISE_CONV_2D, float32 inputs and outputs",
        ),
        ((models.cnn, "int8"), "full int8, int8 inputs and outputs"),
        ((models.cnn, "int8-float-io"), "full int8, float32 inputs and outputs"),
        ((models.cnn, "int16x8"), "int16x8: int16 activations, int8 weights, float32 inputs and outputs"),
        ((models.recurrent, "int8"), "full int8, int8 inputs and outputs"),
        ((models.dense, "sparse", "pruned"), "float32, float32 inputs and outputs"),
    ],
    ids=lambda part: part if isinstance(part, str) else "-".join(map(str, part[1:])),
)
def test_a_file_is_called_by_what_runs(source: tuple[Any, ...], words: str, folder: Path) -> None:
    assert _inspect(folder, *source).quantization == words


def test_weight_only_and_mixed_files(folder: Path) -> None:
    pytest.importorskip("ai_edge_quantizer")
    path = folder / "weight-only.tflite"
    path.write_bytes(models.requantized("weight_only_wi8_afp32"))
    assert inspect_converted(path).quantization.startswith("weight-only int8: widened to float32 at each inference")
    inspection = _inspect(folder, models.with_a_float_operator, "int8-float-io")
    assert inspection.quantization == "mixed: int8, but CUMSUM in float32, float32 inputs and outputs"


def test_a_file_in_full(folder: Path) -> None:
    inspection = _inspect(folder, models.cnn, "int8")
    content = models.convert(models.cnn, "int8")
    assert (inspection.size_bytes, inspection.gzip_bytes) == (len(content), files.gzip_size(content))
    assert sum(inspection.bytes_by_kind.values()) == len(content)
    assert [(r.kind, r.version) for r in inspection.rows] == [
        ("CONV_2D", 3),
        ("DEPTHWISE_CONV_2D", 3),
        ("CONV_2D", 3),
        ("MEAN", 2),
        ("FULLY_CONNECTED", 4),
    ]
    pointwise = inspection.rows[2]
    assert (pointwise.parameters, pointwise.macs) == (160 * 8 + 160, 14 * 14 * 160 * 8)
    assert (pointwise.output_shape, pointwise.weight_dtype) == ((None, 14, 14, 160), "int8")
    assert sum(r.parameters for r in inspection.rows) == inspection.parameters
    assert sum(r.macs for r in inspection.rows) == inspection.macs
    assert inspection.inputs[0].quantization is not None
    assert inspection.verdicts == dict.fromkeys(("litert", "tflite-runtime", "tflm", "c99"), ())
    assert inspection.runtime is not None
    assert inspection.runtime.version == "2.14"
    plain = json.loads(json.dumps(to_plain(inspection)))
    assert plain["rows"][0]["kind"] == "CONV_2D"
    assert plain["inputs"][0]["quantization"]["scales"] == [pytest.approx(inspection.inputs[0].quantization.scales[0])]


def test_rows_of_pruned_and_clustered_files(folder: Path) -> None:
    (sparse,) = _inspect(folder, models.dense, "sparse", "pruned").rows
    (pruned,) = _inspect(folder, models.dense, "float32", "pruned").rows
    assert sparse.note == "sparse in blocks of 1x4"
    assert sparse.sparsity == pruned.sparsity == pytest.approx(4 / 5, abs=0.01)
    (clustered,) = _inspect(folder, models.dense, "float32", "clustered").rows
    assert clustered.unique_weights == models.CLUSTERS


def test_shared_model(shared: Path) -> None:
    inspection = inspect_converted(shared / "models" / "kws_ref_model.tflite")
    assert inspection.quantization == "full int8, int8 inputs and outputs"
    assert not any(each.possible for each in advice(inspection.facts))
    assert "start from the float model" in _advice(inspection)["int8"].reason


def test_keras_rows_and_macs_agree_with_the_converted_file(folder: Path) -> None:
    keras = _inspect_keras(folder, models.cnn())
    converted = _inspect(folder, models.cnn, "float32")
    assert keras.macs == converted.macs
    assert keras.parameters == models.cnn().count_params()
    assert sum(keras.bytes_by_kind.values()) == 4 * keras.parameters
    # BatchNormalization folds into the weights before it.
    assert keras.bytes_by_kind["constants"] == 4 * 4 * 8
    assert [r.kind for r in keras.rows][:3] == ["Conv2D", "BatchNormalization", "ReLU"]
    assert keras.rows[0].parameters == 3 * 3 * 3 * 8 + 8
    assert (keras.runtime, keras.gzip_bytes, keras.format) == (None, None, "keras2-h5")
    assert _inspect_keras(folder, models.recurrent()).macs == _inspect(folder, models.recurrent, "float32").macs
    assert _inspect_keras(folder, models.upsampling()).macs == _inspect(folder, models.upsampling, "float32").macs


def test_keras_layers_of_many_kinds(folder: Path) -> None:
    layers = frameworks.load("tf_keras").layers
    steps = layers.Input((10, 16), name="steps")
    x = layers.Conv1D(8, 3, padding="same")(steps)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.TimeDistributed(layers.Dense(5))(x)
    shared_layer = layers.Dense(5)
    x = shared_layer(shared_layer(x))
    model = frameworks.load("tf_keras").Model(steps, layers.GRU(6)(x))
    inspection = _inspect_keras(folder, model)
    macs = {row.kind: row.macs for row in inspection.rows}
    assert macs["Conv1D"] == 10 * 8 * 3 * 16
    assert macs["Bidirectional"] == 2 * 10 * 4 * (8 * 4 + 4 * 4)
    assert macs["MultiHeadAttention"] == 10 * 4 * (8 * 2 * 3) + 2 * 10 * 10 * 2 * 3
    assert macs["TimeDistributed"] == 10 * 8 * 5
    assert macs["Dense"] == 10 * 5 * 5
    assert macs["GRU"] == 10 * 3 * (5 * 6 + 6 * 6)
    assert [row.note for row in inspection.rows if row.kind == "Dense"] == ["", "shares the weights of an earlier call"]
    found = _advice(inspection)
    assert "become loops, which are unrolled" in found["int8"].reason
    assert found["int16x8"].possible
    assert "MultiHeadAttention (1 layer)" in found["qat"].reason
    assert "Conv1D" not in found["qat"].reason
    assert "nothing to gain: all weight tensors have under 1024 elements" in found["dynamic"].reason


def test_keras3_layers_are_called_as_the_user_knows_them(folder: Path) -> None:
    from edgeopt import keras_bridge

    keras = frameworks.load("keras")
    x = keras.Input((8, 8, 3))
    y = keras.layers.RandomFlip()(x)
    y = keras.layers.Conv2D(4, 3, activation="hard_silu")(y + 1.0)
    bridged, _ = keras_bridge.to_keras2(keras.Model(x, keras.layers.GlobalMaxPooling2D()(y)))
    inspection = _inspect_keras(folder, bridged)
    assert [row.kind for row in inspection.rows] == ["RandomFlip", "Add", "Conv2D", "Activation", "GlobalMaxPooling2D"]
    assert all(_advice(inspection)[scheme].possible for scheme in ("float16", "dynamic", "int8", "int16x8"))


def _predicted_bytes(gain: str) -> float:
    match = re.search(r"→ ([\d.]+) (k?)B", gain)
    assert match is not None
    return float(match.group(1)) * (1000 if match.group(2) else 1)


@pytest.mark.parametrize(("technique", "scheme"), [("float16",) * 2, ("dynamic",) * 2, ("int8",) * 2, ("int16x8",) * 2])
@pytest.mark.parametrize("build", [models.cnn, models.dense])
def test_predicted_sizes_are_near_those_of_conversion(build: Any, technique: str, scheme: str, folder: Path) -> None:
    verdict = _advice(_inspect(folder, build, "float32"))[technique]
    assert verdict.possible
    assert _predicted_bytes(verdict.gain) == pytest.approx(len(compact(models.convert(build, scheme))), rel=0.2)


@pytest.mark.parametrize("build", [models.cnn, models.dense])
def test_a_file_of_float16_weights_is_converted_as_its_float32_twin(build: Any, folder: Path) -> None:
    half, whole = (_inspect(folder, build, scheme) for scheme in ("float16", "float32"))
    # Operators that widen the weights are left in.
    assert half.facts.float_bytes == pytest.approx(whole.size_bytes, rel=0.1)
    assert _advice(half)["int8"].possible
    expected = _predicted_bytes(_advice(whole)["int8"].gain)
    assert _predicted_bytes(_advice(half)["int8"].gain) == pytest.approx(expected, rel=0.2)


SCHEMES_ADVISED = (
    *("float16", "dynamic", "int8", "int16x8"),
    *("int4", "int4x16", "int4-weights", "int4-block32", "int2"),
)


def test_verdicts_on_a_keras_model(folder: Path) -> None:
    found = _advice(_inspect_keras(folder, models.cnn()))
    assert tuple(found) == (*SCHEMES_ADVISED, *TECHNIQUES)
    assert all(verdict.possible for verdict in found.values())
    assert all(verdict.reason.isprintable() for verdict in found.values()), "a mark of a setting is for errors alone"
    kernels = 8 * 3 * 3 * 3 + 8 * 3 * 3 + 160 * 8 + 10 * 160
    assert f"depthwise kernels ({8 * 3 * 3 / kernels:.1%} of the weights) are pruned" in found["prune"].reason
    macs = 16 * 16 * 8 * 27 + 14 * 14 * 8 * 9 + 14 * 14 * 160 * 8 + 160 * 10
    assert f"{14 * 14 * 160 * 8 / macs:.0%} of the MACs here" in found["prune"].reason
    assert "only compressed storage or transfer gains" in found["prune"].reason
    assert "gains only when compressed" in found["cluster"].reason
    assert "TensorFlow Lite 2.17 or newer" in found["dynamic"].reason
    assert found["qat"].reason == "every layer is trained in int8"


def test_verdicts_where_layers_cannot_be_trained(folder: Path) -> None:
    float_file = _advice(_inspect(folder, models.cnn, "float32"))
    assert [name for name in float_file if name in SCHEMES and float_file[name].possible] == list(SCHEMES_ADVISED)
    assert "a .tflite cannot be trained" in float_file["prune"].reason
    unbridged = _inspect_keras(folder, models.cnn(), keras=None, unbridged=(("odd", "a custom layer"),))
    assert not _advice(unbridged)["qat"].possible
    assert unbridged.notes == ("odd could not be bridged: a custom layer",)
    assert unbridged.parameters == models.cnn().count_params()


def test_tables_show_it_and_nothing_steers_the_terminal(folder: Path) -> None:
    from rich.console import Console

    path = folder / "names.tflite"
    path.write_bytes(models.convert(models.cnn, "int8").replace(b"pointwise", b"[b]\x1b[31m."))
    shown = io.StringIO()
    for table in inspection_tables(inspect_converted(path)):
        Console(file=shown, width=200).print(table)
    text = shown.getvalue()
    assert "\x1b" not in text
    assert "[b]\\x1b[31m" in text
    for word in ("DEPTHWISE_CONV_2D v3", "zero point", "full int8", "TensorFlow Lite 2.14", "What each technique"):
        assert word in text
    shown.truncate(0)
    for table in inspection_tables(_inspect_keras(folder, models.cnn())):
        Console(file=shown, width=200).print(table)
    assert "SeparableConv2D" not in shown.getvalue()
    assert "GlobalAveragePooling2D" in shown.getvalue()
    for width in (60, 80):
        shown = io.StringIO()
        for table in inspection_tables(inspect_converted(path), width=width):
            Console(file=shown, width=width).print(table)
        assert "DEPTHWISE_CONV_2D v3" in shown.getvalue()
        assert "no room for distinct" in shown.getvalue()


def test_a_file_is_inspected_without_tensorflow_and_fast(folder: Path) -> None:
    import numpy as np

    content = models.convert(models.dense, "float32")
    path = folder / "large.tflite"
    kernel = np.random.default_rng(0).normal(size=(2048, 512)).astype("float32")
    from edgeopt.tflite.rewrite import with_metadata

    path.write_bytes(with_metadata(content, "PADDING", kernel.tobytes()))
    code = (
        "import sys, time; from edgeopt.inspection import inspect_converted; from edgeopt import frameworks\n"
        "frameworks.load('litert_schema')\n"
        "start = time.process_time(); inspect_converted(sys.argv[1]); took = time.process_time() - start\n"
        "print(took, [m for m in ('tensorflow', 'keras', 'tf_keras') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    took, heavy = done.stdout.split(" ", 1)
    assert heavy.strip() == "[]"
    # 4 MB: some 0.2 s of gzip and little else.
    assert float(took) < 1.0


def test_a_missing_file_is_said() -> None:
    with pytest.raises(ModelError, match="does not exist"):
        inspect_converted("none.tflite")
