"""ONNX: a model goes through tf2onnx, its file is read, run, timed and compared like any other."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeopt
from edgeopt import data, formats, frameworks, runtimes
from edgeopt.api.convert import Conversion
from edgeopt.compilers import CALIBRATIONS, COMPILERS, compile_content
from edgeopt.compilers.onnx import _calibrated, _in_blocks
from edgeopt.errors import ConfigError, ConversionError, ModelError, UnavailableError
from edgeopt.formats.onnx import OPSET, RELEASES, Needs, oldest_release, opset_for, refused_by

SCHEMES = COMPILERS["tf2onnx"].sources


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="session")
def converted(folder: Path, digits_model: Path) -> dict[str, Conversion]:
    """The digits model as ONNX, by scheme."""
    samples = data.load("digits")
    return {
        name: edgeopt.convert(digits_model, folder / f"{name}.onnx", scheme=name, data=samples)
        for name in ("float32", "float16", "dynamic", "int8")
    }


@pytest.fixture(scope="session")
def tflite(folder: Path, digits_model: Path) -> dict[str, Path]:
    for name in ("float32", "int8"):
        edgeopt.convert(digits_model, folder / f"{name}.tflite", scheme=name, data=data.load("digits"))
    return {name: folder / f"{name}.tflite" for name in ("float32", "int8")}


def model(nodes: list[Any], *, inputs: dict[str, tuple[Any, ...]], weights: dict[str, np.ndarray], **rest: Any) -> Any:
    """An ONNX model of float tensors whose only output is `y`."""
    onnx = frameworks.load("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", rest.get("opset", OPSET))], ir_version=8)


def node(kind: str, *inputs: str, output: str = "y", **attributes: Any) -> Any:
    return frameworks.load("onnx").helper.make_node(kind, list(inputs), [output], **attributes)


# --- from Keras ------------------------------------------------------------------------------------------------------


def test_every_scheme_computes_what_the_tflite_does(converted: dict[str, Conversion]) -> None:
    for name, found in converted.items():
        (row,) = found.runtimes
        assert (row.name, row.status, row.matches_reference) == ("onnxruntime", "ok", True), name
        if found.fidelity is not None:
            assert not found.fidelity.problems, name
    assert converted["float32"].runtimes[0].max_difference == pytest.approx(0, abs=1e-5)
    weights = {name: formats.facts(found.file).bytes_by_kind["weights"] for name, found in converted.items()}
    shares = {name: size / weights["float32"] for name, size in weights.items()}
    assert shares == {"float32": 1, "float16": 1 / 2, "dynamic": 1 / 4, "int8": 1 / 4}


def test_int8_holds_the_same_integers_in_both_formats(
    converted: dict[str, Conversion], tflite: dict[str, Path]
) -> None:
    ours, theirs = formats.facts(converted["int8"].file), formats.facts(tflite["int8"])
    assert (ours.macs, ours.parameters, ours.sparsity) == (theirs.macs, theirs.parameters, theirs.sparsity)
    assert ours.inputs == theirs.inputs
    assert ours.computes == "full int8"
    assert ours.float_operators == theirs.float_operators == ()
    assert sum(ours.bytes_by_kind.values()) == ours.size_bytes == converted["int8"].file.stat().st_size

    def of_weights(facts: Any) -> set[str]:
        found = [weight for weight in facts.weights if weight.kind == "weights"]
        # Channels of a depthwise kernel are first in one format and last in the other.
        return {hashlib.sha256(np.sort(facts.values(weight), axis=None).tobytes()).hexdigest() for weight in found}

    assert of_weights(ours) == of_weights(theirs)


def test_int8_agrees_with_tflite_on_nearly_all_answers(
    converted: dict[str, Conversion], tflite: dict[str, Path]
) -> None:
    part = data.load("digits").validation
    found = edgeopt.compare(tflite["int8"], converted["int8"].file, part)
    assert found.agreement is not None
    assert found.agreement.value >= 0.99
    assert len(found.layers) >= 4
    assert all(layer.sqnr_db > 30 for layer in found.layers), found.layers
    assert found.first_difference.startswith("They do not part anywhere")
    floats = edgeopt.compare(tflite["float32"], converted["float32"].file, part)
    assert floats.outputs[0].max_difference < 1e-5  # of probabilities, whose range is 1
    assert len(floats.layers) >= 4
    assert all(layer.sqnr_db > 100 for layer in floats.layers), floats.layers


def test_activations_of_onnx_files_are_told_as_real_numbers(converted: dict[str, Conversion]) -> None:
    part = data.load("digits").validation
    found = edgeopt.compare(converted["float32"].file, converted["int8"].file, part)
    assert len(found.layers) >= 4
    assert all(layer.sqnr_db > 20 for layer in found.layers), found.layers


def test_weights_beside_a_file_hide_its_activations(tmp_path: Path) -> None:
    onnx = frameworks.load("onnx")
    made = model([node("MatMul", "x", "w")], inputs={"x": (1, 4)}, weights={"w": np.ones((4, 3), np.float32)})
    onnx.save_model(made, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(UnavailableError, match=r"weights in it to see its activations, got m\.onnx, whose weights lie"):
        runtimes.open_session(tmp_path / "m.onnx", runtimes.RUNTIMES["onnxruntime"], keep_intermediates=True)
    session = runtimes.open_session(tmp_path / "m.onnx", runtimes.RUNTIMES["onnxruntime"])
    np.testing.assert_array_equal(session.run({"x": np.ones((1, 4), np.float32)})["y"], np.full((1, 3), 4))


def test_words_say_how_a_file_computes(converted: dict[str, Conversion]) -> None:
    assert {name: formats.facts(found.file).computes for name, found in converted.items()} == {
        "float32": "float32",
        "float16": "float16",
        "dynamic": "dynamic range: int8 weights, activations quantized at each inference",
        "int8": "full int8",
    }


def test_files_of_both_formats_stand_in_one_table(converted: dict[str, Conversion], tflite: dict[str, Path]) -> None:
    table = edgeopt.benchmark([tflite["float32"], converted["float32"].file], runs=5, warmup=0, profile=True)
    assert [row.result.name for row in table.rows] == ["litert", "onnxruntime"]
    _, second = table.rows
    assert second.ratio is not None
    assert sum(operator.share for operator in second.operators) == pytest.approx(1)
    assert "Conv" in {operator.operator.removeprefix("Fused") for operator in second.operators}


def test_optimize_makes_every_file_in_a_further_format(digits_model: Path, tmp_path: Path) -> None:
    report = edgeopt.optimize(digits_model, "digits", tmp_path, schemes=("int8", "int16x8"), formats=("onnx",))
    names = [variant.name for variant in report.variants]
    assert names == ["float32", "int8", "int16x8", "float32-onnx", "int8-onnx"]  # ONNX Runtime has no int16
    for variant in report.variants[3:]:
        (row,) = variant.runtimes
        assert (row.name, row.matches_reference) == ("onnxruntime", True)
        assert row.artifact == variant.file == f"variants/digits.{variant.scheme}.onnx"
        assert report.latency(variant) is row.latency_ms is not None
        assert variant.fidelity is not None
    assert report.clocks == ("litert", "onnxruntime")
    assert "litert or onnxruntime, µs" in (tmp_path / "report.html").read_text()
    twin = report.variant("int8-onnx")
    assert twin is not None
    assert twin.metric is not None
    assert [artifact.format for artifact in twin.artifacts] == ["onnx", "tflite"]
    assert report.best is not None
    assert not report.best.endswith("-onnx")
    if report.best == "int8":
        assert (tmp_path / "best.onnx").read_bytes() == (tmp_path / str(twin.file)).read_bytes()
    assert "formats: [onnx]" in (tmp_path / "recipe.yaml").read_text()


def test_an_app_is_made_of_a_tflite(converted: dict[str, Conversion], tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"Expected a .tflite to make an app of, got .*int8.onnx. Try: edgeopt convert"
    ):
        edgeopt.export("micro", converted["int8"].file, tmp_path / "app")


def test_float16_may_be_off_by_more_than_float32(converted: dict[str, Conversion]) -> None:
    family = runtimes.FAMILIES[runtimes.RUNTIMES["onnxruntime"].family]
    allowed = {name: family.tolerance(formats.facts(found.file)) for name, found in converted.items()}
    assert allowed == {"float32": 1e-3, "float16": 1e-2, "dynamic": 0.1, "int8": 0.1}


def test_operators_without_a_version_are_shown_by_name_alone(converted: dict[str, Conversion]) -> None:
    from rich.console import Console

    from edgeopt.inspection import inspection_tables

    shown = io.StringIO()
    for table in inspection_tables(edgeopt.inspect(converted["float32"].file)):
        Console(file=shown, width=200).print(table)
    text = shown.getvalue()
    assert "Conv" in text
    assert "None" not in text


def test_inspect_gives_no_advice_on_what_ends_a_models_way(converted: dict[str, Conversion]) -> None:
    found = edgeopt.inspect(converted["int8"].file)
    assert found.advice == ()
    assert found.verdicts == {"onnxruntime": ()}
    assert found.notes == (f"operator set {OPSET}, IR version 8: loads from onnxruntime 1.12 on",)
    with pytest.raises(ConfigError, match=r"Expected a .tflite with --target, got .*int8.onnx"):
        edgeopt.inspect(converted["int8"].file, target="cortex-m4")


def test_what_onnx_cannot_be_is_said_before_anything_is_made(digits_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a scheme that .onnx files can be in, .*, got int16x8. Try"):
        edgeopt.convert(digits_model, tmp_path / "m.onnx", scheme="int16x8")
    with pytest.raises(ConfigError, match=r"Expected a .tflite for the target cortex-m4, got"):
        edgeopt.convert(digits_model, tmp_path / "m.onnx", scheme="int8", target="cortex-m4")
    with pytest.raises(ConfigError, match=r"ending in \.tflite or \.onnx or \.so or \.engine, got .*m\.pb"):
        edgeopt.convert(digits_model, tmp_path / "m.pb")


def test_a_promised_release_gets_an_operator_set_that_it_knows(tflite: dict[str, Path], tmp_path: Path) -> None:
    found = edgeopt.convert(tflite["int8"], tmp_path / "m.onnx", runtimes=["onnxruntime==1.7"])
    assert found.notes == ("operator set 13, IR version 7: loads from onnxruntime 1.6 on",)
    assert found.runtimes[0].status == "skipped"  # another one is installed
    same = edgeopt.compare(tflite["int8"], found.file, data.load("digits").validation, layer_samples=0)
    assert same.agreement is not None
    assert same.agreement.value >= 0.99


def test_an_operator_set_that_a_release_does_not_know_is_refused(tflite: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ConversionError, match=r"its operator set 18 is newer than 16, the newest that onnxruntime 1.11"
    ):
        edgeopt.convert(tflite["int8"], tmp_path / "m.onnx", opset=18, runtimes=["onnxruntime==1.11"])
    assert not (tmp_path / "m.onnx").exists()
    with pytest.raises(
        ConfigError, match=r"an operator set from 7 to 18, got 19. Try --opset 17, which onnxruntime 1.12"
    ):
        edgeopt.convert(tflite["int8"], tmp_path / "m.onnx", opset=19)
    with pytest.raises(
        ConfigError, match=r"Expected an .onnx with an operator set, got another file. Try -o FILE.onnx"
    ):
        edgeopt.convert(tflite["float32"], tmp_path / "m.tflite", opset=17)


def test_dtypes_that_tf2onnx_lacks_are_named(tmp_path: Path) -> None:
    import tflite_models as models

    with pytest.raises(ConversionError, match=r"got tensors that tf2onnx cannot translate: \d in int4. Try the float"):
        compile_content(models.requantized("dynamic_wi4_afp32"), COMPILERS["tf2onnx"], {"scheme": "float32"})


# --- from strangers --------------------------------------------------------------------------------------------------


def test_a_free_batch_is_set_where_samples_stay_what_they_are(tmp_path: Path) -> None:
    onnx = frameworks.load("onnx")
    weights = {"w": np.arange(12, dtype=np.float32).reshape(4, 3)}
    file = tmp_path / "free.onnx"
    onnx.save(model([node("MatMul", "x", "w")], inputs={"x": ("N", 4)}, weights=weights), file)
    session = runtimes.open_session(file, runtimes.RUNTIMES["onnxruntime"])
    assert session.declared[0].shape == (None, 4)
    assert session.resize(5)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_allclose(session.run({"x": x})["y"], x @ weights["w"], rtol=1e-6)
    with pytest.raises(ModelError, match=r"onnxruntime takes \[any, 4\] as the input 'x', got \[1, 3\]"):
        session.reshape({"x": (1, 3)})
    facts = formats.facts(file)
    assert (facts.macs, facts.parameters) == (4 * 3, 4 * 3)

    mixed = tmp_path / "mixed.onnx"  # the mean over samples: a batch is not its samples
    onnx.save(model([node("ReduceMean", "x", axes=[0])], inputs={"x": ("N", 4)}, weights={}), mixed)
    session = runtimes.open_session(mixed, runtimes.RUNTIMES["onnxruntime"])
    assert not session.resize(5)
    assert session.inputs[0].shape == (1, 4)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("../secret.bin", "Expected the weights of m.onnx in its own folder, got '../secret.bin'"),
        ("/etc/passwd", "in its own folder, got '/etc/passwd'"),
        ("link.bin", "Expected the weights of m.onnx in its own folder, got 'link.bin'"),
        ("none.bin", "Expected none.bin beside m.onnx, which holds the weights 'w', got no such file"),
        ("short.bin", "Expected 'w' inside short.bin, got a place outside it"),
    ],
)
def test_weights_beside_a_file_are_looked_at_before_they_are_read(tmp_path: Path, location: str, words: str) -> None:
    onnx = frameworks.load("onnx")
    made = model([node("MatMul", "x", "w")], inputs={"x": (1, 4)}, weights={"w": np.ones((4, 3), np.float32)})
    (tensor,) = made.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(4 * 3 * 4)}.items():
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (tmp_path / "in" / "short.bin").write_bytes(bytes(47))
    (tmp_path / "in" / "link.bin").symlink_to("../secret.bin")
    file = tmp_path / "in" / "m.onnx"
    file.write_bytes(made.SerializeToString())
    with pytest.raises(ModelError, match=words):
        formats.facts(file)
    with pytest.raises(ModelError, match=words):
        runtimes.open_session(file, runtimes.RUNTIMES["onnxruntime"])


def test_what_is_no_onnx_is_said_so(tmp_path: Path) -> None:
    for content in (b"", b"hello", bytes(100)):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=r"Expected an .onnx file, got .*m.onnx, which holds no ONNX model"):
            formats.facts(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"Expected an .onnx file, got .*none.onnx: No such file"):
        formats.facts(tmp_path / "none.onnx")


def test_mutated_files_are_read_or_refused(converted: dict[str, Conversion], tmp_path: Path) -> None:
    from edgeopt.formats.onnx import facts_here

    content, generator = bytearray(converted["int8"].file.read_bytes()), np.random.default_rng(0)
    refused = 0
    for number in range(200):
        mutated = bytearray(content)
        for at in generator.integers(0, len(mutated), 1 + number % 4):
            mutated[at] = generator.integers(0, 256)
        file = tmp_path / f"{number}.onnx"
        file.write_bytes(mutated[: generator.integers(1, len(mutated))] if number % 5 == 0 else mutated)
        try:
            facts = facts_here(file)
        except ModelError:
            refused += 1
        else:
            assert sum(facts.bytes_by_kind.values()) == facts.size_bytes
    assert 0 < refused < 200


def test_operators_of_unknown_domains_are_told_before_they_are_run(tmp_path: Path) -> None:
    made = model([node("Magic", "x", domain="com.example")], inputs={"x": (1, 4)}, weights={})
    made.opset_import.add(domain="com.example", version=1)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    found = edgeopt.inspect(tmp_path / "m.onnx")
    assert found.verdicts["onnxruntime"] == ("it has operators of com.example, which need a library of their own",)


def test_releases_know_what_they_know() -> None:
    assert oldest_release(17, 8) == "1.12"
    assert oldest_release(99, 8) == ""
    assert [opset_for(known) for known in ((), ("1.31",), ("1.31", "1.10.2"), ("1.0",))] == [17, 17, 15, 11]
    assert refused_by(Needs(21, 10), "1.20") == ()
    assert refused_by(Needs(22, 10), "1.20.1") == (
        "its operator set 22 is newer than 21, the newest that onnxruntime 1.20.1 knows",
    )
    assert refused_by(Needs(17, 9), "1.12") == (
        "its IR version 9 is newer than 8, the newest that onnxruntime 1.12 knows",
    )
    # Of a release that came after the table nobody can tell here.
    assert refused_by(Needs(99, 99), f"1.{int(next(reversed(RELEASES)).split('.')[1]) + 1}") == ()


def test_what_is_older_than_onnxruntime_is_said_before_it_runs(tmp_path: Path) -> None:
    frameworks.load("onnx").save(
        model([node("Relu", "x")], inputs={"x": (1, 4)}, weights={}, opset=5), tmp_path / "old.onnx"
    )
    (said,) = edgeopt.inspect(tmp_path / "old.onnx").verdicts["onnxruntime"]
    assert said.startswith("its operator set 5 is older than 7, with which onnxruntime begins: onnx.version_converter")


def test_inputs_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    onnx = frameworks.load("onnx")
    helper = onnx.helper
    kinds = {
        "string": helper.make_tensor_type_proto(onnx.TensorProto.STRING, [1, 2]),
        "bfloat16": helper.make_tensor_type_proto(onnx.TensorProto.BFLOAT16, [1, 2]),
        "a sequence": helper.make_sequence_type_proto(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [1])),
    }
    for name, kind in kinds.items():
        graph = helper.make_graph(
            [node("Identity", "x")], "g", [helper.make_value_info("x", kind)], [helper.make_value_info("y", kind)]
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.save(made, tmp_path / f"{name}.onnx")
        (said,) = edgeopt.inspect(tmp_path / f"{name}.onnx").verdicts["onnxruntime"]
        assert said == f"it takes {name} ('x'), no numbers that can be fed here"
        with pytest.raises(ModelError, match=r"to take tensors of numbers, got 'x' of (tensor\((string|bfloat16)|seq)"):
            runtimes.open_session(tmp_path / f"{name}.onnx", runtimes.RUNTIMES["onnxruntime"])


def test_operators_of_onnxruntime_are_counted_and_end_no_shapes(tmp_path: Path) -> None:
    onnx = frameworks.load("onnx")
    ones = np.ones
    weights = {
        "w": ones((4, 3, 3, 3), np.float32),
        "s": np.float32(1),
        "z": np.uint8(0),
        "q": ones((4, 5), np.uint8),
        "v": ones((5, 2), np.float32),
    }
    nodes = [
        node("FusedConv", "x", "w", output="a", domain="com.microsoft", activation="Relu"),
        node("GlobalAveragePool", "a", output="b"),
        node("Flatten", "b", output="c"),
        node("QuantizeLinear", "c", "s", "z", output="d"),
        node("QGemm", "d", "s", "z", "q", "s", "z", "", "s", "z", output="e", domain="com.microsoft"),
        node("DequantizeLinear", "e", "s", "z", output="f", domain="com.microsoft"),
        node("MatMul", "f", "v"),
    ]
    made = model(nodes, inputs={"x": (1, 3, 8, 8)}, weights={k: np.asarray(v) for k, v in weights.items()})
    made.opset_import.add(domain="com.microsoft", version=1)
    onnx.save(made, tmp_path / "m.onnx")
    facts = formats.facts(tmp_path / "m.onnx")
    assert facts.macs == 6 * 6 * 4 * 27 + 4 * 5 + 5 * 2
    assert facts.parameters == 4 * 27 + 4 * 5 + 5 * 2
    assert "QGemm" not in {operator.name for operator in facts.operators if operator.float_arithmetic}


def test_packed_weights_are_counted_one_by_one(tmp_path: Path) -> None:
    onnx = frameworks.load("onnx")
    packed = np.full((16, 2, 16), 0x98, np.uint8)  # 0 in the lower half of a byte, 1 in the upper
    made = model(
        [node("MatMulNBits", "x", "q", "s", domain="com.microsoft", K=64, N=16, bits=4, block_size=32)],
        inputs={"x": (1, 64)},
        weights={"q": packed, "s": np.ones(32, np.float32)},
    )
    made.opset_import.add(domain="com.microsoft", version=1)
    onnx.save(made, tmp_path / "m.onnx")
    facts = formats.facts(tmp_path / "m.onnx")
    (weight,) = facts.weights
    assert (weight.dtype, weight.elements, weight.size_bytes, weight.zeros) == ("int4", 64 * 16, 64 * 16 // 2, 512)
    assert facts.computes == "weight-only int4: widened to float32 at each inference"
    np.testing.assert_array_equal(facts.values(weight), np.tile([0, 1], (16, 32)))


def test_a_graph_without_weights_computes_in_its_floats(tmp_path: Path) -> None:
    onnx = frameworks.load("onnx")
    onnx.save(model([node("Relu", "x")], inputs={"x": (1, 4)}, weights={}), tmp_path / "m.onnx")
    assert formats.facts(tmp_path / "m.onnx").computes == "float32"


# --- made by ONNX Runtime's own quantizers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense() -> tuple[Any, np.ndarray]:
    """A Dense layer of 64 to 10 whose weights lie turned, with a bias; and its weights [64, 10]."""
    weights = np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32)
    stored = {"w": weights, "b": np.arange(10, dtype=np.float32)}
    made = model([node("Gemm", "x", "w", "b", transB=1)], inputs={"x": (1, 64)}, weights=stored)
    return made, weights.T


def test_dense_weights_of_four_bits_have_a_scale_a_block(dense: tuple[Any, np.ndarray], tmp_path: Path) -> None:
    made, weights = dense
    file = tmp_path / "int4.onnx"
    file.write_bytes(_in_blocks(type(made).FromString(made.SerializeToString()), tmp_path, size=32).SerializeToString())
    facts = formats.facts(file)
    (stored,) = [weight for weight in facts.weights if weight.kind == "weights"]
    assert (stored.dtype, stored.elements, stored.scales) == ("int4", 64 * 10, 64 * 10 // 32)
    assert (facts.macs, facts.parameters) == (64 * 10, 64 * 10 + 10)
    session = runtimes.isolated(file, runtimes.RUNTIMES["onnxruntime"])
    x = np.ones((1, 64), np.float32)
    (got,) = session.run({"x": x}).values()
    session.close()
    steps = np.abs(weights).max() / 7  # the largest that a scale can be
    np.testing.assert_allclose(got, x @ weights + np.arange(10), atol=64 * steps / 2)
    assert not np.array_equal(got, x @ weights + np.arange(10))


def test_without_dense_layers_there_are_no_weights_of_four_bits(tmp_path: Path) -> None:
    made = model([node("Relu", "x")], inputs={"x": (1, 64)}, weights={})
    with pytest.raises(ConversionError, match=r"Dense layers whose weights int4 can be, .* none of 32 weights"):
        _in_blocks(made, tmp_path, size=32)


@pytest.mark.parametrize("method", CALIBRATIONS)
def test_ranges_are_found_anew(dense: tuple[Any, np.ndarray], method: str, tmp_path: Path) -> None:
    made, weights = dense
    samples = np.random.default_rng(1).standard_normal((40, 64)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", **{"0": samples})
    settings = {"calibration": method, "symmetric": "yes", "samples": str(tmp_path / "samples.npz")}
    found = _calibrated(type(made).FromString(made.SerializeToString()), tmp_path, settings)
    onnx = frameworks.load("onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in found.graph.initializer}
    zeros = [stored[one.input[2]] for one in found.graph.node if one.op_type == "QuantizeLinear"]
    assert zeros
    assert not np.any(zeros), "zero is 0 where that is asked for, as TensorRT does"
    (tmp_path / "int8.onnx").write_bytes(found.SerializeToString())
    session = runtimes.isolated(tmp_path / "int8.onnx", runtimes.RUNTIMES["onnxruntime"])
    (got,) = session.run({"x": samples[:1]}).values()
    session.close()
    expected = samples[:1] @ weights + np.arange(10)
    assert np.abs(got - expected).max() < 0.1 * np.abs(expected).max()


def test_a_converted_file_is_translated_as_it_is(tflite: dict[str, Path], tmp_path: Path) -> None:
    found = edgeopt.convert(tflite["int8"], tmp_path / "same.onnx")
    assert (found.scheme, found.inputs) == ("full int8", formats.facts(tflite["int8"]).inputs)
    assert [(row.name, row.matches_reference) for row in found.runtimes] == [("onnxruntime", True)]
    with pytest.raises(ConfigError, match=r"a model to bring to dynamic, got .*int8\.tflite, a converted file"):
        edgeopt.convert(tflite["int8"], tmp_path / "other.onnx", scheme="dynamic")


@pytest.mark.parametrize(
    ("method", "scheme", "said"),
    [
        ("max", "int8-float-io", r"Expected one of minmax, entropy, percentile, got 'max'"),
        ("minmax", "int8", r"Expected an \.onnx in int8-float-io and data to find its ranges anew \(minmax\)"),
        ("minmax", "int8-float-io", r"and data to find its ranges anew"),
    ],
)
def test_where_ranges_cannot_be_found_anew_is_said(
    tflite: dict[str, Path], method: str, scheme: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        edgeopt.convert(tflite["float32"], tmp_path / "x.onnx", scheme=scheme, calibration=method)


# --- graphs inside nodes, and products of several forms --------------------------------------------------------------


def test_weights_inside_branches_are_counted(tmp_path: Path) -> None:
    onnx = frameworks.load("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shape = helper.make_tensor_value_info("t", kind, (1, 2))

    def branch(width: int) -> Any:
        weights = onnx.numpy_helper.from_array(np.ones((width, 2), np.float32), "w")  # one name in both
        sliced = onnx.numpy_helper.from_array(np.ones((4, width), np.float32), "first")
        nodes = [node("MatMul", "x", "first", output="m"), node("MatMul", "m", "w", output="t")]
        return helper.make_graph(nodes, f"branch{width}", [], [shape], [weights, sliced])

    made = model([node("If", "c", then_branch=branch(3), else_branch=branch(5))], inputs={"x": (1, 4)}, weights={})
    made.graph.input.append(helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, ()))
    onnx.save(made, tmp_path / "branches.onnx")
    facts = formats.facts(tmp_path / "branches.onnx")
    assert facts.parameters == 4 * 3 + 3 * 2 + 4 * 5 + 5 * 2
    assert facts.macs == 4 * 3 + 3 * 2 + 4 * 5 + 5 * 2
    assert [operator.graph for operator in facts.operators] == [0, 1, 1, 2, 2]
    assert all(np.all(facts.values(weight) == 1) for weight in facts.weights)


def test_einsum_and_attention_are_counted(tmp_path: Path) -> None:
    onnx = frameworks.load("onnx")
    nodes = [
        node("Einsum", "x", "w", output="e", equation="bsh,hk->bsk"),
        node("Attention", "e", "v", "c", domain="com.microsoft", num_heads=2),
    ]
    weights = {"w": np.ones((6, 4)), "v": np.ones((4, 3 * 4)), "c": np.ones(3 * 4)}
    made = model(nodes, inputs={"x": (1, 5, 6)}, weights={name: w.astype(np.float32) for name, w in weights.items()})
    made.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(made, tmp_path / "attention.onnx")
    facts = formats.facts(tmp_path / "attention.onnx")
    assert facts.parameters == 6 * 4 + 4 * 12 + 12
    products, projections, scores = 5 * 6 * 4, 5 * 4 * 12, 2 * 5 * 5 * 4
    assert [operator.macs for operator in facts.operators] == [products, projections + scores]
    assert [operator.kind for operator in facts.operators] == ["dense", "attention"]
