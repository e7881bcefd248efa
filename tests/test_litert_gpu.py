"""LiteRT on a GPU, chromium's in software: it computes what the CPU does, and says what it leaves and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import runtime_models
import tflite_models

from edgeopt import frameworks, parity, runtimes
from edgeopt.benchmarking import benchmark
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.runtimes import RUNTIMES, litert_gpu
from edgeopt.runtimes.samples import generated

GPU = RUNTIMES["litert-gpu"]
LOG = """INFO: x
ERROR: Following operations are not supported by GPU delegate:
MATRIX_DIAG: Operation is not supported.
STRIDED_SLICE: Max version supported: 2. Requested version 4.
1 operations will run on the GPU, and the remaining 3 operations will run on the CPU.
NOT: of it
"""


@pytest.fixture(autouse=True, scope="module")
def software_gpu() -> None:
    """The driver of conftest.py, in software."""
    found = runtimes.available(GPU)
    if not found.available:
        pytest.skip(f"no GPU, not even in software: install chromium and libvulkan1 ({found.reason})")


def test_it_computes_what_the_cpu_does_and_says_its_share() -> None:
    models = runtime_models.models()
    for name in ("float32", "float16", "int8"):
        (row,) = [r for r in parity.check(models[name], [runtimes.parse("litert-gpu")]) if r.name == "litert-gpu"]
        assert (row.status, row.matches_reference, row.delegated_share) == ("ok", True, 1.0), row
        assert row.undelegated == ()


def test_what_stays_on_the_cpu_is_told_with_the_delegate_s_reason(tmp_path: Path) -> None:
    file = tmp_path / "half.tflite"
    file.write_bytes(_half())
    session = runtimes.isolated(file, GPU)
    try:
        (spec,) = session.inputs
        sample = generated(session.inputs, seed=0)
        (got,) = session.run(sample).values()
        assert session.delegated_share is not None
        assert 0 < session.delegated_share < 1
        assert any(row.startswith("RFFT2D: Operation is not supported") for row in session.undelegated)
        assert session.resize(2)
        (both,) = session.run({spec.name: np.concatenate([sample[spec.name]] * 2)}).values()
        np.testing.assert_array_equal(both, np.concatenate([got] * 2))
    finally:
        session.close()
    cpu = runtimes.open_session(file, RUNTIMES["litert-reference"])
    np.testing.assert_allclose(got, cpu.run(sample)[cpu.outputs[0].name], atol=1e-3)


def _half() -> bytes:
    """A convolution, then a Fourier transform, which no GPU delegate has."""
    tf = frameworks.load("tensorflow")
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 4), tf.float32, name="x")])
    def call(x: object) -> object:
        seen = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
        return tf.abs(tf.signal.rfft2d(tf.transpose(seen, [0, 3, 1, 2])))

    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()]).convert())


def test_it_is_timed_with_its_outputs_read() -> None:
    done = benchmark([runtime_models.models()["float32"]], runtimes=["litert-gpu"], runs=3)
    (row,) = done.rows
    assert row.result.status == "ok"
    assert row.result.latency_ms is not None
    assert row.result.delegated_share == 1.0


def test_a_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"litert-gpu does not run ring\.tflite: it remembers its last call"):
        runtimes.isolated(runtime_models.models()["ring"], GPU)


def test_a_machine_without_a_gpu_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    file = tmp_path / "cnn.tflite"
    file.write_bytes(tflite_models.convert(tflite_models.cnn, "float32"))
    with pytest.raises(
        UnavailableError, match=r"litert-gpu finds no GPU here\. Try: apt-get install libvulkan1, and a"
    ):
        runtimes.isolated(file, GPU)


def test_the_delegate_s_words_are_read_by_operator() -> None:
    assert litert_gpu.left_on_cpu(LOG) == {
        "MATRIX_DIAG": "Operation is not supported",
        "STRIDED_SLICE": "Max version supported: 2. Requested version 4",
    }
    assert litert_gpu.left_on_cpu("INFO: all is well") == {}
