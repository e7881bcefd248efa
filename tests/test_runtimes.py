"""The contract that every row of RUNTIMES keeps, on real `.tflite` files; test_qemu.py and test_onnx.py have theirs."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tflite_models
from hypothesis import given
from hypothesis import strategies as st
from runtime_models import models, ring_output

from edgeopt import runtimes, workers
from edgeopt.errors import ConfigError, DataError, ModelError, UnavailableError
from edgeopt.runtimes import RUNTIMES, Runtime
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.runtimes.probe import model as probe_model
from edgeopt.runtimes.samples import generated
from edgeopt.runtimes.state import State, state, variables
from edgeopt.tflite import rewrite
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Quantization, TensorSpec

LITERT = RUNTIMES["litert"]


@pytest.fixture(
    params=[row for row in RUNTIMES.values() if row.by_default and "tflite" in row.takes], ids=lambda row: row.name
)
def runtime(request) -> Runtime:
    found = runtimes.available(request.param)
    if not found.available:
        pytest.skip(found.reason)
    return request.param


@pytest.fixture
def opened(runtime):
    """Opens files on the runtime at hand, and closes them."""
    sessions = []

    def open_one(name, **options):
        sessions.append(runtimes.open_session(models()[name], runtime, **options))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()


def batches(session, count):
    """Single-sample inputs, and all of them as one batch."""
    alone = [generated(session.inputs, seed=seed) for seed in range(count)]
    return alone, {name: np.concatenate([one[name] for one in alone]) for name in alone[0]}


# --- every runtime ---------------------------------------------------------------------------------------------------


def test_available_by_running(runtime):
    found = runtimes.available(runtime)
    assert found.available
    assert found.version[0].isdigit()


def test_names_shapes_dtypes(opened):
    session = opened("int8")
    (picture,), (kind,) = session.inputs, session.outputs
    assert (picture.name, picture.shape, picture.dtype) == ("picture", (1, 8, 8, 1), "int8")
    assert (kind.name, kind.shape, kind.dtype) == ("kind", (1, 10), "int8")
    assert kind.quantization == Quantization((1 / 256,), (-128,))  # what softmax always has
    assert opened("float32").inputs[0].quantization is None


def test_two_inputs_by_name(opened):
    session = opened("two")
    x = {"a": np.full((1, 8), 5, np.float32), "b": np.full((1, 8), 3, np.float32)}
    got = session.run(x)
    assert {spec.name for spec in session.inputs} == {"a", "b"}
    np.testing.assert_array_equal(got["plus"], np.full((1, 8), 5 + 3, np.float32))
    np.testing.assert_array_equal(got["minus"], np.full((1, 8), 5 - 3, np.float32))


@pytest.mark.parametrize("name", ["float32", "int8", "lstm"])
def test_runs_are_repeatable(opened, name):
    session = opened(name)
    first, second = (generated(session.inputs, seed=seed) for seed in (1, 2))
    before = session.run(first)
    kept = {key: value.copy() for key, value in before.items()}
    other = session.run(second)
    again = session.run(first)
    for key, value in before.items():
        np.testing.assert_array_equal(value, kept[key])  # a copy, not a view of the interpreter's memory
        np.testing.assert_array_equal(value, again[key])  # no state is left from the sample between
        assert not np.array_equal(value, other[key])


@pytest.mark.parametrize("name", ["ring", "ring-in-a-branch"])
def test_resource_variables_are_as_the_file_says_in_every_run(opened, name):
    """No runtime's own reset sets them back: LiteRT's leaves them, TFLM's makes zeros of what CALL_ONCE assigned."""
    session = opened(name)
    frames = np.array([[[[3, 7]]], [[[-1, 4]]], [[[3, 7]]]], np.float32)
    for frame in frames:
        np.testing.assert_array_equal(session.run({"frame": frame})["scaled"], ring_output(frame))
    session.invoke_ns({"frame": frames[0]}, runs=3)
    np.testing.assert_array_equal(session.run({"frame": frames[0]})["scaled"], ring_output(frames[0]))
    assert not session.resize(2)
    np.testing.assert_array_equal(session.run({"frame": frames[0]})["scaled"], ring_output(frames[0]))


def test_timed_runs_begin_in_a_fresh_state(opened, runtime):
    """Otherwise what an LSTM adds up from block to block may end in infinities, which take other times."""
    if "tensors" not in runtime.can:
        pytest.skip("its results of a timed run are not to be seen")
    session = opened("lstm", keep_intermediates=True)
    x = generated(session.inputs, seed=1)
    expected = session.run(x)["sum"]
    session.invoke_ns(x, runs=1)
    np.testing.assert_array_equal(list(session.tensors().values())[-1], expected)


def test_state_is_found_where_operators_write_it():
    kept = {name: state(read(models()[name])) for name in ("float32", "lstm", "ring", "ring-in-a-branch")}
    assert kept == {
        "float32": State(tensors=False, resources=False),
        "lstm": State(tensors=True, resources=False),
        "ring": State(tensors=False, resources=True),
        "ring-in-a-branch": State(tensors=False, resources=True),
    }
    # What only the initialization assigns is a constant.
    ring = read(models()["ring"])
    main = replace(ring.main, operators=tuple(one for one in ring.main.operators if one.name != "ASSIGN_VARIABLE"))
    assert any(one.name == "ASSIGN_VARIABLE" for graph in ring.subgraphs[1:] for one in graph.operators)
    assert not state(replace(ring, subgraphs=(main, *ring.subgraphs[1:]))).resources


def test_free_sizes_are_set_where_a_runtime_can(opened, runtime):
    with pytest.raises(
        ModelError, match=rf"{runtime.name} takes \[(1|any), 8, 8, 1\] as the input 'picture', got \[1, 12,"
    ):
        opened("float32").reshape({"picture": (1, 12, 12, 1)})
    if "resize" not in runtime.can:
        with pytest.raises(ModelError, match="Non-constant >size< tensor is not supported"):
            opened("any-size")
        return
    session = opened("any-size")
    wanted = {"photo": (1, 12, 9, 3)}
    assert session.declared[0].shape[1:] == (None, None, 3)
    session.reshape(wanted)
    x = generated(session.inputs, seed=0)
    alone = session.run(x)
    assert [array.shape for array in alone.values()] == [(1, 2 * (12 - 2), 2 * (9 - 2), 3)]
    assert session.resize(2)  # and the sizes stay
    assert session.inputs[0].shape == (2, 12, 9, 3)
    with pytest.raises(ModelError, match=r"got \[1, 12, 9, 4\]\. Try data or --shape of that size"):
        session.reshape({"photo": (1, 12, 9, 4)})


def test_computes_what_litert_reference_does(opened):
    reference = runtimes.open_session(models()["float32"], RUNTIMES["litert-reference"])
    session = opened("float32")
    x = generated(session.inputs, seed=3)
    np.testing.assert_allclose(session.run(x)["kind"], reference.run(x)["kind"], atol=1e-6)
    assert session.run(x)["kind"].sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_batch_is_its_samples(opened, name):
    session = opened(name)
    alone, batch = batches(session, 7)
    expected = np.concatenate([session.run(one)["kind"] for one in alone])
    if not session.resize(7):
        assert session.inputs[0].shape == (1, 8, 8, 1)
        np.testing.assert_array_equal(session.run(alone[0])["kind"], expected[:1])
        return
    assert (session.inputs[0].shape, session.outputs[0].shape) == ((7, 8, 8, 1), (7, 10))
    got = session.run(batch)["kind"]
    if name == "int8":
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert session.resize(1)
    np.testing.assert_array_equal(session.run(alone[0])["kind"], expected[:1])


def test_only_tflm_keeps_its_batch(opened, runtime):
    assert opened("float32").resize(2) == ("resize" in runtime.can)


@pytest.mark.parametrize("name", ["mixing", "lstm"])
def test_resize_refuses_what_would_change_results(opened, name):
    session = opened(name)
    x = generated(session.inputs, seed=4)
    before = session.run(x)
    assert not session.resize(3)
    assert not session.resize(5)
    assert session.inputs[0].shape[0] == 1
    for key, value in session.run(x).items():
        np.testing.assert_array_equal(value, before[key])


def test_steps_in_time_are_no_samples(opened):
    session = opened("time-major")
    assert not session.resize(1)
    assert session.inputs[0].shape == (5, 1, 4)


def test_invoke_ns(opened):
    session = opened("int8")
    times = session.invoke_ns(generated(session.inputs, seed=0), runs=20)
    assert (times.shape, times.dtype) == ((20,), np.int64)
    assert times.min() > 0


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_tensors_end_in_the_output(opened, runtime, name):
    if "tensors" not in runtime.can:
        with pytest.raises(
            UnavailableError, match=rf"{runtime.name} keeps no activations\. Try --runtime litert-builtin"
        ):
            opened(name, keep_intermediates=True)
        return
    session = opened(name, keep_intermediates=True)
    got = session.run(generated(session.inputs, seed=5))["kind"]
    kept = session.tensors()
    assert [value.shape for value in kept.values()] == [(1, 8, 8, 8), (1, 3, 3, 8), (1, 72), (1, 16), (1, 10), (1, 10)]
    np.testing.assert_array_equal(list(kept.values())[-1], got)
    np.testing.assert_array_equal(list(kept.values())[2].ravel(), list(kept.values())[1].ravel())  # the flattening
    with pytest.raises(ModelError, match="opened with keep_intermediates"):
        opened(name).tensors()


def test_threads(opened, runtime):
    session = opened("int8", threads=2)
    assert session.threads == (2 if "threads" in runtime.can else 1)
    session.run(generated(session.inputs, seed=0))
    with pytest.raises(ConfigError, match=r"positive number of threads, got 0.*--threads 1"):
        opened("int8", threads=0)


def test_wrong_inputs(opened):
    session = opened("float32")
    (spec,) = session.inputs
    right = np.zeros(spec.shape, np.float32)
    with pytest.raises(DataError, match="Expected the inputs picture, got photo"):
        session.run({"photo": right})
    with pytest.raises(DataError, match="Expected the inputs picture, got picture, more"):
        session.run({"picture": right, "more": right})
    with pytest.raises(DataError, match=r"Expected float32 \[1, 8, 8, 1\] for the input 'picture', got float64"):
        session.run({"picture": right.astype(np.float64)})
    with pytest.raises(DataError, match=r"got float32 \[2, 8, 8, 1\].*resize"):
        session.run({"picture": np.zeros((2, 8, 8, 1), np.float32)})


def test_a_refusal_of_every_tensor_is_short(tmp_path):
    def misquantize(model, schema):
        for _ in range(20):
            quantized = schema.TensorT()
            quantized.name, quantized.shape, quantized.type = "t", [1], schema.TensorType.INT32
            quantized.quantization = schema.QuantizationParametersT()
            quantized.quantization.scale, quantized.quantization.zeroPoint = [1.0], [0]
            quantized.quantization.quantizedDimension = 3
            model.subgraphs[0].tensors.append(quantized)

    file = tmp_path / "odd.tflite"
    file.write_bytes(rewrite.changed(probe_model(), misquantize))
    with pytest.raises(ModelError, match=r"quantized_dimension must be in range .* …\. Expected a .tflite") as caught:
        runtimes.open_session(file, RUNTIMES["litert"])
    assert len(str(caught.value)) < 700


def test_refused_files(runtime, tmp_path):
    with pytest.raises(ModelError, match=r"got .*none\.tflite: No such file"):
        runtimes.open_session(tmp_path / "none.tflite", runtime)
    text = tmp_path / "text.tflite"
    text.write_text("this is a text file")
    with pytest.raises(ModelError, match=r"bytes 4 to 8 are not 'TFL3'.*edgeopt convert"):
        runtimes.open_session(text, runtime)
    with pytest.raises(ModelError, match=r"text\.tflite"):
        runtimes.isolated(text, runtime)


@pytest.mark.parametrize("end", [200, 1000, 3000])
def test_a_truncated_file_ends_no_run(runtime, tmp_path, end):
    file = tmp_path / "cut.tflite"
    file.write_bytes(models()["int8"].read_bytes()[:end])
    with pytest.raises(ModelError, match=f"{runtime.name} (refused|died on) cut.tflite"):
        runtimes.isolated(file, runtime)


def test_delegates_where_they_load(runtime, tmp_path):
    if "delegates" not in runtime.can:
        delegate = runtimes.Delegate(tmp_path / "some.so")
        with pytest.raises(UnavailableError, match=r"loads no external delegates\. Try --runtime litert or"):
            runtimes.open_session(models()["int8"], runtime, delegate=delegate)


def test_isolated_is_the_same(opened, runtime):
    here = opened("int8")
    x = generated(here.inputs, seed=6)
    there = runtimes.isolated(models()["int8"], runtime)
    try:
        assert (there.inputs, there.outputs, there.threads) == (here.inputs, here.outputs, here.threads)
        assert (there.delegated_share, there.undelegated) == (here.delegated_share, here.undelegated)
        np.testing.assert_array_equal(there.run(x)["kind"], here.run(x)["kind"])
        assert there.resize(2) == here.resize(2)
        assert there.inputs == here.inputs
        with pytest.raises(DataError, match="Expected the inputs picture"):
            there.run({})
    finally:
        there.close()
    with pytest.raises(ModelError, match=r"session is closed. Try opening it anew"):
        there.run(x)


# --- what differs, and is told ---------------------------------------------------------------------------------------


def test_xnnpack_share_is_counted():
    session = runtimes.open_session(models()["float32"], LITERT)
    assert session.delegated_share == 1
    assert session.delegated == ("2 x FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE", "SOFTMAX")
    assert session.undelegated == ()
    session = runtimes.open_session(models()["int8"], LITERT)
    assert session.undelegated == ("SOFTMAX",)  # XNNPACK has no int8 one
    assert session.delegated_share == pytest.approx(5 / 6)
    session = runtimes.open_session(models()["float16"], LITERT)
    assert session.delegated[0] == "5 x DEQUANTIZE"
    session = runtimes.open_session(models()["lstm"], LITERT)
    assert session.undelegated == ("UNIDIRECTIONAL_SEQUENCE_LSTM", "STRIDED_SLICE")
    builtin = runtimes.open_session(models()["int8"], RUNTIMES["litert-builtin"])
    assert (builtin.delegated_share, builtin.delegated, builtin.undelegated) == (None, (), ())


def test_refusals_carry_the_runtimes_words():
    for name, words in (
        ("tflite-runtime", "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'"),
        ("tflm", "Input type: FLOAT32 with filter type: INT8 not supported"),
    ):
        if not runtimes.available(RUNTIMES[name]).available:
            pytest.skip(f"{name} is not here")
        with pytest.raises(ModelError, match=f"{name} refused dynamic.tflite: {words}"):
            runtimes.open_session(models()["dynamic"], RUNTIMES[name])


def test_arena_is_what_tflm_needs():
    if not runtimes.available(RUNTIMES["tflm"]).available:
        pytest.skip("tflm is not here")
    from edgeopt import frameworks
    from edgeopt.runtimes.tflm import minimum_arena

    arena = minimum_arena(models()["int8"])
    interpreter = frameworks.load("tflite_micro").runtime.Interpreter
    content = models()["int8"].read_bytes()
    assert 8 * 8 * 8 < arena.used <= arena.minimum < 64 * 1024  # more than the largest activation
    interpreter.from_bytes(content, arena_size=arena.minimum).invoke()
    with pytest.raises(RuntimeError):
        interpreter.from_bytes(content, arena_size=arena.minimum - 16).invoke()


def test_an_arena_is_measured_where_small_ones_crash(monkeypatch):
    """The kernel of the LSTM dies in an arena that is too small, where others say so."""
    if not runtimes.available(RUNTIMES["tflm"]).available:
        pytest.skip("tflm is not here")
    from edgeopt import frameworks
    from edgeopt.runtimes import tflm

    assert tflm.measured_arena(models()["int8"]) == tflm.minimum_arena(models()["int8"])
    arena = tflm.measured_arena(models()["lstm"])
    assert 0 < arena.used <= arena.minimum
    interpreter = frameworks.load("tflite_micro").runtime.Interpreter
    interpreter.from_bytes(models()["lstm"].read_bytes(), arena_size=arena.minimum).invoke()

    class Dying:
        def call(self, *_):
            raise workers.WorkerCrashed("abort", "assertion failed")

        create = call

    monkeypatch.setattr(workers, "shared", lambda _: Dying())
    with pytest.raises(ModelError, match=r"tflm died on lstm\.tflite \(abort\): assertion failed"):
        tflm.measured_arena(models()["lstm"])


@pytest.mark.parametrize("first", ["tensorflow", "tflite_runtime"])
def test_import_order_never_matters(first):
    if not runtimes.available(RUNTIMES["tflite-runtime"]).available:
        pytest.skip("tflite-runtime is not here")
    second = {"tensorflow": "tflite_runtime", "tflite_runtime": "tensorflow"}[first]
    script = (
        "import sys; from pathlib import Path; from edgeopt import frameworks, runtimes\n"
        f"frameworks.load({first!r}); frameworks.load({second!r})\n"
        "from edgeopt.runtimes.samples import generated\n"
        "session = runtimes.open_session(Path(sys.argv[1]), runtimes.RUNTIMES['tflite-runtime'])\n"
        "tensorflow = frameworks.load('tensorflow').lite.Interpreter(sys.argv[1]); tensorflow.allocate_tensors()\n"
        "print(session.run(generated(session.inputs, seed=0))['kind'].sum())"
    )
    command = [sys.executable, "-c", script, str(models()["float32"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1, abs=1e-5)


def test_opening_is_quiet(tmp_path):
    script = (
        "import sys; from pathlib import Path; from edgeopt import runtimes\n"
        "runtimes.open_session(Path(sys.argv[1]), runtimes.RUNTIMES['litert'])"
    )
    command = [sys.executable, "-c", script, str(models()["float32"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_names():
    assert runtimes.parse("ai-edge-litert==2.3") == runtimes.Request(LITERT, "2.3")
    assert runtimes.parse("tflm") == runtimes.Request(RUNTIMES["tflm"])
    with pytest.raises(ConfigError, match=r"Expected a runtime, as NAME or NAME==VERSION, got 'lightrt'. Did you mean"):
        runtimes.parse("lightrt")


def test_a_dying_runtime_ends_no_run():
    dying = Runtime("dying", "dying_runtime", "litert", "builtin", "ends the process")
    found = runtimes.available(dying)
    assert (found.available, found.reason) == (False, "it dies on this machine (abort)")
    with pytest.raises(
        ModelError, match=r"dying died on int8\.tflite \(abort\): assertion failed: everything\. Expected"
    ):
        runtimes.isolated(models()["int8"], dying)
    assert workers.shared("litert").call("os:getpid") > 0


def test_the_probe_is_an_add(tmp_path):
    file = tmp_path / "add.tflite"
    file.write_bytes(probe_model())
    session = runtimes.open_session(file, RUNTIMES["litert-reference"])
    assert [spec.name for spec in session.inputs] == ["x"]
    assert file.stat().st_size == 792


# --- numbers ---------------------------------------------------------------------------------------------------------


def spec_of(dtype, scale, zero_point):
    return TensorSpec("t", (1, 4), dtype, Quantization((scale,), (zero_point,)))


def test_quantize_rounds_half_away_and_saturates():
    spec = spec_of("int8", 0.5, -3)
    x = np.array([[0.25, -0.25, 0.24, -0.24, 1e9, -1e9, np.inf, -np.inf]], np.float32)
    expected = [1 - 3, -1 - 3, 0 - 3, 0 - 3, 127, -128, 127, -128]
    got = quantize(x, spec)
    assert got.dtype == np.int8
    assert got.tolist() == [expected]


def test_quantize_passes_what_is_stored_already():
    stored = np.arange(4, dtype=np.int8)[None]
    assert quantize(stored, spec_of("int8", 0.1, 0)) is stored
    assert quantize(np.array([1.0, 2.0]), TensorSpec("ids", (2,), "int32")).tolist() == [1, 2]
    assert quantize(np.array([1, 2]), TensorSpec("x", (2,), "float32")).dtype == np.float32


def test_quantize_refuses():
    with pytest.raises(DataError, match="Expected numbers for the int8 tensor 't', got NaN"):
        quantize(np.array([[np.nan]]), spec_of("int8", 0.1, 0))
    with pytest.raises(DataError, match="Expected whole numbers for the int32 input 'ids'"):
        quantize(np.array([0.5]), TensorSpec("ids", (1,), "int32"))


def test_dequantize_per_axis():
    spec = TensorSpec("w", (2, 3), "int8", Quantization((0.5, 2.0), (1, -1), axis=0))
    got = dequantize(np.array([[1, 2, 3], [-1, 0, 1]], np.int8), spec)
    assert got.tolist() == [[0.5 * (v - 1) for v in (1, 2, 3)], [2.0 * (v + 1) for v in (-1, 0, 1)]]
    assert dequantize(np.ones(3, np.float32), spec).dtype == np.float32


@given(
    st.sampled_from(["int8", "uint8", "int16"]),
    st.floats(1e-4, 10),
    st.integers(-100, 100),
    st.floats(-1, 1),
)
def test_quantizing_is_within_half_a_step(dtype, scale, zero_point, place):
    spec = spec_of(dtype, scale, max(zero_point, 0) if dtype == "uint8" else zero_point)
    limits = np.iinfo(dtype)
    ends = dequantize(np.array([limits.min, limits.max], dtype), spec)
    x = np.array([ends[0] + (ends[1] - ends[0]) * (place + 1) / 2], np.float32)
    assert abs(dequantize(quantize(x, spec), spec)[0] - x[0]) <= scale * 0.501
    stored = np.array([limits.min, 0 if dtype == "uint8" else -1, 1, limits.max], dtype)
    assert np.array_equal(quantize(dequantize(stored, spec), spec), stored)


def test_quantize_is_the_interpreters_own():
    """The file with float inputs quantizes them by its own kernel, and comes to the same integers inside."""
    integer = runtimes.open_session(models()["int8"], RUNTIMES["litert-reference"])
    real = runtimes.open_session(models()["int8-float-io"], RUNTIMES["litert-reference"])
    (taken,), (given_out,) = integer.inputs, integer.outputs
    for seed in range(5):
        x = generated(real.inputs, seed=seed)
        got = integer.run({"picture": quantize(x["picture"], taken)})
        np.testing.assert_array_equal(dequantize(got["kind"], given_out), real.run(x)["kind"])


def test_texts_are_no_generated_inputs():
    with pytest.raises(ModelError, match=r"Expected inputs of numbers, got string for 'words'\. Try a model whose"):
        generated([TensorSpec("words", (1,), "string", None)], seed=0)


def test_an_output_that_nothing_computes(tmp_path):
    def add(model, schema):
        tensor, entry = schema.TensorT(), schema.TensorMapT()
        tensor.name, tensor.shape, entry.name, entry.tensorIndex = "none", [3], "none", len(model.subgraphs[0].tensors)
        model.subgraphs[0].tensors.append(tensor)
        model.subgraphs[0].outputs = [*model.subgraphs[0].outputs, entry.tensorIndex]
        model.signatureDefs[0].outputs.append(entry)

    file = tmp_path / "none.tflite"
    file.write_bytes(rewrite.changed(models()["float32"].read_bytes(), add))
    session = runtimes.open_session(file, LITERT)
    with pytest.raises(ModelError, match=r"litert could not run none\.tflite: Tensor data is null"):
        session.run(generated(session.inputs, seed=0))


def test_tflm_opens_what_crashes_in_a_small_arena(tmp_path):
    """Kernels write the scales of their channels wherever the allocator says, also where it says nowhere."""
    if not runtimes.available(RUNTIMES["tflm"]).available:
        pytest.skip("tflm is not here")
    file = tmp_path / "wide.tflite"
    file.write_bytes(tflite_models.convert(tflite_models.wide, "int8"))
    with closing(runtimes.isolated(file, RUNTIMES["tflm"])) as session:
        assert session.run(generated(session.inputs, seed=0))

    from edgeopt.runtimes.tflm import measured_arena

    # A multiplier and a shift a channel, and its scale and zero point as it is planned.
    assert measured_arena(file).minimum > 8000 * (4 + 4)


def test_tflm_says_that_activations_are_too_large(tmp_path):
    if not runtimes.available(RUNTIMES["tflm"]).available:
        pytest.skip("tflm is not here")

    def grow(model, schema):
        for tensor in model.subgraphs[0].tensors[:1]:
            tensor.shape = np.array([1, 2**15, 2**15, 2], np.int32)

    file = tmp_path / "huge.tflite"
    file.write_bytes(rewrite.changed(models()["int8"].read_bytes(), grow))
    with pytest.raises(ModelError, match=r"tflm refused huge.tflite: its activations take 2,147,[\d,]+ bytes at once"):
        runtimes.open_session(file, RUNTIMES["tflm"])


def test_tflm_keeps_variables_that_are_only_read(tmp_path):
    """Its reset would leave zeros where CALL_ONCE put the file's own values."""
    if not runtimes.available(RUNTIMES["tflm"]).available:
        pytest.skip("tflm is not here")

    def freeze(model, schema):
        graph, assign = model.subgraphs[0], schema.BuiltinOperator.ASSIGN_VARIABLE
        graph.operators = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode != assign]

    file = tmp_path / "frozen.tflite"
    file.write_bytes(rewrite.changed(models()["ring"].read_bytes(), freeze))
    session = runtimes.open_session(file, RUNTIMES["tflm"])
    frames = np.arange(6, dtype=np.float32).reshape(3, 1, 2)
    for frame, wanted in zip(frames, ring_output(frames)):
        np.testing.assert_array_equal(session.run({"frame": frame[None]})["scaled"][0], wanted)
    assert variables(read(file)) == 1


def test_opening_a_file_does_not_read_it_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its load time and memory would be ours instead of the runtime's."""

    def read(content: Any) -> Any:
        raise AssertionError("parsed while it was opened")

    monkeypatch.setattr("edgeopt.runtimes.interpreter.read", read)
    session = runtimes.open_session(models()["lstm"], RUNTIMES["litert"])
    sample = generated(session.inputs, seed=0)
    session.run(sample)
    with pytest.raises(AssertionError, match="parsed"):
        session.run(sample)  # what it keeps has to be known now
