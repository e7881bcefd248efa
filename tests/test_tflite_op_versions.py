"""Which runtimes load which file: what is claimed is compared with what the runtimes do, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_models as models

from edgeopt.errors import ConfigError
from edgeopt.exporters.micro import operators
from edgeopt.tflite import op_versions_update
from edgeopt.tflite.model import OperatorCode
from edgeopt.tflite.op_versions import PACKAGES, RuntimeNeed, minimum_runtime, truthful_versions, unsupported_by
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed

_PROBE = """
import json, sys
module = __import__(sys.argv[1] + ".interpreter", fromlist=["Interpreter"])
from edgeopt.tflite.op_versions_update import probe
print("RESULT" + json.dumps(probe(module.Interpreter)))
"""

FILES = {
    **{f"cnn {scheme}": (models.cnn, scheme) for scheme in models.SCHEMES},
    **{f"lstm {scheme}": (models.recurrent, scheme) for scheme in ("float32", "dynamic", "int8")},
    **{f"upsampling {scheme}": (models.upsampling, scheme) for scheme in ("float32", "dynamic", "int8")},
}
RECIPES = ("dynamic_wi8_afp32", "weight_only_wi8_afp32", "weight_only_wi4_afp32")


def _probe(package: str) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", _PROBE, package], capture_output=True, text=True, timeout=300)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    found: dict[str, int] = json.loads(line.removeprefix("RESULT"))
    return found


@pytest.mark.parametrize(("package", "module"), [("tflite-runtime", "tflite_runtime"), ("litert", "ai_edge_litert")])
def test_the_table_is_what_the_installed_runtime_accepts(package: str, module: str) -> None:
    pytest.importorskip(f"{module}.interpreter")
    from importlib.metadata import version

    from edgeopt.tflite.op_versions import _highest, _numbers

    release = _numbers(version("ai-edge-litert" if package == "litert" else package))
    accepted = _probe(module)
    known = json.loads(op_versions_update.TABLE.read_text())
    names = set(known["tflite"]) | set(accepted)
    table = {name: _highest(PACKAGES[package], name, release) for name in names}
    # Placeholders for operator codes past 127, and FlexDelegate's own.
    assert {n: v for n, v in table.items() if v} == {n: v for n, v in accepted.items() if "PLACEHOLDER" not in n}


@pytest.mark.parametrize(("package", "name"), [("tflite_runtime", "tflite-runtime"), ("tflite_micro", "tflm")])
@pytest.mark.parametrize("file", FILES)
def test_claims_about_a_file_hold(file: str, package: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    content = models.convert(*FILES[file])
    expected = models.run(content, "ai_edge_litert", tmp_path)
    result = models.run(content, package, tmp_path)
    assert expected is not None
    # Kernel families round differently; TFLM takes a dynamic-range LSTM without a word and answers NaN.
    right = result is not None and bool(np.abs(result - expected).max() < 0.05 * np.abs(expected).max())
    reasons = unsupported_by(read(content), name, "2.14" if name == "tflite-runtime" else "")
    assert bool(reasons) == (not right), reasons


@pytest.mark.parametrize("package", ["tflite_runtime", "tflite_micro", "ai_edge_litert"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_claims_hold_where_the_written_versions_lie(package: str, recipe: str, tmp_path: Path) -> None:
    """ai-edge-quantizer writes version 1 everywhere: an old runtime loads the file and computes something else."""
    pytest.importorskip("ai_edge_quantizer")
    pytest.importorskip(package)
    content = models.requantized(recipe)
    name = {"tflite_runtime": "tflite-runtime", "tflite_micro": "tflm", "ai_edge_litert": "ai-edge-litert"}[package]
    expected = models.run(models.convert(models.cnn, "float32"), "ai_edge_litert", tmp_path)
    result = models.run(content, package, tmp_path)
    assert expected is not None
    # On the right kernels 8 bits cost under 1 % here, 4 bits under 5 %.
    allowed = 0.15 if "wi4" in recipe else 0.03
    right = result is not None and np.abs(result - expected).max() < allowed * np.abs(expected).max()
    reasons = unsupported_by(read(content), name, "2.14" if package == "tflite_runtime" else "")
    assert bool(reasons) == (not right), reasons


def test_dynamic_dense_needs_2_17_and_says_why() -> None:
    model = read(models.convert(models.cnn, "dynamic"))
    assert unsupported_by(model, "tflite-runtime", "2.14") == (
        "FULLY_CONNECTED version 12 needs TensorFlow Lite 2.17, tflite-runtime 2.14 has up to 10",
    )
    need = minimum_runtime(model)
    assert (need.version, need.litert) == ("2.17", "1.0.1")
    assert [(r.operator, r.version, r.needs) for r in need.because] == [("FULLY_CONNECTED", 12, "2.17.0")]
    assert unsupported_by(model, "tflite-runtime", "2.17") == ()
    assert unsupported_by(model, "ai-edge-litert", "1.0.1") == ()
    assert unsupported_by(model, "ai-edge-litert") == ()


def test_operands_set_the_minimum_where_versions_do_not() -> None:
    model = read(models.convert(models.upsampling, "dynamic"))
    assert unsupported_by(model, "tflite-runtime", "2.14") == (
        "TRANSPOSE_CONV on its types of weights needs TensorFlow Lite 2.18, not tflite-runtime 2.14",
    )
    assert minimum_runtime(model).version == "2.18"
    assert minimum_runtime(read(models.convert(models.cnn, "float32"))) == RuntimeNeed(
        "1.6", "1.0.1", minimum_runtime(read(models.convert(models.cnn, "float32"))).because
    )


def test_what_tflm_lacks_is_named() -> None:
    assert unsupported_by(read(models.convert(models.cnn, "float16")), "tflm") == (
        "tflm's DEQUANTIZE takes no float16",
    )
    assert any(
        "dynamic-range kernels" in r for r in unsupported_by(read(models.convert(models.cnn, "dynamic")), "tflm")
    )
    sparse = read(models.convert(models.dense, "sparse", "pruned"))
    assert any("as if it were dense" in reason for reason in unsupported_by(sparse, "tflite-micro", "0.dev2026"))


def test_operators_that_no_runtime_has(tmp_path: Path) -> None:
    from edgeopt import frameworks

    tf = frameworks.load("tensorflow")
    function = tf.function(lambda x: tf.raw_ops.Erfinv(x=x), input_signature=[tf.TensorSpec((1, 4))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.allow_custom_ops = True
    content = bytes(converter.convert())
    model = read(content)
    assert unsupported_by(model, "litert") == ("custom operator 'Erfinv' is not part of litert",)
    assert models.run(content, "ai_edge_litert", tmp_path) is None
    need = minimum_runtime(model)
    assert (need.version, need.litert, [r.operator for r in need.because]) == ("", None, ["Erfinv"])


def test_operators_of_mediapipe_run_where_xnnpack_is() -> None:
    """Nothing registers them: an interpreter without XNNPACK says so itself when it opens the file."""
    code = OperatorCode("Convolution2DTransposeBias", 1, custom=True)
    model = replace(read(op_versions_update.model_that_names(0, 1)), codes=(code,))
    assert unsupported_by(model, "litert") == ()
    assert unsupported_by(model, "tflm") == ("custom operator 'Convolution2DTransposeBias' is not part of tflm",)


def test_tflm_runs_every_custom_operator_that_a_project_registers() -> None:
    for name in operators.CUSTOM:
        code = OperatorCode(name, 1, custom=True)
        model = replace(read(op_versions_update.model_that_names(0, 1)), codes=(code,))
        assert unsupported_by(model, "tflm") == ()


def test_versions_of_the_future_are_refused() -> None:
    schema_code, version = 3, 15  # CONV_2D
    model = read(op_versions_update.model_that_names(schema_code, version))
    assert unsupported_by(model, "ai-edge-litert", "2.3.0") == (
        "CONV_2D version 15 needs a runtime that is not known yet, ai-edge-litert 2.3.0 has up to 8",
    )
    assert minimum_runtime(model).version == ""


def test_truthful_versions() -> None:
    pytest.importorskip("ai_edge_quantizer")
    model = read(models.requantized("dynamic_wi8_afp32"))
    found = {model.codes[index].name: version for index, version in truthful_versions(model).items()}
    assert found == {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12}
    assert truthful_versions(read(models.convert(models.cnn, "dynamic"))) == {}


def test_unknown_packages_and_versions() -> None:
    model = read(op_versions_update.model_that_names(0, 1))
    with pytest.raises(
        ConfigError, match=r"Expected a runtime package, got 'tflite-runtme'\. Did you mean 'tflite-runtime'"
    ):
        unsupported_by(model, "tflite-runtme", "2.14")
    with pytest.raises(ConfigError, match=r"Expected a version such as 2\.14, got 'new'"):
        unsupported_by(model, "tflite-runtime", "new")


def test_the_table_can_be_brought_up_to_date() -> None:
    before = json.loads(op_versions_update.TABLE.read_text())
    source = "".join(
        f'{{{{BuiltinOperator_{name}, {number}}}, "{first}"}},\n'
        for name, versions in before["tflite"].items()
        for number, first in versions.items()
    )
    assert op_versions_update.update(source) == before
    assert op_versions_update.update('{{BuiltinOperator_TRANSPOSE, 7},\n "2.14.4"},')["tflite"] == {
        "TRANSPOSE": {"7": "2.20.0"}
    }


def test_a_dimension_that_a_vector_has_not_is_refused_by_full_interpreters(tmp_path: Path) -> None:
    """As in TFLM's own person detection of 2019, whose biases are quantized along dimension 3, as their weights are."""

    def stray(model: Any, schema: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if len(tensor.shape) == 1 and tensor.quantization is not None and tensor.quantization.scale is not None:
                tensor.quantization.quantizedDimension = 3

    content = changed(models.convert(models.cnn, "int8"), stray)
    assert models.run(content, "ai_edge_litert", tmp_path) is None
    assert models.run(content, "tflite_micro", tmp_path) is not None
    model = read(content)
    for package in ("litert", "tflite-runtime"):
        (reason,) = unsupported_by(model, package)
        assert reason.startswith(f"{package} refuses '")
        assert reason.endswith("of 1 dimensions, which is quantized along dimension 3")
    assert unsupported_by(model, "tflm") == ()


@pytest.mark.parametrize(
    ("operator", "activations", "weights", "words"),
    [
        ("DEPTHWISE_CONV_2D", "int16", "int4", "DEPTHWISE_CONV_2D with int4 weights and int16 activations"),
        ("CONV_2D", "int8", "int2", "CONV_2D with int2 weights"),
        ("TRANSPOSE_CONV", "int8", "int4", "TRANSPOSE_CONV with int4 weights"),
    ],
)
def test_what_no_release_computes(operator: str, activations: str, weights: str, words: str) -> None:
    content = models.convert(models.upsampling if operator == "TRANSPOSE_CONV" else models.cnn, "int8")
    model = read(content)
    graph = model.main
    place = next(o for o in graph.operators if o.name == operator)
    tensors = list(graph.tensors)
    position = 2 if operator == "TRANSPOSE_CONV" else 0
    for index, dtype in ((place.inputs[1], weights), (place.inputs[position], activations)):
        tensors[index] = replace(tensors[index], dtype=dtype)
    low = replace(model, subgraphs=(replace(graph, tensors=tuple(tensors)),))
    assert f"no release computes {words}" in unsupported_by(low, "litert")
    assert (minimum_runtime(low).version, minimum_runtime(low).litert) == ("", None)


def test_reference_kernels_know_less() -> None:
    model = read(models.convert(models.cnn, "int8"))
    codes = tuple(replace(c, version=7) if c.name == "DEPTHWISE_CONV_2D" else c for c in model.codes)
    low = replace(model, codes=codes)
    assert unsupported_by(low, "litert-builtin") == ()
    (reason,) = unsupported_by(low, "litert-reference")
    assert reason == "DEPTHWISE_CONV_2D version 7 needs TensorFlow Lite 2.11, litert-reference has up to 6"
