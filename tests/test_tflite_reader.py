"""What the reader finds in real files, and that hostile ones end in a ModelError."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import tflite_models as models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeopt import frameworks
from edgeopt.errors import ModelError
from edgeopt.runtimes import RUNTIMES, open_session
from edgeopt.tflite import arithmetic, interface, rewrite
from edgeopt.tflite.macs import count_macs
from edgeopt.tflite.op_versions import minimum_runtime, unsupported_by
from edgeopt.tflite.reader import read
from edgeopt.tflite.weights import weigh


def test_a_float_file_as_the_model_was_built() -> None:
    model = read(models.convert(models.cnn, "float32"))
    assert [op.name for op in model.main.operators] == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "MEAN",
        "FULLY_CONNECTED",
    ]
    assert [(spec.name, spec.shape, spec.dtype) for spec in model.inputs] == [("image", (None, 16, 16, 3), "float32")]
    assert [(spec.name, spec.shape) for spec in model.outputs] == [("classes", (None, 10))]
    first = model.main.operators[0]
    kernel, bias = model.main.operand(first, 1), model.main.operand(first, 2)
    assert kernel is not None
    assert bias is not None
    assert kernel.shape == (8, 3, 3, 3)
    assert model.main.operand(first, 3) is None
    keras = models.cnn()
    gamma, _, _, variance = keras.get_layer("norm").get_weights()
    folded = keras.get_layer("first").get_weights()[0] * gamma / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(model.values(kernel), folded.transpose(3, 0, 1, 2), rtol=1e-5)
    assert (model.signatures[0].key, model.description) == ("serving_default", "MLIR Converted.")
    assert "min_runtime_version" in model.metadata


def test_scales_and_zero_points_are_those_of_the_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(models.convert(models.cnn, "int8"))
    model = read(path)
    interpreter = frameworks.load("litert").Interpreter(model_path=str(path))
    for details, specs in (
        (interpreter.get_input_details(), model.inputs),
        (interpreter.get_output_details(), model.outputs),
    ):
        scale, zero_point = details[0]["quantization"]
        assert specs[0].dtype == "int8"
        assert specs[0].quantization is not None
        assert specs[0].quantization.scales == (pytest.approx(scale),)
        assert specs[0].quantization.zero_points == (zero_point,)
    kernel = model.main.operand(model.main.operators[1], 1)
    assert kernel is not None
    assert kernel.quantization is not None
    assert (len(kernel.quantization.scales), kernel.quantization.axis) == (8, 3)


def test_shared_models(shared: Path) -> None:
    model = read(shared / "models" / "kws_ref_model.tflite")
    assert (model.inputs[0].shape, model.inputs[0].dtype) == ((None, 49, 10, 1), "int8")
    uses = Counter((operator.name, operator.version) for operator in model.main.operators)
    assert uses.most_common(2) == [(("CONV_2D", 3), 5), (("DEPTHWISE_CONV_2D", 3), 4)]
    autoencoder = read(shared / "models" / "ad01_int8.tflite")
    assert [operator.name for operator in autoencoder.main.operators] == ["FULLY_CONNECTED"] * 10


def test_buffers_behind_the_flatbuffer_are_read_as_if_inside(tmp_path: Path) -> None:
    """Files over 2 GB keep their weights behind the flatbuffer, at offsets from the start of the file."""
    content = models.convert(models.cnn, "int8")
    behind = models.behind(content)
    plain, moved = read(content), read(behind)
    assert (moved.codes, moved.signatures, moved.metadata) == (plain.codes, plain.signatures, plain.metadata)
    assert moved.subgraphs == plain.subgraphs
    assert (plain.outside_bytes, plain.size_bytes, moved.size_bytes) == (0, len(content), len(behind))
    assert moved.outside_bytes == sum(extent.size for extent in plain.buffers)
    assert weigh(moved).tensors == weigh(plain).tensors
    for place in range(len(plain.buffers)):
        assert moved.buffer(place).tobytes() == plain.buffer(place).tobytes()
        assert moved.buffers[place].offset % 16 == 0
    expected = models.run(content, "ai_edge_litert", tmp_path)
    assert expected is not None
    for package in ("ai_edge_litert", "tflite_runtime"):
        pytest.importorskip(package)
        for one in (behind, moved.content.tobytes()):
            np.testing.assert_array_equal(models.run(one, package, tmp_path), models.run(content, package, tmp_path))
    schema = frameworks.load("litert_schema")
    inside = schema.ModelT.InitFromPackedBuf(moved.content.tobytes(), 0)
    assert all(buffer.offset == 0 for buffer in inside.buffers)
    assert [0 if b.data is None else len(b.data) for b in inside.buffers] == [extent.size for extent in plain.buffers]


def test_buffers_behind_the_flatbuffer_may_be_shared() -> None:
    content = models.convert(models.dense, "float32")

    def share(buffers: list[Any]) -> None:
        kernel = max(buffers, key=lambda buffer: buffer.size)
        for buffer in buffers:
            if buffer.size and buffer.size < kernel.size:
                buffer.offset, buffer.size = kernel.offset, kernel.size

    model = read(models.behind(content, share))
    assert model.outside_bytes == 96 * 64 * 4
    kept = {extent.offset for extent in model.buffers if extent.size}
    assert len(kept) == 1 < sum(extent.size > 0 for extent in model.buffers)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (lambda b: {"offset": b.offset + (1 << 20)}, r"truncated or corrupt \(a buffer ends at byte \d+ of \d+\)"),
        (lambda b: {"size": 2**64 - 1}, r"truncated or corrupt \(a buffer ends at byte \d+ of \d+\)"),
        (lambda b: {"offset": b.offset - 16}, r"two buffers behind its flatbuffer overlap at byte \d+"),
        (lambda b: {"offset": 2, "size": 16}, r"begins at byte 2, inside of it"),
    ],
)
def test_buffers_that_lie_nowhere(by: Callable[[Any], dict[str, int]], message: str) -> None:
    def move(buffers: list[Any]) -> None:
        last = max(buffers, key=lambda buffer: buffer.offset)
        for field, value in by(last).items():
            setattr(last, field, value)

    with pytest.raises(ModelError, match=message):
        read(models.behind(models.convert(models.cnn, "int8"), move))


def test_a_flatbuffer_that_goes_on_behind_its_first_buffer_is_never_followed() -> None:
    content = models.convert(models.cnn, "int8")
    end = read(content).main.tensors[0]

    def move(buffers: list[Any]) -> None:
        # Half of the flatbuffer's bytes are called a buffer.
        buffers[end.buffer].offset, buffers[end.buffer].size = len(content) // 2 // 16 * 16, 16

    with pytest.raises(ModelError, match="truncated or corrupt"):
        read(models.behind(content, move))


def test_a_bias_that_names_the_dimension_of_its_weights_is_read() -> None:
    """As converters of 2019 wrote it: some runtimes look at the weights alone, and the others refuse it."""

    def change(model: Any, schema: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors[graph.operators[0].inputs[2]].quantization.quantizedDimension = 3

    content = models.convert(models.cnn, "int8")
    plain, odd = read(content), read(rewrite.changed(content, change))
    assert [replace(tensor, stray_dimension=None) for tensor in odd.main.tensors] == list(plain.main.tensors)
    bias = odd.main.operand(odd.main.operators[0], 2)
    assert bias is not None
    assert bias.quantization is not None
    assert (bias.quantization.axis, bias.stray_dimension) == (0, 3)


def test_a_file_without_buffers_has_no_constants() -> None:
    schema = frameworks.load("litert_schema")
    model = schema.ModelT()
    tensor, graph = schema.TensorT(), schema.SubGraphT()
    tensor.shape, tensor.name = [2], "x"
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], []
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    assert not read(content).main.tensors[0].is_constant
    assert read(rewrite.changed(content, lambda model, schema: None)).inputs == read(content).inputs


def test_a_signature_names_each_tensor_once() -> None:
    def name(model: Any, schema: Any) -> None:
        inputs = model.signatureDefs[0].inputs
        inputs.append(inputs[0])

    with pytest.raises(ModelError, match=r"truncated or corrupt \(a signature has one name for two tensors\)"):
        read(rewrite.changed(models.convert(models.cnn, "int8"), name))


def test_no_name_reaches_a_terminal_with_codes_that_it_obeys(tmp_path: Path) -> None:
    codes, schema = "\x1b[2J\x07\u202e", frameworks.load("litert_schema")

    def name(model: Any, schema: Any) -> None:
        graph = model.subgraphs[0]
        model.description = graph.name = codes
        for entry in (*graph.tensors, *model.metadata, *model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs):
            entry.name = f"{codes}{getattr(entry, 'tensorIndex', 'ü')}"
        model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
        model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        model.operatorCodes[0].customCode = codes

    def named(model: Any, schema: Any) -> None:
        for entry in (*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs):
            entry.name = f"{codes}{entry.tensorIndex}"

    content = models.convert(models.cnn, "int8")
    clean = r"\x1b[2J\x07\u202e"
    model = read(rewrite.changed(content, name))
    names = [*(t.name for t in model.main.tensors), *model.metadata, model.description, model.main.name]
    names += [
        model.codes[0].name,
        model.main.operators[0].name,
        *(spec.name for spec in (*model.inputs, *model.outputs)),
    ]
    assert all(text.startswith(clean) and text.isprintable() for text in names)
    assert f"{clean}ü" in names
    file = tmp_path / "named.tflite"
    file.write_bytes(rewrite.changed(content, named))
    # What is written anew carries the names that were read: apps look tensors up by them.
    rewritten = schema.ModelT.InitFromPackedBuf(rewrite.normalized(file.read_bytes()), 0)
    assert [e.name.decode() for e in rewritten.signatureDefs[0].inputs] == [spec.name for spec in read(file).inputs]
    for row in (RUNTIMES["litert"], RUNTIMES["tflm"]):
        with closing(open_session(file, row)) as session:
            read_names = [[spec.name for spec in side] for side in (read(file).inputs, read(file).outputs)]
            assert [[spec.name for spec in side] for side in (session.inputs, session.outputs)] == read_names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"Just some text, not a model", "starts with b'Just som'"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), r"a Keras \.h5 model"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x1c\0\0\0TFL3", "truncated or corrupt"),
        (b"\x1c\0\0\0TFL3" + bytes(100), "truncated or corrupt"),
        (np.random.default_rng(0).bytes(4) + b"TFL3" + np.random.default_rng(0).bytes(4000), "truncated or corrupt"),
    ],
)
def test_what_is_no_tflite_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not exist\. Try another path"):
        read(tmp_path / "none.tflite")
    with pytest.raises(ModelError, match="got the folder"):
        read(tmp_path)


def test_every_truncation_is_noticed() -> None:
    content = models.convert(models.dense, "float32")
    for length in range(8, len(content) - 1, 97):
        with pytest.raises(ModelError, match="truncated or corrupt"):
            read(content[:length])


def test_a_vector_that_is_read_over_and_over_is_refused() -> None:
    """20,000 operators that share one list of 20,000 inputs: 160 kB that would become 400 million numbers."""
    schema = frameworks.load("litert_schema")
    count = 20_000
    builder = flatbuffers.Builder(1 << 18)
    inputs = builder.CreateNumpyVector(np.zeros(count, np.int32))
    schema.OperatorStart(builder)
    schema.OperatorAddInputs(builder, inputs)
    operator = schema.OperatorEnd(builder)

    def vector(tables: list[int]) -> int:
        builder.StartVector(4, len(tables), 4)
        for table in tables:
            builder.PrependUOffsetTRelative(table)
        return builder.EndVector()

    operators = vector([operator] * count)
    parts = {}
    for name in ("Tensor", "OperatorCode", "Buffer"):
        getattr(schema, f"{name}Start")(builder)
        parts[name] = getattr(schema, f"{name}End")(builder)
    parts = {name: vector([table]) for name, table in parts.items()}
    schema.SubGraphStart(builder)
    schema.SubGraphAddOperators(builder, operators)
    schema.SubGraphAddTensors(builder, parts["Tensor"])
    graphs = vector([schema.SubGraphEnd(builder)])
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddOperatorCodes(builder, parts["OperatorCode"])
    schema.ModelAddBuffers(builder, parts["Buffer"])
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(ModelError, match="its parts are longer than itself"):
        read(bytes(builder.Output()))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_files_are_read_or_refused(data: st.DataObject) -> None:
    source = data.draw(
        st.sampled_from(
            [
                (models.cnn, "int8"),
                (models.cnn, "float16"),
                (models.recurrent, "int8"),
                (models.dense, "sparse", "pruned"),
            ]
        )
    )
    whole = models.convert(*source)
    content = bytearray(data.draw(st.sampled_from([whole, models.behind(whole)])))
    interesting = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
    words = st.tuples(st.integers(2, len(content) // 4 - 1), interesting)
    for word, value in data.draw(st.lists(words, min_size=1, max_size=8)):
        content[word * 4 : word * 4 + 4] = value.to_bytes(4, "little")
    started = time.process_time()
    refusal = _everything(bytes(content))
    assert refusal is None or "Try" in refusal
    assert time.process_time() - started < 5


def _everything(content: bytes) -> str | None:
    """Reads and counts all there is; returns the words of a ModelError, None without one."""
    try:
        model = read(content)
        weigh(model)
        count_macs(model)
        minimum_runtime(model)
        unsupported_by(model, "tflm")
        arithmetic.in_words(model)
        rewrite.normalized(content)
        interface.with_static_shapes(content)
        for dtype in interface.KINDS:
            # What has no scale for the dtype is refused, and the next one is tried.
            with suppress(ModelError):
                interface.with_interface(content, dtype)
        for tensor in model.main.tensors:
            if tensor.sparsity is not None:
                model.values(tensor)
    except ModelError as error:
        return str(error)
    return None


def wide() -> Any:
    """Eight depthwise layers of 512 channels: next to no weights, and a scale and a zero point a channel."""
    keras = frameworks.load("tf_keras")
    x = image = keras.Input((2, 2, 512))
    for _ in range(8):
        x = keras.layers.DepthwiseConv2D(1, use_bias=False)(x)
    return keras.Model(image, x)


def test_a_cut_file_of_scales_alone_is_read() -> None:
    from edgeopt.rounding.arrivals import cut

    content = models.convert(wide, "int8")
    few = cut(content, [read(content).main.operators[1].inputs[0]])
    scales = sum(len(t.spec.quantization.scales) for t in read(few).main.tensors if t.spec.quantization)
    # Of four bytes each; zero points of eight bytes each are one vector for all of them.
    assert (4 + 8) * scales > 2 * len(few)


def test_bytes_that_are_read_again_are_not_parsed_again() -> None:
    content = models.convert(wide, "int8")
    assert read(content) is read(bytes(bytearray(content)))
