"""External delegates: a real one, built from C here, loaded by every runtime that loads them."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from runtime_models import models

from edgeopt import runtimes
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.runtimes import RUNTIMES, Delegate, Runtime
from edgeopt.runtimes.samples import generated

SOURCES = Path(__file__).parent / "delegates"
HEADERS = Path(runtimes.__file__).parent
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc: apt-get install gcc")


@functools.cache
def built(*flags: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-delegate-"))
    library = folder / "fully_connected.so"
    source = str(SOURCES / "fully_connected.c")
    subprocess.run(["gcc", *STRICT, *flags, f"-I{HEADERS}", source, "-o", str(library)], check=True)
    return library


@pytest.fixture(params=[row for row in RUNTIMES.values() if "delegates" in row.can], ids=lambda row: row.name)
def runtime(request) -> Runtime:
    found = runtimes.available(request.param)
    if not found.available:
        pytest.skip(found.reason)
    return request.param


def test_takes_its_operators_and_computes_them(runtime):
    delegate = Delegate(built())
    session = runtimes.open_session(models()["float32"], runtime, delegate=delegate)
    plain = runtimes.open_session(models()["float32"], RUNTIMES["litert-reference"])
    assert session.delegated == ("2 x FULLY_CONNECTED",)
    assert session.undelegated == ("CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE", "SOFTMAX")
    assert session.delegated_share == pytest.approx(2 / 6)
    for seed in range(3):
        x = generated(session.inputs, seed=seed)
        np.testing.assert_allclose(session.run(x)["kind"], plain.run(x)["kind"], atol=1e-6)


def test_options_reach_it(runtime):
    """A gain of 2 on both dense layers: the results of the softmax show that the delegate computed them."""
    plain = runtimes.open_session(models()["float32"], runtime)
    doubled = runtimes.open_session(models()["float32"], runtime, delegate=Delegate(built(), {"gain": "2"}))
    kept = runtimes.open_session(models()["float32"], RUNTIMES["litert-builtin"], keep_intermediates=True)
    x = generated(plain.inputs, seed=0)
    kept.run(x)
    _, _, flat, hidden, logits, _ = kept.tensors().values()
    weights = _dense_weights(kept)
    scaled = 2 * (2 * np.maximum(flat @ weights[0].T, 0) @ weights[1].T)
    np.testing.assert_allclose(np.maximum(flat @ weights[0].T, 0), hidden, atol=1e-5)
    np.testing.assert_allclose(hidden @ weights[1].T, logits, atol=1e-5)
    expected = np.exp(scaled) / np.exp(scaled).sum()
    np.testing.assert_allclose(doubled.run(x)["kind"], expected, atol=1e-5)
    assert np.abs(plain.run(x)["kind"] - expected).max() > 1e-3


def test_resizes_with_the_graph(runtime):
    session = runtimes.open_session(models()["float32"], runtime, delegate=Delegate(built()))
    alone = [generated(session.inputs, seed=seed)["picture"] for seed in range(4)]
    expected = np.concatenate([session.run({"picture": x})["kind"] for x in alone])
    assert session.resize(4)
    np.testing.assert_allclose(session.run({"picture": np.concatenate(alone)})["kind"], expected, atol=1e-6)


def test_lives_in_a_worker_too(runtime):
    session = runtimes.isolated(models()["float32"], runtime, delegate=Delegate(built()))
    try:
        assert session.delegated == ("2 x FULLY_CONNECTED",)
    finally:
        session.close()


def test_taking_nothing_is_no_silent_fall_back(runtime):
    with pytest.raises(
        UnavailableError, match=r"took none of the 6 operators of float32\.tflite \(2 x FULLY.*no --del"
    ):
        runtimes.open_session(models()["float32"], runtime, delegate=Delegate(built(), {"claim": "nothing"}))
    with pytest.raises(UnavailableError, match=r"took none of the 6 operators of int8\.tflite"):
        runtimes.open_session(models()["int8"], runtime, delegate=Delegate(built()))


def test_unusable_libraries(runtime, tmp_path):
    def opening(library, options=None):
        runtimes.open_session(models()["float32"], runtime, delegate=Delegate(library, options or {}))

    with pytest.raises(UnavailableError, match=r"Expected a delegate's shared library, got .*none\.so, which does not"):
        opening(tmp_path / "none.so")
    text = tmp_path / "text.so"
    text.write_text("no library " * 100)
    with pytest.raises(
        UnavailableError, match=r"text\.so cannot be loaded as a delegate: .*invalid ELF header.*try one"
    ):
        opening(text)
    source, other = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text("int nothing_of_a_delegate(void) { return 0; }")
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), "-o", str(other)], check=True)
    with pytest.raises(UnavailableError, match=r"undefined symbol: tflite_plugin_create_delegate\. Expected"):
        opening(other)
    with pytest.raises(
        UnavailableError, match=r"refused to start with the options gian=2: unknown option 'gian'\. Try"
    ):
        opening(built(), {"gian": "2"})


def test_a_delegate_that_aborts_ends_no_run(runtime):
    with pytest.raises(
        ModelError, match=r"with the delegate fully_connected\.so died on float32\.tflite \(abort\): this"
    ):
        runtimes.isolated(models()["float32"], runtime, delegate=Delegate(built("-DABORT_ON_LOAD")))


def _dense_weights(session) -> list[np.ndarray]:
    interpreter = session._interpreter
    dense = [op for op in interpreter._get_ops_details() if op["op_name"] == "FULLY_CONNECTED"]
    return [interpreter.get_tensor(op["inputs"][1]) for op in dense]
