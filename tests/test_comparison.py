"""What `compare` says of real files: equal ones, good ones, and one that quantization broke at a known layer."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import runtime_models
import scored_models

from edgeopt import comparison, data, formats, runtimes, statistics
from edgeopt.comparison import compare, layer_errors
from edgeopt.data import Part
from edgeopt.errors import ConfigError, ModelError, UnavailableError
from edgeopt.evaluation import Predictor, evaluate
from edgeopt.fidelity import measure
from edgeopt.runtimes import RUNTIMES
from edgeopt.tflite.activations import matched
from edgeopt.tflite.model import Tensor


@pytest.fixture(scope="module")
def models() -> dict[str, Path]:
    return scored_models.models()


@pytest.fixture(scope="module")
def digits() -> Part:
    return scored_models.digits().validation


def outputs(file: Path, part: Part) -> np.ndarray:
    with Predictor(file, part, RUNTIMES["litert"]) as predictor:
        (values,) = predictor.values(predictor.part.arrays()).values()
    return values


def test_numbers_are_those_of_the_outputs_themselves(models: dict[str, Path], digits: Part) -> None:
    a, b = (outputs(models[name], digits).astype(np.float64) for name in ("net-float32", "net-int8"))
    found = compare(models["net-float32"], models["net-int8"], digits)
    (output,) = found.outputs
    assert output.name == "kind"
    assert output.sqnr_db == pytest.approx(10 * math.log10((a**2).sum() / ((a - b) ** 2).sum()))
    assert output.cosine == pytest.approx((a * b).sum() / math.sqrt((a**2).sum() * (b**2).sum()))
    assert output.max_difference == pytest.approx(np.abs(a - b).max())
    assert not output.equal
    same = a.argmax(axis=1) == b.argmax(axis=1)
    assert found.agreement is not None
    assert found.agreement.value == same.mean()
    assert (found.agreement.low, found.agreement.high) == statistics.wilson(int(same.sum()), 359)
    assert found.samples == 359
    assert found.metric_a == evaluate(models["net-float32"], digits).metric
    assert found.metric_b == evaluate(models["net-int8"], digits).metric
    assert found.difference is not None
    assert found.difference.value == pytest.approx(100 * (found.metric_a.value - found.metric_b.value))


def test_a_streaming_file_is_equal_to_itself() -> None:
    frames = np.random.default_rng(0).normal(size=(20, 1, 2)).astype(np.float32)
    part = data.load((frames, runtime_models.ring_output(frames)), validation_share=1).validation
    ring = runtime_models.models()["ring"]
    for other in ("litert", "tflm"):
        found = compare(ring, ring, part, runtime_b=other, isolate=False)
        assert [output.equal for output in found.outputs] == [True]
        assert (found.metric_a.value, found.metric_b.value) == (0, 0)


def test_a_good_file_parts_nowhere(models: dict[str, Path], digits: Part) -> None:
    found = compare(models["net-float32"], models["net-int8"], digits.head(40), layer_samples=8, isolate=False)
    assert found.layer_samples == 8
    assert [layer.tensor.split(";")[0] for layer in found.layers] == [
        "model/early/Relu",
        "model/middle/Relu",
        "model/flatten/Reshape",
        "model/late/MatMul",
        "model/kind/MatMul",
        "StatefulPartitionedCall:0",
    ]
    assert all(layer.sqnr_db > 25 and layer.cosine > 0.99 for layer in found.layers)
    assert found.first_difference.startswith("They do not part anywhere: the worst of 6 intermediate tensors, ")
    assert found.notes == ("intermediate tensors are those of litert-builtin, since litert keeps none",)


def test_a_broken_file_is_traced_to_its_layer(models: dict[str, Path], digits: Part) -> None:
    found = compare(models["bad-float32"], models["bad-int8"], digits)
    assert re.fullmatch(
        r"They part at FULLY_CONNECTED 'model/late/MatMul.*' \(4 of 6\): -?\d+\.\d dB, from 4\d\.\d dB before it\.",
        found.first_difference,
    )
    assert found.agreement is not None
    assert found.agreement.value < 0.5
    assert found.difference is not None
    assert found.difference.value > 20
    assert found.difference.p_value is not None
    assert found.difference.p_value < 1e-6


def test_it_is_told_whether_a_file_does_what_was_trained(models: dict[str, Path], digits: Part) -> None:
    good = compare(models["net-float32"], models["net-int8"], digits, layer_samples=4)
    assert re.fullmatch(
        r"the file decides as the trained model does for \d+\.\d\d% of 359 samples \(top1 8\d\.\d\d% and 8\d\.\d\d%\)",
        comparison.kept(good),
    )
    bad = compare(models["bad-float32"], models["bad-int8"], digits, layer_samples=4)
    assert re.search(r"\)\. They part at FULLY_CONNECTED 'model/late/MatMul.* before it$", comparison.kept(bad))
    no_classes = replace(good, agreement=None, metric_a=None, metric_b=None, difference=None)
    assert re.fullmatch(
        r"the file's output 'kind' is \d\d\.\d dB from the trained model's over 359 samples",
        comparison.kept(no_classes),
    )


def test_other_weights_part_with_no_difference_before(models: dict[str, Path], digits: Part) -> None:
    found = compare(models["net-float32"], models["bad-float32"], digits.head(20), isolate=False)
    assert re.match(
        r"They part at CONV_2D 'model/middle/.*' \(2 of 6\): -\d+\.\d dB, with no difference before it",
        found.first_difference,
    )
    assert found.layers[0].sqnr_db == math.inf
    assert found.outputs[0].sqnr_db > 60  # the same function all the same


def test_float_io_is_matched_through_its_conversions(models: dict[str, Path], digits: Part) -> None:
    errors = layer_errors(models["net-float32"], models["net-int8-float-io"], digits, samples=8)
    assert [e.tensor for e in errors] == [
        e.tensor for e in layer_errors(models["net-float32"], models["net-int8"], digits, samples=8, isolate=False)
    ]
    assert all(e.sqnr_db > 25 for e in errors)


def test_layer_errors_are_those_of_the_tensors(models: dict[str, Path], digits: Part) -> None:
    few = digits.head(3)
    errors = layer_errors(models["net-float32"], models["net-int8"], few, isolate=False)
    a, b = (outputs(models[name], few).astype(np.float64) for name in ("net-float32", "net-int8"))
    # Built-in kernels and XNNPACK round alike but for a step.
    assert errors[-1].sqnr_db == pytest.approx(10 * math.log10((a**2).sum() / ((a - b) ** 2).sum()), abs=3)


def test_one_file_on_two_runtimes(models: dict[str, Path], digits: Part) -> None:
    other = "tflite-runtime"
    if not (found := runtimes.available(RUNTIMES[other])).available:
        pytest.skip(found.reason)
    file = models["net-int8"]
    result = compare(file, file, digits, runtime="litert-builtin", runtime_b=other)
    assert result.agreement is not None
    assert result.agreement.value == 1.0
    assert len(result.layers) == 6
    assert result.difference is not None
    assert result.difference.value == 0
    assert result.difference.p_value == 1.0


def test_a_file_beside_itself(models: dict[str, Path], digits: Part) -> None:
    file = models["net-int8"]
    found = compare(file, file, digits, isolate=False)
    (output,) = found.outputs
    assert output.equal
    assert (output.sqnr_db, output.cosine, output.max_difference) == (math.inf, pytest.approx(1.0), 0.0)
    assert found.layers == ()
    assert found.layer_samples == 0
    assert found.first_difference == "No intermediate tensors were compared."
    assert found.notes == ("intermediate tensors were not compared: both would be those of litert-builtin",)
    kept = compare(file, file, digits, runtime="litert-builtin", runtime_b="litert-reference", isolate=False)
    assert len(kept.layers) == 6


def test_two_classes_agree_by_threshold(models: dict[str, Path]) -> None:
    even = scored_models.even_digits().validation
    a, b = (outputs(models[name], even)[:, 0] > 0.5 for name in ("even-float32", "even-int8"))
    found = compare(models["even-float32"], models["even-int8"], even, layer_samples=0, isolate=False)
    assert found.agreement is not None
    assert found.agreement.value == (a == b).mean()
    logits = compare(models["even-float32"], models["logit-float32"], even, layer_samples=0, isolate=False)
    assert logits.agreement is not None
    assert logits.agreement.value == 1.0


def test_without_labels_there_is_no_score(models: dict[str, Path], digits: Part) -> None:
    x = data.load((digits.arrays().inputs["x"],), validation_share=1).validation
    found = compare(models["net-float32"], models["net-int8"], x, layer_samples=0, isolate=False)
    assert (found.metric_a, found.metric_b, found.difference) == (None, None, None)
    assert found.agreement is not None


def test_several_outputs(models: dict[str, Path], digits: Part) -> None:
    file = models["heads-float32"]
    found = compare(file, file, digits.head(20), isolate=False)
    assert len(found.outputs) == 2
    assert found.metric_a is None
    assert re.match(r"not scored: the labels are for one output \(--output-name \w+\)", found.notes[0])
    at_once = compare(file, file, digits.head(20), metric="my_metrics:both", layer_samples=0, isolate=False)
    assert at_once.metric_a is not None
    assert at_once.metric_a.name == "my_metrics:both"
    faithful = measure(file, file, digits.head(20), metric="my_metrics:both", isolate=False)
    assert (faithful.notes, faithful.metric) == ((), at_once.metric_a)
    with pytest.raises(ConfigError, match="one of the model's outputs as --output-name, got 'none'"):
        compare(file, file, digits.head(20), output="none", isolate=False)


def test_models_of_other_shapes_are_refused(models: dict[str, Path], digits: Part) -> None:
    with pytest.raises(ModelError, match=r"outputs of the same shapes, got kind \(10,\) and even \(1,\)"):
        compare(models["net-float32"], models["even-float32"], digits)
    with pytest.raises(ModelError, match="outputs of the same shapes"):
        compare(models["net-float32"], models["heads-float32"], digits, isolate=False)


def tensor(name: str, shape: tuple[int, ...] = (1, 8)) -> Tensor:
    return Tensor(0, name, shape, shape, "float32", None, 0, 0, 0, False, None)


def test_names_match_through_what_converters_add() -> None:
    left = [tensor("m/a/Relu;m/a/Conv2D"), tensor("m/b/MatMul"), tensor("out:0"), tensor("m/c"), tensor("m/d", (1, 4))]
    right = [
        tensor("m/b/MatMul_int8"),
        tensor("m/a/Conv2D"),
        tensor("out:01"),
        tensor("m/c"),
        tensor("m/d"),
    ]
    assert matched(left, right) == {
        "m/a/Relu;m/a/Conv2D": "m/a/Conv2D",
        "m/b/MatMul": "m/b/MatMul_int8",
        "out:0": "out:01",
        "m/c": "m/c",
    }
    exact_first = [tensor("x:0"), tensor("x:01")]
    assert matched(exact_first, exact_first[::-1]) == {"x:0": "x:0", "x:01": "x:01"}


def test_layers_of_a_format_that_no_reference_takes(
    tmp_path: Path, digits: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(formats.FORMATS, "toy", formats.Format("toy", ".toy", "toy_format", "numbers in a text"))
    with pytest.raises(UnavailableError, match=r"No runtime here shows what layers of \.toy files compute"):
        layer_errors(tmp_path / "a.toy", tmp_path / "b.toy", digits)
