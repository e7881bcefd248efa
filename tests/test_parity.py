"""Whether two runtimes compute the same: they do on honest files, and a file that only seems to run is caught."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import runtime_models

from edgeopt import data, frameworks, parity, runtimes, workers
from edgeopt.conversion.converter import Converter, ConvertOptions
from edgeopt.errors import ModelError
from edgeopt.loading import load_model
from edgeopt.parity import Agreement, Outputs
from edgeopt.runtimes import FAMILIES, RUNTIMES, Request, parse
from edgeopt.runtimes.samples import from_data
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import RuntimeResult, TensorSpec


def checked(file: Path, *names: str) -> Sequence[RuntimeResult]:
    """Returns the rows of a check on generated samples."""
    return parity.check(file, [parse(name) for name in names])


def needs(*names: str) -> None:
    for name in names:
        if not runtimes.available(RUNTIMES[name]).available:
            pytest.skip(f"{name} is not available here")


@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic", "int8", "int8-float-io"])
def test_litert_s_kernels_agree(scheme: str) -> None:
    rows = checked(runtime_models.models()[scheme], "litert", "litert-builtin", "litert-reference")
    assert [(row.status, row.matches_reference) for row in rows] == [("ok", True)] * 3
    xnnpack, builtin, reference = rows
    assert builtin.max_difference == 0  # compared with itself
    assert xnnpack.delegated_share is not None
    assert xnnpack.delegated_share > 0
    assert reference.delegated_share is None
    if scheme in ("float32", "float16"):
        assert max(row.max_difference for row in rows) < 1e-5


def test_the_old_runtime_and_the_micro_one_agree() -> None:
    needs("tflite-runtime", "tflm")
    for scheme in ("float32", "int8"):
        rows = checked(runtime_models.models()[scheme], "tflite-runtime", "tflm")
        assert [(row.status, row.matches_reference) for row in rows] == [("ok", True)] * 2


def test_a_refusal_is_a_row_with_the_runtime_s_reason() -> None:
    needs("tflm")
    (row,) = checked(runtime_models.models()["float16"], "tflm")
    assert (row.status, row.matches_reference) == ("failed", None)
    assert "DEQUANTIZE" in row.reason


def test_a_file_that_runs_and_computes_garbage_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ai-edge-quantizer writes version 1 for every operator: an old runtime then takes what it does not know."""
    needs("tflite-runtime")
    file = tmp_path / "doctored.tflite"
    with workers.Worker() as worker:
        worker.call("test_parity:quantize_without_versions", runtime_models.models()["float32"], file, timeout_s=120)
    versions = {operator.name: operator.version for operator in read(file).subgraphs[0].operators}
    assert set(versions.values()) == {1}
    litert, old = checked(file, "litert-builtin", "tflite-runtime")
    assert (litert.status, litert.matches_reference) == ("ok", True)
    assert (old.status, old.reason) == (
        "failed",
        f"FULLY_CONNECTED version 12 needs TensorFlow Lite 2.17, tflite-runtime {old.version} has up to 10",
    )
    # Were it not known which version an operator really is, running it would show.
    monkeypatch.setattr(runtimes, "refusals", lambda *_: ())
    (old,) = checked(file, "tflite-runtime")
    assert (old.status, old.matches_reference) == ("ok", False)
    assert old.max_difference > 3 * FAMILIES["builtin"].quantized_tolerance


def quantize_without_versions(source: Path, output: Path) -> None:
    """Writes a dynamic-range file as ai-edge-quantizer makes it; runs in a worker."""
    from ai_edge_quantizer import recipe

    quantizer = frameworks.load("ai_edge_quantizer").Quantizer(str(source), recipe.dynamic_wi8_afp32())
    output.write_bytes(bytes(quantizer.quantize().quantized_model))


def _with_one_loud_channel(file: Path, loudness: float) -> None:
    """Writes 64 → 64 → 32 in dynamic range, where one channel in the middle is `loudness` and counts for nothing.

    The others, of half normal numbers, are then rounded to steps of loudness / 127 by kernels that quantize without a
    zero point, of loudness / 255 by those that have one.
    """
    keras, tf = frameworks.load("tf_keras"), frameworks.load("tensorflow")
    random = np.random.default_rng(0)
    first, second = random.normal(size=(64, 64)) / 8, random.normal(size=(64, 32)) / 8
    first[:, 0], second[0] = 0, 0
    values = keras.layers.Input((64,), batch_size=1)
    model = keras.Model(values, keras.layers.Dense(32)(keras.layers.Dense(64, activation="relu")(values)))
    model.set_weights([first, np.eye(64)[0] * loudness, second, np.zeros(32)])
    file.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    Converter(load_model(file), ConvertOptions()).convert("dynamic", file)


def test_kernels_may_part_by_what_quantizing_activations_costs_each(tmp_path: Path) -> None:
    file = tmp_path / "loud.tflite"
    _with_one_loud_channel(file, 40.0)
    (xnnpack,) = checked(file, "litert")
    assert xnnpack.max_difference > FAMILIES["xnnpack"].quantized_tolerance
    assert xnnpack.matches_reference is True


def test_a_reference_that_is_far_off_itself_excuses_nobody(tmp_path: Path) -> None:
    """The step of its activations is as large as what they tell apart."""
    file = tmp_path / "louder.tflite"
    _with_one_loud_channel(file, 400.0)
    (xnnpack,) = checked(file, "litert")
    assert xnnpack.matches_reference is False


def _with_coarse_layers(folder: Path, loudness: float) -> tuple[Path, Path]:
    """Writes six layers that turn 31 normal numbers round, in float32 and in int8, and returns both files.

    Beside them each layer makes one number that is always `loudness` and counts for nothing: their steps are 1/255 of
    it. Where one is rounded up by some kernels and down by others all that comes after it differs.
    """
    keras, tf = frameworks.load("tf_keras"), frameworks.load("tensorflow")
    random = np.random.default_rng(0)
    values = keras.layers.Input((32,), batch_size=1)
    x, weights = values, []
    for _ in range(6):
        x = keras.layers.Dense(32)(x)
        turned = np.zeros((32, 32))
        turned[1:, 1:] = np.linalg.qr(random.normal(size=(31, 31)))[0]
        weights += [turned, np.eye(32)[0] * loudness]
    model = keras.Model(values, keras.layers.Dense(8)(x))
    last = random.normal(size=(32, 8))
    last[0] = 0
    model.set_weights([*weights, last, np.zeros(8)])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    floats, integers = folder / "floats.tflite", folder / "integers.tflite"
    floats.write_bytes(converter.convert())
    samples = random.normal(size=(100, 1, 32)).astype(np.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    integers.write_bytes(converter.convert())
    return floats, integers


def test_kernels_may_part_by_what_integers_cost_each_where_the_floats_are_known(tmp_path: Path) -> None:
    floats, integers = _with_coarse_layers(tmp_path, 120.0)
    (alone,) = checked(integers, "litert")
    (beside,) = parity.check(integers, [parse("litert")], floats=floats)
    assert (alone.matches_reference, beside.matches_reference) == (False, True)
    assert alone.max_difference == beside.max_difference


def test_a_file_that_is_lost_to_its_integers_is_told_from_a_runtime_that_is_wrong(tmp_path: Path) -> None:
    floats, integers = _with_coarse_layers(tmp_path, 200.0)
    (row,) = parity.check(integers, [parse("litert")], floats=floats)
    assert (row.status, row.matches_reference) == ("ok", False)
    assert re.fullmatch(
        r"its results are off by 0\.\d+ of their spread from the reference kernels', and these by 0\.\d+ from the "
        r"float model's: in this scheme the model is lost, and which kernels are right cannot be told; edgeopt repair "
        r"may win some of it back",
        row.reason,
    )


def test_another_version_than_the_installed_one_is_judged_by_operator_versions_alone() -> None:
    needs("tflite-runtime")
    file = runtime_models.models()["float32"]
    (row,) = checked(file, "tflite-runtime==2.16")
    assert (row.version, row.status) == ("2.16", "skipped")
    assert "is installed, not 2.16" in row.reason
    (installed,) = checked(file, "tflite-runtime==2.14")
    assert installed.status == "ok"


def test_nothing_to_compare_with_is_not_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference refuses; what the first runtime computes is then compared with nothing, the next with the first."""
    needs("tflm")
    rows = {name: replace(row, is_reference=name == "tflm") for name, row in RUNTIMES.items()}
    monkeypatch.setattr(runtimes, "RUNTIMES", rows)
    first, second = checked(runtime_models.models()["float16"], "litert", "litert-reference")
    assert (first.status, first.matches_reference, first.max_difference) == ("ok", None, None)
    assert second.matches_reference is True


def test_a_runtime_that_dies_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    dying = Request(runtimes.Runtime("dying", "dying_runtime", "litert", "none", "ends the process"))
    monkeypatch.setattr(runtimes, "available", lambda _: runtimes.Availability(True, "", "1"))
    file = runtime_models.models()["float32"]
    rows = parity.check(file, [dying, parse("litert-builtin")])
    assert rows[0].status == "failed"
    assert "dying died on float32.tflite" in rows[0].reason
    assert rows[1].matches_reference is True
    with pytest.raises(ModelError, match=r"dying died on float32\.tflite"):
        parity.run(file, dying.runtime, None, count=1)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([0.0, 0.0], [-3.0, 3.0], 1.0),
        ([-3.3, 3.3], [-3.0, 3.0], 0.1),
        ([3.5, 3.5], [3.0, 4.0], 0.5 / (0.2 * math.sqrt((3**2 + 4**2) / 2))),  # a spread of 0.5 around a mean of 3.5
        ([2.0, 2.0], [1.0, 1.0], 1 / 0.2),
        ([0.5, 0.0], [0.0, 0.0], math.sqrt(0.5**2 / 2)),  # absolute, where there is nothing to be relative to
        ([np.nan, 4.0], [3.0, 4.0], math.inf),
        ([np.inf, 4.0], [3.0, 4.0], math.inf),
        ([np.inf, 4.0], [-np.inf, 4.0], math.inf),
        ([np.nan, 4.0], [np.nan, 4.0], 0.0),
        ([np.inf, 2.0], [np.inf, 4.0], 2 / (0.2 * 4)),
    ],
)
def test_relative_difference(a: list[float], b: list[float], expected: float) -> None:
    left, right = {"y": [np.array(a, np.float32)]}, {"y": [np.array(b, np.float32)]}
    assert parity.relative_difference(left, right) == pytest.approx(expected, rel=1e-6)


def test_the_worst_output_counts_and_outputs_are_matched_by_name() -> None:
    ones, twos, fours = (np.full((1, 3), value) for value in (1.0, 2.0, 4.0))
    a = {"p": ones, "q": twos}
    assert parity.relative_difference(a, {"q": twos, "p": ones}) == 0
    assert parity.relative_difference(a, {"p": ones, "q": fours}) == pytest.approx(2 / (0.2 * 4))
    assert parity.relative_difference(a, {"0": ones, "1": twos}) == 0  # by order


def scores(*runs: list[float], step: float = 0.0) -> Outputs:
    return Outputs({"kind": [np.array(run, np.float32) for run in runs]}, {"kind": step})


def test_one_near_tie_is_no_difference() -> None:
    """Kernels that round differently tip a softmax of two equal scores; all its other samples are the same."""
    sure = [[0.99, 0.01], [0.02, 0.98], [0.95, 0.05]]
    alone = parity.agreement(scores([0.42, 0.58]), scores([0.58, 0.42]), tolerance=0.1)
    assert (alone.off, alone.holds) == (1, None)  # one sample says nothing
    many = parity.agreement(scores([0.42, 0.58], *10 * sure), scores([0.58, 0.42], *10 * sure), tolerance=0.1)
    assert (many.runs, many.off, many.holds) == (31, 1, True)
    garbage = parity.agreement(scores(*sure), scores(*(run[::-1] for run in sure)), tolerance=0.1)
    assert (garbage.runs, garbage.off, garbage.holds) == (3, 3, False)


def test_a_step_of_the_output_is_no_difference() -> None:
    a, b = ([[0.25, 0.25]] * 4, [[0.25, 0.5]] * 4)
    assert parity.agreement(scores(*a, step=0.25), scores(*b), tolerance=0.1).holds
    assert not parity.agreement(scores(*a, step=0.1), scores(*b), tolerance=0.1).holds


@pytest.mark.parametrize(
    ("off", "runs", "holds"), [(0, 1, True), (1, 2, True), (2, 2, False), (4, 32, True), (5, 32, False)]
)
def test_more_are_off_than_one_in_twenty_explains(off: int, runs: int, holds: bool) -> None:
    assert Agreement(1.0, runs, off).holds is holds


def test_data_fill_the_batch_of_a_file(tmp_path: Path) -> None:
    """A file for batches of eight, on ten samples: what lacks in the second batch is the last one again."""
    x = np.random.default_rng(0).normal(size=(10, 8, 8, 1)).astype(np.float32)
    eight = TensorSpec("picture", (8, 8, 8, 1))
    first, second = from_data(data.load((x,), validation_share=1).validation, [eight], count=2)
    np.testing.assert_array_equal(first["picture"], x[:8])
    np.testing.assert_array_equal(second["picture"], np.concatenate([x[8:], *[x[9:]] * 6]))


def test_a_runtime_says_which_formats_it_takes() -> None:
    other = replace(RUNTIMES["litert"], takes=("onnx",))
    (row,) = parity.check(runtime_models.models()["int8"], [Request(other)])
    assert (row.status, row.reason) == ("failed", "litert runs onnx files, this one is tflite")
