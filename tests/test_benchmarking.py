"""What a benchmark says of its rows; no test here depends on how fast anything is."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from runtime_models import models
from test_delegates import built

from edgeopt import benchmarking, data, machine, runtimes
from edgeopt.errors import ConfigError, ModelError
from edgeopt.plain import to_plain
from edgeopt.runtimes import RUNTIMES, Delegate
from edgeopt.runtimes.numbers import quantize
from edgeopt.runtimes.samples import from_data
from edgeopt.units import parse_shapes
from edgeopt.vocabulary import Quantization, TensorSpec

HAS_COMPILER = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc: apt-get install gcc")


@pytest.fixture(scope="module")
def result():
    files = [models()[name] for name in ("float32", "int8", "dynamic")]
    return benchmarking.benchmark(files, runtimes=["litert", "tflm"], runs=40, profile=True)


def rows(result, **wanted):
    return [row for row in result.rows if all(getattr(row.result, key) == value for key, value in wanted.items())]


def test_a_row_for_every_file_and_runtime(result):
    names = [(row.file.stem, row.result.name) for row in result.rows]
    assert names == [(file, name) for file in ("float32", "int8", "dynamic") for name in ("litert", "tflm")]


def test_percentiles_and_counts(result):
    for row in rows(result, status="ok"):
        latency = row.result.latency_ms
        assert 0 < latency.min <= latency.p50 <= latency.p90 <= latency.p99
        assert (latency.runs, latency.threads) == (40, 1)
        assert latency.noise >= 0
        assert row.result.load_ms > 0
        assert row.result.first_ms > 0
        assert row.result.peak_memory_bytes > row.file.stat().st_size
        assert row.result.version


def test_a_refused_file_is_a_row(result):
    if not runtimes.available(RUNTIMES["tflm"]).available:
        pytest.skip("tflm is not here")
    (row,) = rows(result, status="failed")
    assert (row.file.stem, row.result.name) == ("dynamic", "tflm")
    assert "Input type: FLOAT32 with filter type: INT8 not supported" in row.result.reason
    assert row.result.latency_ms is None
    assert row.ratio is None


def test_blocks_take_turns(result):
    working = {i for i, row in enumerate(result.rows) if row.result.status == "ok"}
    assert len(result.order) == benchmarking.ROUNDS
    assert all(set(turn) == working and len(turn) == len(working) for turn in result.order)
    assert len(set(result.order)) > 1  # in an order drawn anew


def test_ratios_are_to_the_first_file_on_the_same_runtime(result):
    for row in rows(result, status="ok"):
        if row.file.stem == "float32":
            assert row.ratio is None
        else:
            assert row.ratio_to == f"float32.tflite on {row.result.name}"
            assert 0 < row.ratio.low <= row.ratio.value <= row.ratio.high


def test_delegation_is_in_the_row(result):
    by_name = {(row.file.stem, row.result.name): row.result for row in result.rows}
    assert by_name["int8", "litert"].undelegated == ("SOFTMAX",)
    assert by_name["int8", "litert"].delegated_share == pytest.approx(5 / 6)


@HAS_COMPILER
def test_operators_one_by_one(result):
    float32 = next(row for row in result.rows if row.result.name == "litert")
    kinds = ["CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"]
    assert [row.operator for row in float32.operators] == kinds
    assert all(row.delegated and row.p50_us > 0 for row in float32.operators)
    assert sum(row.share for row in float32.operators) == pytest.approx(1)
    assert "conv2d" in float32.operators[0].layer
    int8 = next(row for row in result.rows if row.file.stem == "int8")
    assert [row.delegated for row in int8.operators] == [True] * 5 + [False]


def test_no_profile_is_said(result):
    if not runtimes.available(RUNTIMES["tflm"]).available:
        pytest.skip("tflm is not here")
    row = next(row for row in rows(result, status="ok") if row.result.name == "tflm")
    assert row.operators == ()
    assert any("no per-operator profile: tflm gives no times of single operators" in note for note in row.notes)


@HAS_COMPILER
def test_a_profile_without_a_compiler_is_said(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    (row,) = benchmarking.benchmark([models()["float32"]], runs=10, profile=True).rows
    assert row.operators == ()
    assert any("The C compiler no-such-compiler could not build the profiler" in note for note in row.notes)


@HAS_COMPILER
def test_profile_of_a_delegate_and_the_rest():
    delegate = Delegate(built())
    done = benchmarking.benchmark(
        [models()["float32"]], runtimes=["tflite-runtime", "litert-builtin"], delegate=delegate, runs=10, profile=True
    )
    with_it, without = done.rows
    if with_it.result.status == "skipped":
        pytest.skip(with_it.result.reason)
    assert with_it.result.delegated == ("2 x FULLY_CONNECTED",)
    # XNNPACK takes what the delegate left.
    parts = ["CONV_2D + DEPTHWISE_CONV_2D + RESHAPE", "2 x FULLY_CONNECTED", "SOFTMAX"]
    assert [row.operator for row in with_it.operators] == parts
    assert any("litert-builtin loads no external delegates: timed without" in note for note in without.notes)
    assert without.ratio_to == "float32.tflite on tflite-runtime"  # one file: runtimes are compared


def test_a_crash_is_a_row():
    files = [models()["float32"], models()["int8"]]
    delegate = Delegate(built("-DABORT_ON_LOAD")) if shutil.which("gcc") else pytest.skip("needs gcc")
    done = benchmarking.benchmark(files, runtimes=["litert", "litert-builtin"], delegate=delegate, runs=10)
    assert [row.result.status for row in done.rows] == ["failed", "ok", "failed", "ok"]
    assert "(abort): this delegate wants another machine" in done.rows[0].result.reason


def test_runs_by_default_fill_the_time():
    (row,) = benchmarking.benchmark([models()["float32"]], min_seconds=0).rows
    assert row.result.latency_ms.runs == benchmarking.FEWEST_RUNS
    (row,) = benchmarking.benchmark([models()["float32"]], min_seconds=0.05).rows
    assert benchmarking.FEWEST_RUNS < row.result.latency_ms.runs <= benchmarking.MOST_RUNS


def test_the_first_sample_of_the_data(tmp_path):
    """Float pictures reach an int8 input quantized."""
    x = np.random.default_rng(0).standard_normal((12, 8, 8, 1)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=np.arange(12) % 2, x_test=x, y_test=np.arange(12) % 2)
    part = data.load(tmp_path / "data.npz").validation
    done = benchmarking.benchmark([models()["int8"], models()["float32"]], inputs=part, runs=10)
    assert [row.result.status for row in done.rows] == ["ok", "ok"]
    assert done.notes[0] == "inputs: the first sample of the data"
    spec = TensorSpec("picture", (1, 8, 8, 1), "int8", Quantization((0.5,), (1,)))
    given = from_data(part, [spec])[0]["picture"]
    np.testing.assert_array_equal(given, quantize(next(part.batches(1)).inputs[part.specs[0].name], spec))


def test_free_sizes_are_the_datas_or_as_asked_for():
    file = models()["any-size"]
    for settings in ({}, {"shapes": parse_shapes(["1,20,16,3"])}, {"shapes": parse_shapes(["photo=1,20,16,3"])}):
        (row,) = benchmarking.benchmark([file], runs=10, profile=True, **settings).rows
        assert (row.result.status, row.result.reason) == ("ok", "")
        assert any("takes no further delegate into any-size.tflite, whose sizes" in note for note in row.notes)
    (row,) = benchmarking.benchmark([file], runs=10, shapes={"picture": (1, 4, 4, 3)}).rows
    assert "Expected --shape with one of the inputs photo, got picture. Try --shape photo=SIZES" in row.result.reason


def test_wishes_that_make_no_sense():
    with pytest.raises(ConfigError, match=r"at least one file to time, got none\. Try FILE"):
        benchmarking.benchmark([])
    with pytest.raises(ConfigError, match="Expected positive numbers, got runs=0"):
        benchmarking.benchmark([models()["int8"]], runs=0)
    with pytest.raises(ConfigError, match="Expected a runtime, as NAME or NAME==VERSION, got 'nothing'"):
        benchmarking.benchmark([models()["int8"]], runtimes=["nothing"])
    with pytest.raises(ModelError, match=r"none\.tflite, which does not exist\. Try another path"):
        benchmarking.benchmark([models()["int8"].with_name("none.tflite")])


def test_the_table_is_plain_data(result):
    plain = to_plain(result)
    assert plain["rows"][0]["result"]["latency_ms"]["p50"] > 0
    assert plain["machine"]["cpu"]
    assert plain["notes"][0] == "inputs: seeded random values"


# --- the arithmetic --------------------------------------------------------------------------------------------------


def test_ratios_cancel_what_hits_both():
    """A machine that slows down tenfold in mid-run: the times are worthless, the ratio of 3 stays."""
    slowdown = [1, 1, 1, 1, 1, 10, 10, 10, 10, 10]
    generator = np.random.default_rng(0)
    base = [s * (1000 + generator.integers(0, 20, 30)) for s in slowdown]
    blocks = [s * (3000 + generator.integers(0, 60, 30)) for s in slowdown]
    ratio = benchmarking.ratio_by_rounds(blocks, base, seed=0)
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.value == pytest.approx(3, rel=0.02)
    assert ratio.high - ratio.low < 0.1
    assert benchmarking._latency(blocks, 1).noise > benchmarking.NOISY


def test_percentiles_do_not_heed_one_outlier():
    calm = [np.full(100, 1000) for _ in range(10)]
    hit = [block.copy() for block in calm]
    hit[3][7] = 10**9
    a, b = benchmarking._latency(calm, 1), benchmarking._latency(hit, 1)
    assert (a.p50, a.p90, a.p99, a.min) == (b.p50, b.p90, b.p99, b.min) == (1e-3,) * 4
    assert a.noise == b.noise == 0


def test_machine():
    here = machine.describe()
    assert here.cpu
    assert here.logical_cores >= 1
    assert 0 < here.usable_cores <= here.logical_cores
    assert here.memory_bytes > 2**28
    assert here.python.split()[1][0] == "3"
    assert machine.versions()["numpy"] == np.__version__
    assert here.to_plain()["memory_bytes"] == here.memory_bytes
    assert here.describe().startswith(f"{here.cpu} ({here.architecture}")
