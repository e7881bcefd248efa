"""What everybody asks of a converted file, in the terms of no format."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_models as models
from compressed_models import facts_of
from test_targets import MINIMAL

import edgeopt
from edgeopt import formats, frameworks, pipeline, targets
from edgeopt.compilers import COMPILERS, Compiler
from edgeopt.errors import ModelError
from edgeopt.formats import FORMATS, Format
from edgeopt.inspection import inspection_tables
from edgeopt.recipe import Recipe
from edgeopt.report import ModelFacts, Report
from edgeopt.runtimes import main_for, open_session
from edgeopt.runtimes.samples import generated
from edgeopt.techniques import distill
from edgeopt.tflite import reader
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Artifact, OnTarget, Promise, StepRecord, Variant

# Of the CNN, in order: output channels first, input channels last.
KERNELS = {
    "CONV_2D": [(8, 3, 3, 3), (160, 1, 1, 8)],
    "DEPTHWISE_CONV_2D": [(8, 1, 3, 3)],
    "FULLY_CONNECTED": [(10, 160)],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(models.convert(models.cnn, "int8"))
    return path


def test_a_file_says_what_it_holds(file: Path) -> None:
    facts = formats.facts(file)
    assert (facts.format, facts.size_bytes) == ("tflite", file.stat().st_size)
    assert [spec.dtype for spec in facts.inputs] == ["int8"]
    assert sum(operator.macs for operator in facts.operators) == facts.macs
    assert sum(facts.bytes_by_kind.values()) == facts.size_bytes
    assert facts.float_operators == ()
    computing = [operator for operator in facts.operators if operator.weights]
    assert Counter(o.name for o in computing) == {name: len(shapes) for name, shapes in KERNELS.items()}
    for operator in computing:
        kernel, bias = operator.weights
        assert (kernel.kind, kernel.dtype, kernel.bits) == ("weights", "int8", 8)
        assert (bias.kind, bias.bits, bias.elements) == ("biases", 32, operator.output_shape[-1])


def test_what_only_widens_integers_does_not_compute_in_floats() -> None:
    assert facts_of(models.convert(models.cnn, "int8-float-io")).float_operators == ()
    floats = Counter(facts_of(models.convert(models.with_a_float_operator, "int8")).float_operators)
    assert sum(floats.values()) >= 1
    assert "DEQUANTIZE" not in floats


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_values_come_with_output_channels_first(scheme: str) -> None:
    facts = facts_of(models.convert(models.cnn, scheme))
    found: dict[str, list[tuple[int, ...]]] = {}
    for operator in facts.operators:
        for kernel in operator.weights[:1]:
            values = facts.values(kernel)
            assert values is not None
            found.setdefault(operator.name, []).append(values.shape)
            assert kernel.unique_per_channel == max(len(np.unique(row)) for row in values.reshape(len(values), -1))
    assert found == KERNELS


def _words() -> Any:
    """An embedding of 50 words that reads an input of floats, Keras' default, beside one that really has floats."""
    keras = frameworks.load("tf_keras")
    words, rest = (
        keras.layers.Input((6,), name="words", batch_size=1),
        keras.layers.Input((4,), name="rest", batch_size=1),
    )
    table = keras.layers.Flatten()(keras.layers.Embedding(50, 8)(keras.layers.Reshape((2, 3))(words)))
    picked = frameworks.load("tensorflow").gather(rest, [2, 0], axis=1)
    return keras.Model([words, rest], keras.layers.Dense(3)(keras.layers.Concatenate()([table, picked])))


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_floats_that_are_looked_up_are_indices(form: str, tmp_path: Path) -> None:
    file = tmp_path / "words.tflite"
    file.write_bytes(models.convert(_words, "float32"))
    if form == "onnx":
        edgeopt.convert(file, tmp_path / "words.onnx")
        file = tmp_path / "words.onnx"
    assert formats.facts(file).indices == {"words"}
    session = open_session(file, main_for(form))
    for seed in range(8):
        inputs = generated(session.inputs, seed=seed, indices=session.indices)
        assert set(np.unique(inputs["words"])) <= {0, 1}
        assert len(np.unique(inputs["rest"])) == 4
    session.run(inputs)


def test_a_sparse_encoding_has_no_values() -> None:
    facts = facts_of(models.convert(models.dense, "sparse", "pruned"))
    (weight,) = (t for t in facts.weights if t.kind == "weights")
    assert weight.encoding
    assert facts.values(weight) is None


def test_a_file_is_read_once_for_all_who_ask(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = formats.facts(file)
    monkeypatch.setattr(reader, "read", lambda _: pytest.fail("it was read again"))
    assert formats.facts(file) is first


def test_a_file_is_parsed_once_for_facts_runtimes_and_devices(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    class Counting(reader._Reader):
        def model(self) -> Any:
            parsed.append(self)
            return super().model()

    monkeypatch.setattr(reader, "_Reader", Counting)
    edgeopt.inspect(file, target="cortex-m4")
    assert len(parsed) == 1


def test_a_file_that_changed_is_read_again(file: Path) -> None:
    before = formats.facts(file)
    file.write_bytes(models.convert(models.cnn, "float32"))
    assert formats.facts(file).bytes_by_kind["weights"] == 4 * before.bytes_by_kind["weights"]
    with pytest.raises(ModelError, match="in the file where it was found, got another file there"):
        before.values(before.weights[0])


def test_content_goes_before_the_suffix(file: Path, tmp_path: Path) -> None:
    renamed = file.rename(tmp_path / "model.bin")
    assert formats.format_of(renamed) is FORMATS["tflite"]
    (tmp_path / "text.tflite").write_text("version https://git-lfs")
    assert formats.format_of(tmp_path / "text.tflite") is FORMATS["tflite"]
    (tmp_path / "text.bin").write_text("text")
    with pytest.raises(ModelError, match=r"Expected a converted file, \.tflite \(TensorFlow Lite's .*text\.bin"):
        formats.format_of(tmp_path / "text.bin")


def test_a_missing_file_is_said_by_its_reader(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="which does not exist"):
        formats.facts(tmp_path / "none.tflite")


def test_a_written_file_as_an_artifact(file: Path) -> None:
    assert formats.artifact(file, file.parent.parent, made_by="tensorflow") == Artifact(
        "tflite",
        f"{file.parent.name}/model.tflite",
        hashlib.sha256(file.read_bytes()).hexdigest(),
        file.stat().st_size,
        len(gzip.compress(file.read_bytes(), 9)),
        "tensorflow",
    )


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Format:
    row = Format("toy", ".toy", "toy_format", "a format for tests", magic=(0, b"TOY"))
    monkeypatch.setitem(FORMATS, row.name, row)
    return row


def test_a_new_format_is_one_file_and_one_line(toy: Format, tmp_path: Path) -> None:
    file = tmp_path / "model.toy"
    file.write_text("TOY\nmatmul 40\nmatmul 2\n")
    assert formats.format_of(file.rename(tmp_path / "model")) is toy
    file = (tmp_path / "model").rename(file)
    artifact = formats.artifact(file, tmp_path)
    assert (artifact.format, artifact.size_bytes) == ("toy", len("TOY\nmatmul 40\nmatmul 2\n"))

    found = edgeopt.inspect(file)
    assert (found.format, found.quantization, found.parameters) == ("toy", "full toy", 40 + 2)
    assert [(row.kind, row.macs) for row in found.rows] == [("matmul", 40), ("matmul", 2)]
    assert found.verdicts == {}, "no runtime takes it"
    assert inspection_tables(found)

    record = StepRecord("shrink", promises=(Promise("multiply-accumulates", limit=42),))
    (promise,) = distill.check(distill.Distill(width=0.5), record, formats.facts(file))
    assert promise.kept is True


def test_a_new_compiler_is_one_file_and_one_line(
    toy: Format, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Compiler(
        "toycc",
        "Toycc",
        "a toy",
        "toy_compiler",
        takes=("tflite",),
        makes=toy.name,
        suffix=".toy",
        needs="litert",
        settings=("weights",),
        marks=frozenset({"toy-core"}),
        summary="a compiler for tests",
    )
    monkeypatch.setitem(COMPILERS, row.name, row)
    told = 'kind: npu\ncompiler: toycc\ncompiler_settings: {weights: "7"}\nlatency: {kind: compiler}'
    (tmp_path / "device.yaml").write_text(MINIMAL.replace("kind: board", told))
    best = Variant("int8", "int8", (formats.artifact(file, tmp_path),), on_target=OnTarget())
    report = Report("0", "2026-11-28", ModelFacts("m.keras"), variants=(best,), best="int8")

    recipe = Recipe(target=str(tmp_path / "device.yaml"))
    (variant,) = pipeline._compiled(report, recipe, tmp_path).variants
    plain, compiled = variant.artifacts
    assert plain == best.artifacts[0]
    assert (compiled.format, compiled.file, compiled.made_by) == ("toy", "model.toy", "toycc")
    assert (tmp_path / "best.toy").read_bytes() == (tmp_path / "model.toy").read_bytes()
    assert edgeopt.inspect(tmp_path / "best.toy").parameters == 7
    found = targets.assess(targets.target(str(recipe.target)), read(file))
    assert (found.runs, found.estimate.notes) == (True, ("the compiler tells no time: measure it on the device",))

    foreign = replace(report, variants=(replace(best, artifacts=(compiled,)),))
    (why,) = pipeline._compiled(foreign, recipe, tmp_path).warnings
    assert why == "int8 was not compiled for device: Toycc takes tflite files only"
