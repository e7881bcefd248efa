"""Targets: their data files, what they refuse, what fits, and how long it takes; then the commands that use them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_clean, edgeopt
from runtime_models import models

import edgeopt as package
from edgeopt import doctor, frameworks, targets
from edgeopt.api.convert import _made_for
from edgeopt.compilers import COMPILERS, compiled_by
from edgeopt.errors import ConfigError, ConversionError, ModelError
from edgeopt.report import broken_budgets, render_html, render_markdown, terminal_table
from edgeopt.runtimes import RUNTIMES, parse
from edgeopt.schemes import SCHEMES
from edgeopt.targets import TARGETS, read_target, target
from edgeopt.targets.model import KINDS, LATENCY_KINDS
from edgeopt.tflite.lifetimes import peak
from edgeopt.tflite.model import Operator, Subgraph, Tensor, TFLiteModel
from edgeopt.tflite.op_versions import unsupported_by
from edgeopt.tflite.reader import read

# Every kind of device, and every way to find a latency.
WANTED = (
    *("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "cortex-m85"),
    *("rp2040", "esp32-s3", "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256"),
    *("ethos-u65-256", "ethos-u65-512", "ethos-u85-256", "raspberry-pi-4", "raspberry-pi-5"),
    *("android-cpu", "android-gpu", "android-npu", "edge-tpu", "web", "host"),
)

# MLPerf Tiny: clock, and published inferences per second of ic, ad, kws and vww; the results are named in the files.
PUBLISHED = {
    "cortex-m0plus": (64e6, 0.657, 24.454, 2.107, 0.707),
    "cortex-m33": (128e6, 3.163, 159.579, 13.140, 4.310),
    "cortex-m4": (120e6, 2.567, 116.212, 10.019, 3.320),
    "cortex-m7": (280e6, 18.401, 547.707, 59.667, 19.722),
    "cortex-m85": (480e6, 117.948, 1884.138, 288.611, 74.666),
}
# Multiply-accumulates in convolutions, depthwise convolutions and Dense layers.
BENCHMARKS = {
    "ic": (12_500_992, 0, 64 * 10),
    "ad": (0, 0, 2 * 640 * 128 + 6 * 128 * 128 + 2 * 128 * 8),
    "kws": (25 * 5 * 64 * 10 * 4 + 4 * 25 * 5 * 64 * 64, 4 * 25 * 5 * 64 * 9, 64 * 12),
    "vww": (6_690_816, 798_336, 256 * 2),
}

MINIMAL = """
summary: a device
kind: board
best_scheme: int8
well: {int8: fast}
runs: {float32: slow, float16: slow, dynamic: slow, int16x8: slow}
refused: {int4: not taken}
techniques: {sparsity: nothing, clusters: nothing, int4: nothing, int16x8: nothing}
sources:
  - {title: a document, url: "https://example.org", says: all of it}
"""


def is_for_npu(file: Path) -> bool:
    return compiled_by(operator.name for operator in read(file).main.operators) is COMPILERS["vela"]


def written(folder: Path, text: str) -> Path:
    """A data file of one's own."""
    file = folder / "own.yaml"
    file.write_text(text)
    return file


def convolution(channels: int, *, dtype: str = "int8") -> TFLiteModel:
    """A 3 x 3 convolution of an 8 x 8 x 4 picture to some channels, without any bytes of weights."""

    def tensor(index: int, name: str, shape: tuple[int, ...], size: int = 0) -> Tensor:
        return Tensor(index, name, shape, shape, dtype, None, 0, index, size, False, None)

    weights = tensor(1, "weights", (channels, 3, 3, 4), channels * 3 * 3 * 4)
    graph = Subgraph(
        0,
        "main",
        (tensor(0, "picture", (1, 8, 8, 4)), weights, tensor(2, "features", (1, 8, 8, channels))),
        (0,),
        (2,),
        (Operator(0, "CONV_2D", 1, 0, False, (0, 1), (2,)),),
    )
    return TFLiteModel((), (graph,), (), (), {}, "", channels * 3 * 3 * 4, np.zeros(0, np.uint8))


# --- data files ------------------------------------------------------------------------------------------------------


def test_every_device_that_was_promised_is_there() -> None:
    assert set(WANTED) <= set(TARGETS)
    assert len(TARGETS) == len(list(TARGETS))
    assert list(TARGETS) == sorted(TARGETS)
    with pytest.raises(KeyError, match="cortex-m5"):
        TARGETS["cortex-m5"]


@pytest.mark.parametrize("name", TARGETS)
def test_a_data_file_is_whole_and_names_its_sources(name: str) -> None:
    found = target(name)
    assert found.name == name
    assert found.kind in KINDS
    assert found.latency.kind in LATENCY_KINDS
    assert all(parse(text).runtime.name in RUNTIMES for text in found.runtimes)
    assert all(source.url.startswith("https://") for source in found.sources)
    targets.refuse_scheme(found, SCHEMES[found.best_scheme])  # what it begins with, it runs
    if found.flash_bytes or found.ram_bytes:
        assert found.board, "memories are some chip's or board's"
    if found.compiler == "vela":
        assert found.compiler_settings["accelerator"] == name


def test_a_file_of_one_s_own_is_a_target(tmp_path: Path) -> None:
    file = written(tmp_path, MINIMAL)
    found = target(str(file))
    assert (found.name, found.kind, found.ram_bytes, found.latency.kind) == ("own", "board", None, "none")
    assert found == read_target(file)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cortexm4", r"Expected a target, or FILE.yaml of one's own, got 'cortexm4'. Did you mean 'cortex-m4'"),
        ("nowhere.yaml", r"Expected a target.* got 'nowhere.yaml'"),
        ("../targets/cortex-m4", r"Expected a target"),
    ],
)
def test_unknown_targets(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        target(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("summary: a device", "sumary: a device"), r"own.yaml: Unknown key 'sumary' .* Did you mean 'summary'"),
        (("summary: a device", ""), r"own.yaml: .*Expected summary, got nothing"),
        (("kind: board", "kind: bord"), r"Expected one of microcontroller, .* as kind, got 'bord'.* 'board'"),
        (("kind: board", "kind: board\nram_bytes: 64KB"), r"Expected a whole number as ram_bytes, got '64KB'"),
        (("kind: board", "kind: board\nflash_bytes: 0"), r"Expected at least 1 as flash_bytes, got 0"),
        (("kind: board", "kind: board\nruntimes: [tfml]"), r"Expected a runtime, .* got 'tfml'. Did you mean 'tflm'"),
        (("{int8: fast}", "{int9: fast}"), r"Expected one of float32, .*, got 'int9'"),
        (("{int8: fast}", "{int8: fast, int4: fast}"), r"Expected int4 in one of well, runs and refused, got it in 2"),
        (("{int8: fast}", "[int8]"), r"Expected names with a value each as well"),
        (("sparsity: nothing, ", ""), r"Expected sparsity under techniques, got nothing"),
        (("best_scheme: int8", "best_scheme: int7"), r"Expected one of float32, .* as best_scheme, got 'int7'"),
        (("https://example", "http://example"), r"At sources\[0\]: Expected an address that begins with https://"),
        (("says: all of it", 'says: ""'), r"At sources\[0\]: Expected a title and what the document says"),
        (('  - {title: a document, url: "https://example.org", says: all of it}', "  nothing"), r"Expected a list at"),
        (("kind: board", "kind: board\nlatency: {kind: cycles}"), r"Expected clock_hz, derivation and int8 or float32"),
        (("kind: board", "kind: board\nlatency: {kind: measured}"), r"Expected a runtime to measure latencies on"),
        (("kind: board", "kind: board\nlatency: {kind: compiler}"), r"Expected a compiler whose settings or figures"),
        (("kind: board", "kind: board\ncompiler_settings: {system: a}"), r"Expected a compiler whose .* Try vela"),
        (("kind: board", "kind: board\ncompiler: velo"), r"Expected vela as compiler, got 'velo'. Did you mean 'vela'"),
        (
            ("kind: board", "kind: board\ncompiler: vela\ncompiler_settings: {system: a}"),
            r"Expected accelerator, system, memory_mode as compiler_settings of vela, got system",
        ),
        (("kind: board", "kind: board\nlatency: {int8: {CONV_2D: -1}}"), r"Expected more than 0 as int8, got -1"),
        (("summary: a device", 'summary: "\\e[31mred"'), r"Expected one line of text as summary"),
        (("a device", "&a [*a, *a]"), r"Expected YAML without anchors and aliases"),
        (("a device", "!!python/object/apply:os.system [ls]"), r"Expected YAML, got what is none: .*python/object"),
        (("a device", "[" * 5000), r"Expected a target, got values more than 4 deep"),
        (("a device", "[1"), r"Expected YAML, got what is none"),
        (("a device", "x" * 70_000), r"Expected at most 65,536 bytes of YAML, got more"),
        ((MINIMAL, "just words"), r"Expected keys and values, got 'just words'"),
    ],
)
def test_a_data_file_that_cannot_be_used_says_where(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    assert change[0] in MINIMAL
    with pytest.raises(ConfigError, match=said):
        read_target(written(tmp_path, MINIMAL.replace(*change)))


# --- what runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scheme", "said"),
    [
        (
            "ethos-u55-128",
            "float32",
            r"Expected a scheme that ethos-u55-128 can run, got float32: .*integers only.* int8",
        ),
        ("cortex-m4", "dynamic", r"got dynamic: TFLM has no kernels .* Try --scheme int8"),
        ("edge-tpu", "int16x8", r"got int16x8: only 8 bits"),
    ],
)
def test_schemes_are_refused_before_the_work(name: str, scheme: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        targets.refuse_scheme(target(name), SCHEMES[scheme])


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("cortex-m4", "int8", ""),
        ("cortex-m4", "int8-float-io", ""),
        ("cortex-m4", "float32", ""),
        ("cortex-m4", "dynamic", "TFLM has no kernels with float activations and int8 weights"),
        ("cortex-m4", "float16", "tflm's DEQUANTIZE takes no float16"),
        ("ethos-u55-128", "int8", ""),
        ("ethos-u55-128", "float32", "1 CONV_2D, 1 DEPTHWISE_CONV_2D"),
        ("raspberry-pi-4", "float16", ""),
        ("android-gpu", "float32", ""),
    ],
)
def test_refusals_name_operators_and_reasons(name: str, file: str, said: str) -> None:
    found = "; ".join(targets.refusal(target(name), read(models()[file])))
    assert (said in found) if said else not found


def test_verdicts() -> None:
    found = {row.operator: row for row in targets.judge(target("cortex-m4"), read(models()["int8"]))}
    assert (found["CONV_2D"].verdict, found["CONV_2D"].arithmetic, found["CONV_2D"].count) == ("well", "int8", 1)
    assert found["FULLY_CONNECTED"].count == 2
    assert (found["RESHAPE"].verdict, found["RESHAPE"].arithmetic) == ("runs", "")
    floats = {row.operator: row for row in targets.judge(target("cortex-m4"), read(models()["float32"]))}
    assert (floats["CONV_2D"].verdict, floats["CONV_2D"].arithmetic) == ("runs", "float32")
    npu = {row.verdict for row in targets.judge(target("ethos-u55-128"), read(models()["dynamic"]))}
    assert "refused" in npu


# --- what fits -------------------------------------------------------------------------------------------------------


def relabeled(file: str, **dtypes: str) -> TFLiteModel:
    """The file with other dtypes in its tensors, as older converters wrote them."""
    model = read(models()[file])
    tensors = tuple(replace(t, dtype=dtypes.get(t.dtype, t.dtype)) for t in model.main.tensors)
    return replace(model, subgraphs=(replace(model.main, tensors=tensors), *model.subgraphs[1:]))


@pytest.mark.parametrize(
    ("name", "runs", "verdict"),
    [
        ("cortex-m4", False, "refused"),
        ("edge-tpu", True, "well"),
        ("raspberry-pi-4", True, "runs"),
        ("android-gpu", None, "unknown"),
    ],
)
def test_uint8_of_older_files_is_not_int8(name: str, runs: bool | None, verdict: str) -> None:
    found = targets.assess(target(name), relabeled("int8", int8="uint8"))
    assert found.runs is runs
    reasons = unsupported_by(relabeled("int8", int8="uint8"), "tflm")
    assert "tflm's CONV_2D takes int8, not the uint8 of older files" in reasons
    rows = {row.operator: row for row in found.operators}
    assert (rows["CONV_2D"].arithmetic, rows["CONV_2D"].verdict) == ("uint8", verdict)


def test_a_device_without_runtimes_judges_operators_by_its_own_list() -> None:
    model = read(models()["int8"])
    operators = tuple(replace(o, name="GELU") if o.name == "CONV_2D" else o for o in model.main.operators)
    odd = replace(model, subgraphs=(replace(model.main, operators=operators),))
    found = targets.assess(target("edge-tpu"), odd)
    rows = {row.operator: row for row in found.operators}
    assert rows["GELU"].verdict == "runs"
    assert rows["GELU"].reason == "the host's CPU runs it, and everything that follows it"
    assert rows["DEPTHWISE_CONV_2D"].verdict == "well"
    unknown = targets.assess(target("android-npu"), model)
    assert unknown.runs is None
    assert {row.verdict for row in unknown.operators} == {"unknown"}
    assert "the vendor's compiler decides" in unknown.operators[0].reason


def test_a_device_may_ask_for_fixed_shapes_of_few_dimensions() -> None:
    model = read(models()["int8"])
    first, *others = model.main.tensors
    free = replace(first, signature=(None, None, *first.signature[2:]))
    batch = replace(first, shape=(4, *first.shape[1:]))
    reasons = {}
    for name, tensor in (("free", free), ("batch", batch)):
        changed = replace(model, subgraphs=(replace(model.main, tensors=(tensor, *others)),))
        (reasons[name],) = targets.refusal(target("edge-tpu"), changed)
    assert "has dimensions that the file does not tell" in reasons["free"]
    assert "only the last 3 dimensions may be greater than 1" in reasons["batch"]


def test_what_fits() -> None:
    device = target("cortex-m3")
    assert device.flash_bytes == 128 * 1024
    found = targets.require_fit(device, flash_bytes=128 * 1024, ram_bytes=20 * 1024)
    assert (found.fits, found.problems) == (True, ())
    assert targets.fit(target("web"), flash_bytes=10**12, ram_bytes=10**12).fits


def test_what_does_not_fit_is_refused_with_the_bytes_and_the_peak() -> None:
    said = (
        r"Expected a model that fits cortex-m3 \(STM32F103RB on NUCLEO-F103RB at 72 MHz\), got one that takes 131,172 "
        r"bytes of flash, 100 more than its 131,072 and 21,480 bytes of RAM, 1,000 more than its 20,480 \(the peak is "
        r"at operator 3\). Try --scheme int8"
    )
    with pytest.raises(ModelError, match=said):
        targets.require_fit(
            target("cortex-m3"), flash_bytes=128 * 1024 + 100, ram_bytes=20 * 1024 + 1000, peak="operator 3"
        )


def test_memory_is_measured_where_it_can_be() -> None:
    file = read(models()["int8"])
    device = target("cortex-m4")
    if frameworks.installed_version("tflite_micro"):
        measured = targets.memory(device, file)
        assert (measured.how, measured.flash_bytes) == ("measured", file.size_bytes)
        assert measured.ram_bytes > peak(file).size_bytes
    board = targets.memory(target("raspberry-pi-4"), file)
    assert (board.how, board.ram_bytes) == ("estimated", peak(file).size_bytes + file.size_bytes)
    assert "DEPTHWISE_CONV_2D" in board.peak


def test_memory_without_tflite_micro(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "installed_version", lambda name: None)
    found = targets.memory(target("cortex-m4"), read(models()["int8"]))
    assert (found.how, found.ram_bytes) == ("estimated", 8 * 8 * 8 + 3 * 3 * 8)


# --- how long --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_cycles_come_from_the_published_figures(name: str) -> None:
    clock, *rates = PUBLISHED[name]
    latency = target(name).latency
    cycles = [latency.int8[operator] for operator in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    assert latency.clock_hz == clock
    for (benchmark, macs), rate in zip(BENCHMARKS.items(), rates):
        predicted = sum(count * each for count, each in zip(macs, cycles))
        # vww took no part in the derivation: how far off it is, the file says.
        off = {"cortex-m85": 0.29}.get(name, 0.1) if benchmark == "vww" else 0.01
        assert predicted == pytest.approx(clock / rate, rel=off)


@pytest.mark.parametrize("name", [n for n in TARGETS if TARGETS[n].latency.kind == "cycles"])
def test_an_estimate_grows_with_the_multiply_accumulates(name: str) -> None:
    device = target(name)
    times = [targets.estimate(device, convolution(channels)).latency_ms for channels in (1, 2, 4, 8, 16)]
    assert None not in times
    assert times == sorted(times)
    assert times[-1] == pytest.approx(16 * times[0])
    assert device.latency.clock_hz is not None
    macs = 8 * 8 * 3 * 3 * 4
    assert times[0] == pytest.approx(1e3 * macs * device.latency.int8["CONV_2D"] / device.latency.clock_hz)


def test_an_estimate_says_what_it_is() -> None:
    found = targets.estimate(target("cortex-m4"), read(models()["int8"]))
    assert found.how == "estimated"
    assert [row.operator for row in found.operators] == ["CONV_2D", "DEPTHWISE_CONV_2D", *["FULLY_CONNECTED"] * 2]
    assert found.latency_ms == pytest.approx(sum(row.latency_ms or 0 for row in found.operators))
    assert any("edgeopt targets cortex-m4" in note for note in found.notes)
    assert "operators without multiply-accumulates are not counted" in found.notes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cortex-m3", "no published figures are known"),
        ("android-cpu", "edgeopt benchmark FILE --device adb"),
        ("cortex-m4", "no published figures for float32 on cortex-m4"),
    ],
)
def test_where_nothing_is_known_nothing_is_invented(name: str, said: str) -> None:
    found = targets.estimate(target(name), convolution(4, dtype="float32"))
    assert (found.latency_ms, found.how) == (None, "")
    assert said in found.notes[0]


def test_the_host_is_measured() -> None:
    found = targets.estimate(target("host"), read(models()["int8"]))
    assert found.how == "measured"
    assert found.latency_ms is not None
    assert found.latency_ms > 0


def test_a_file_that_the_host_s_runtime_refuses_has_no_time() -> None:
    found = targets.estimate(target("host"), convolution(4))
    assert found.latency_ms is None
    assert "Expected a .tflite file" in found.notes[0]


@pytest.mark.skipif(frameworks.installed_version("vela") is None, reason="ethos-u-vela is not installed")
def test_an_npu_is_simulated() -> None:
    file = read(models()["int8"])
    found = targets.assess(target("ethos-u55-128"), file)
    assert (found.runs, found.memory_how, found.estimate.how) == (True, "simulated", "simulated")
    assert found.compiled is not None
    assert found.estimate.latency_ms == found.compiled.latency_ms
    assert found.fit.ram_bytes == found.compiled.ram_bytes
    made = targets.compiled_for(target("ethos-u55-128"), models()["int8"].read_bytes())
    assert made is not None
    compiled = read(made.content)
    assert targets.assess(target("ethos-u55-128"), compiled).runs
    assert "compiled the file for an Ethos-U" in targets.refusal(target("cortex-m4"), compiled)[0]
    refused = targets.assess(target("ethos-u55-128"), read(models()["float32"]))
    assert (refused.runs, refused.compiled, refused.estimate.latency_ms) == (False, None, None)


@pytest.mark.skipif(frameworks.installed_version("vela") is None, reason="ethos-u-vela is not installed")
def test_what_vela_leaves_to_the_cpu_is_no_operator_that_runs_well() -> None:
    found = targets.assess(target("ethos-u55-128"), read(models()["int8-float-io"]))
    rows = {row.operator: row for row in found.operators}
    assert rows["CONV_2D"].verdict == "well"
    assert rows["QUANTIZE"].verdict == "runs"
    assert rows["QUANTIZE"].reason.startswith("on the CPU: ")
    assert sum(row.count for row in found.operators) == len(read(models()["int8-float-io"]).main.operators)


@pytest.mark.skipif(frameworks.installed_version("vela") is None, reason="ethos-u-vela is not installed")
def test_vela_knows_every_npu_that_has_a_data_file() -> None:
    content = models()["int8"].read_bytes()
    made = {name: targets.compiled_for(row, content) for name, row in TARGETS.items() if row.compiler}
    cycles = {name: row.figures.cycles for name, row in made.items() if row and row.figures}
    assert len(cycles) == len([name for name in TARGETS if name.startswith("ethos-u")])
    assert all(cycles.values())
    assert cycles["ethos-u55-256"] < cycles["ethos-u55-32"]


def test_an_npu_without_its_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "installed_version", lambda name: None)
    found = targets.assess(target("ethos-u55-128"), read(models()["int8"]))
    assert (found.compiled, found.estimate.latency_ms, found.memory_how) == (None, None, "estimated")
    assert "pip install 'edgeopt[ethos-u]'" in found.estimate.notes[0]


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_table_and_one_target_in_full(tmp_path: Path) -> None:
    done = edgeopt("targets", folder=tmp_path)
    assert_clean(done)
    assert all(name in done.stdout for name in TARGETS)
    one = edgeopt("targets", "cortex-m4", folder=tmp_path)
    assert (one.returncode, one.stderr) == (0, "")
    for words in ("640 KiB", "120 MHz", "CONV_2D 3.74", "https://github.com/mlcommons/tiny_results_v1.0"):
        assert words in one.stdout
    wrong = edgeopt("targets", "cortex-m44", folder=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Did you mean 'cortex-m4'?" in wrong.stderr


def test_targets_in_json(tmp_path: Path) -> None:
    found = json.loads(edgeopt("targets", "--json", folder=tmp_path).stdout)["targets"]
    assert [row["name"] for row in found] == list(TARGETS)
    one = json.loads(edgeopt("targets", "ethos-u65-256", "--json", folder=tmp_path).stdout)
    assert one["compiler_settings"]["accelerator"] == "ethos-u65-256"
    assert one["sources"][0]["url"].startswith("https://")


def test_inspect_for_a_target(tmp_path: Path) -> None:
    done = edgeopt("inspect", models()["int8"], "--target", "cortex-m4", "--json", folder=tmp_path)
    found = json.loads(done.stdout)["target"]
    assert (found["target"], found["runs"], found["fit"]["fits"]) == ("cortex-m4", True, True)
    assert found["estimate"]["how"] == "estimated"
    assert "no faster" in found["techniques"]["sparsity"]
    words = edgeopt("inspect", models()["dynamic"], "--target", "cortex-m4", folder=tmp_path).stdout
    assert "On cortex-m4" in words
    assert "TFLM has no kernels with float activations and int8 weights" in words
    assert package.inspect(models()["int8"]).target is None


def test_inspect_of_what_does_not_ship(digits_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a .tflite with --target, got .*--scheme int8 --target cortex-m4"):
        package.inspect(digits_model, target="cortex-m4")


def test_convert_for_a_target(digits_model: Path, keras_files: Path, tmp_path: Path) -> None:
    made = package.convert(digits_model, tmp_path / "a.tflite", scheme="int8", data="digits", target="cortex-m4")
    assert [row.name for row in made.runtimes] == ["tflm"]
    assert made.target is not None
    assert made.target.runs
    with pytest.raises(ConfigError, match=r"got float32: the NPU computes with integers only"):
        package.convert(digits_model, tmp_path / "b.tflite", target="ethos-u55-128")
    small = written(tmp_path, MINIMAL.replace("kind: board", "kind: board\nram_bytes: 700\nflash_bytes: 500"))
    with pytest.raises(
        ModelError, match=r"bytes of flash, .* more than its 500 and .* RAM, .* \(the peak is at operator"
    ):
        package.convert(keras_files / "float.tflite", tmp_path / "c.tflite", target=str(small))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tflite", "own.yaml"]


@pytest.mark.skipif(frameworks.installed_version("vela") is None, reason="ethos-u-vela is not installed")
def test_convert_for_an_npu_writes_what_vela_makes(digits_model: Path, tmp_path: Path) -> None:
    done = edgeopt(
        *("convert", digits_model, "-o", "npu.tflite", "--scheme", "int8", "--data", "digits"),
        *("--target", "ethos-u55-128"),
        folder=tmp_path,
    )
    assert_clean(done)
    assert "cycles" in done.stdout
    assert "on the NPU and 0 on the CPU" in " ".join(done.stdout.split())
    assert "verified before Vela compiled it" in done.stdout
    assert is_for_npu(tmp_path / "npu.tflite")
    again = edgeopt("inspect", "npu.tflite", "--target", "ethos-u55-128", "--json", folder=tmp_path)
    assert (
        "Vela compiled this file already: the file that it was made of tells its time"
        in json.loads(again.stdout)["target"]["estimate"]["notes"][0]
    )


def test_a_file_that_the_target_refuses_after_all(tmp_path: Path) -> None:
    """An int8 scheme may leave operators in floats where they have no integer kernel."""
    file = tmp_path / "left.tflite"
    file.write_bytes(models()["float32"].read_bytes())
    with pytest.raises(
        ConversionError, match=r"Expected a file that edge-tpu runs, .*float32 .*1 CONV_2D.* --scheme int8"
    ):
        _made_for(target("edge-tpu"), read(file), file)


def test_optimize_recommends_what_fits(digits_model: Path, tmp_path: Path) -> None:
    small = written(
        tmp_path,
        MINIMAL.replace("kind: board", "kind: microcontroller\nruntimes: [tflm]\nflash_bytes: 8000\nram_bytes: 20000"),
    )
    report = package.optimize(digits_model, "digits", tmp_path / "out", schemes=("int8", "float16"), target=str(small))
    assert (report.target, report.best) == ("own", "int8")
    assert report.budgets.runtimes == ("tflm",)
    assert report.recipe["target"] == str(small)
    int8, float16, float32 = (report.variant(name) for name in ("int8", "float16", "float32"))
    assert int8 is not None
    assert float16 is not None
    assert float32 is not None
    assert int8.on_target is not None
    assert int8.on_target.problems == ()
    assert not broken_budgets(report, int8)
    assert any("does not run on own" in words for words in broken_budgets(report, float32))
    assert any("float16" in words for words in broken_budgets(report, float16))
    for page in (render_html(report), render_markdown(report)):
        assert "int8 on own" in page or "on own: " in page
        assert "no published figures" in page
    assert "target ms" in [str(column.header) for column in terminal_table(report).columns]


@pytest.mark.slow
@pytest.mark.skipif(frameworks.installed_version("vela") is None, reason="ethos-u-vela is not installed")
def test_optimize_for_an_npu_compiles_the_recommended_file(digits_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe = tmp_path / "npu.yaml"
    recipe.write_text("schemes: [int8]\ntarget: ethos-u55-64\n")
    report = package.optimize(digits_model, "digits", out, recipe=package.load_recipe(recipe))
    assert (report.target, report.best) == ("ethos-u55-64", "int8")
    assert is_for_npu(out / "best.vela.tflite")
    assert not is_for_npu(out / "best.tflite")
    best = report.variant("int8")
    assert best is not None
    assert best.on_target is not None
    plain, compiled = best.artifacts
    assert (plain.made_by, compiled.made_by, compiled.format) == (SCHEMES["int8"].maker, "vela", "tflite")
    assert (out / compiled.file).read_bytes() == (out / "best.vela.tflite").read_bytes()
    assert compiled.file in (out / "report.html").read_text()
    assert (best.on_target.memory_how, best.on_target.latency_how) == ("simulated", "simulated")
    # The option has the last word; all else is remembered.
    other = package.optimize(
        digits_model, "digits", out, recipe=package.load_recipe(recipe), target="cortex-m4", force=True
    )
    assert other.target == "cortex-m4"
    assert not (out / "best.vela.tflite").exists()


def test_a_recipe_for_a_target_that_is_none(digits_model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "odd.yaml"
    recipe.write_text("target: a small board\n")
    with pytest.raises(ConfigError, match=r"Expected a target, .* got 'a small board'"):
        package.optimize(digits_model, "digits", tmp_path / "out", recipe=package.load_recipe(recipe))
    assert not (tmp_path / "out").exists()


def test_doctor_says_which_targets_can_be_judged_here() -> None:
    found = {row.name: row for row in doctor._targets()}
    assert list(found) == list(TARGETS)
    assert found["host"].detail.startswith("latency measured")
    assert found["cortex-m4"].detail.startswith("latency estimated, memory")
    assert found["cortex-m3"].works == (frameworks.installed_version("tflite_micro") is not None)
    assert (found["android-cpu"].works, found["android-cpu"].hint) == (False, "edgeopt benchmark FILE --device adb")
    assert all(row.works or row.hint for row in found.values())


def test_doctor_without_vela(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "installed_version", lambda name: None)
    row = next(row for row in doctor._targets() if row.name == "ethos-u55-128")
    assert (row.works, row.hint) == (False, "pip install 'edgeopt[ethos-u]'")
