"""The report: its layout, its words, its three files, and what it does with little, much or hostile content."""

# ruff: noqa: RUF001 - the signs of multiplication and minus are meant

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgeopt import vocabulary
from edgeopt.cli.optimize import not_kept
from edgeopt.errors import ConfigError, DataError
from edgeopt.report import (
    DataFacts,
    ModelFacts,
    Report,
    broken_budgets,
    figures,
    from_json,
    headline,
    read_report,
    render,
    render_html,
    render_markdown,
    schema,
    smaller,
    terminal_table,
    to_json,
    verdict,
    words,
    write_report,
)
from edgeopt.report.merging import merged
from edgeopt.vocabulary import (
    Artifact,
    Budgets,
    Difference,
    Latency,
    LayerChange,
    LayerError,
    LayerLosses,
    Loss,
    MetricValue,
    OnTarget,
    Preprocessing,
    Promise,
    RuntimeResult,
    Sensitivity,
    StepRecord,
    TensorSpec,
    Variant,
)

HOSTILE = "</script><script>alert('x')</script>|`a`*b*\n# c\x1b[31m\u202e<img src=x onerror=y>&\"']]>"
VOID = {"meta", "br", "link"}


def fidelity(output: str = "y") -> vocabulary.Fidelity:
    """Returns a fidelity with something in every field."""
    lost = vocabulary.OutputComponent(1, 1, 0.5, 1.0, 2.0, 0.9, 1, 0.0)
    column = vocabulary.InputComponent(0, 0.1, 0.05, 0.0)
    outputs = vocabulary.OutputFidelity(output, 31.4, 2, (lost,), vocabulary.Interval(0.99, 0.98, 1.0))
    told = vocabulary.Problem("component", output, 2.0, (lost,), "input", output, (column,), ("split",))
    inputs = vocabulary.InputFidelity(output, 2.0, (column,))
    score = MetricValue("accuracy", 0.98, 0.97, 0.99, 300, True, True)
    return vocabulary.Fidelity(
        300, "litert", (inputs,), (outputs,), score, score, Difference(0.0, 1.0), (told,), ("a note",)
    )


def variant(name: str, size: int, metric: float, drop: float | None, latency: float, **changes: Any) -> Variant:
    p50 = latency
    made = Variant(
        name,
        "int8" if drop is not None else "float32",
        (Artifact("tflite", f"variants/{name}.tflite", "0" * 64, size, size - 1000, "tensorflow"),),
        metric=MetricValue("accuracy", metric, metric - 0.01, metric + 0.01, 1797, True, True),
        drop=None if drop is None else Difference(drop, 0.4),
        runtimes=(
            RuntimeResult("litert", "2.3.0", "ok", "", 0.9, Latency(p50, 1.1 * p50, 1.3 * p50, 200, 1), True, 1e-7),
            RuntimeResult("tflm", "0.1", "failed", "Hybrid models are not supported."),
        ),
        fidelity=None if drop is None else fidelity(),
        bytes_by_kind={"weights": size - 900, "biases": 300, "graph": 600},
        layer_errors=() if drop is None else (LayerError("a", 40.0, 1.0), LayerError("b", 30.0 - size % 7, 0.99)),
    )
    return replace(made, **changes)


@pytest.fixture
def report() -> Report:
    return Report(
        edgeopt_version="0.1.0",
        created="2026-11-21T10:14:03+00:00",
        model=ModelFacts(
            "m.keras", "a" * 64, "keras-3", (TensorSpec("x", (None, 8, 8, 1)),), (TensorSpec("y", (None, 10)),), 5000
        ),
        data=DataFacts("d.npz", "b" * 64, {"x": (8, 8, 1)}, {"calibration": 100, "validation": 1797}, 10),
        preprocessing=Preprocessing(scale=0.0625),
        budgets=Budgets(max_drop=1.0),
        variants=(
            variant("float32", 40_000, 0.98, None, 0.2),
            variant("float16", 20_000, 0.98, 0.0, 0.2),
            variant("int8", 10_000, 0.977, 0.3, 0.05),
        ),
        baseline="float32",
        best="int8",
        best_reason="the smallest of the 3 that keep the budget",
        recipe={"version": 1, "schemes": ["float16", "int8"]},
        machine={"cpu": "a CPU", "memory_bytes": 8_000_000_000, "flags": ("avx2", "fma"), "frequency_governor": None},
        versions={"numpy": "1.26.4"},
        commands=("edgeopt optimize m.keras --data d.npz -o out",),
        elapsed_s={"converting": 75.2},
        warnings=("the machine was busy",),
    )


def one_variant(report: Report) -> Report:
    return replace(report, variants=report.variants[:1], best="float32", budgets=Budgets())


def twelve_variants(report: Report) -> Report:
    many = [
        variant(f"v{i}{'-of-a-long-line' * (i % 3 * 3)}", 90_000 // i, 0.9 + i / 200, i / 9, i / 7)
        for i in range(1, 13)
    ]
    return replace(report, variants=tuple(many), baseline="v12", best="v1-of-a-long-line-of-a-long-line-of-a-long-line")


def no_latency(report: Report) -> Report:
    return replace(report, variants=tuple(replace(v, runtimes=()) for v in report.variants))


def no_labels(report: Report) -> Report:
    bare = tuple(replace(v, metric=None, drop=None) for v in report.variants)
    return replace(report, variants=bare, data=None, budgets=Budgets())


def nearly_nothing_lost(report: Report) -> Report:
    """What it gained rounds to nothing: minus nothing is no gain either."""
    variants = (*report.variants[:2], replace(report.variants[2], drop=Difference(-0.0003, 0.2)))
    return replace(report, variants=variants)


def errors_as_metric(report: Report) -> Report:
    def scored(v: Variant) -> Variant:
        assert v.metric
        value = {"float32": 11.2, "float16": 11.2, "int8": 14.0}[v.name]
        metric = replace(
            v.metric, name="mse", value=value, low=value - 1, high=value + 1, higher_is_better=False, is_share=False
        )
        return replace(v, metric=metric, drop=v.drop and Difference(100 * (value / 11.2 - 1), 0.0002))

    return replace(report, variants=tuple(scored(v) for v in report.variants), best="float16")


def one_failed(report: Report) -> Report:
    failed = Variant("dynamic", "dynamic", error="The converter died (segmentation fault). Try unroll=True.")
    return replace(report, variants=(*report.variants, failed))


def all_failed(report: Report) -> Report:
    failed = tuple(Variant(v.name, v.scheme, error="died") for v in report.variants)
    return replace(report, variants=failed, best=None)


def nothing_kept(report: Report) -> Report:
    return replace(report, budgets=Budgets(0.1, 5_000, 0.01, ("tflm", "tflite-runtime==2.14")))


def not_finite(report: Report) -> Report:
    nan, inf = math.nan, math.inf
    odd = replace(
        report.variants[1],
        metric=MetricValue("accuracy", nan, nan, nan, 5, True, True),
        drop=Difference(inf, nan),
        layer_errors=(LayerError("a", inf, nan), LayerError("b", nan, nan)),
    )
    return replace(report, variants=(report.variants[0], odd, report.variants[2]))


def for_a_target(report: Report) -> Report:
    """One that runs there, one that does not fit, and one of which nothing could be told."""
    costs = (
        OnTarget((), 50_000, 20_000, "measured", 12.5, "estimated", ("operators are missing",)),
        OnTarget(("90,000 bytes of flash, 10,000 more than its 80,000",), 90_000, 9_000, "estimated"),
        OnTarget(("the compiler died",)),
    )
    variants = tuple(replace(v, on_target=cost) for v, cost in zip(report.variants, costs))
    return replace(report, target="cortex-m4", variants=variants)


def tuned(report: Report) -> Report:
    """Chosen on other samples than those that are shown, where it did better."""
    own = Budgets(max_drop=0.2)
    variants = tuple(
        replace(
            v, tuning_metric=v.metric and replace(v.metric, samples=600), tuning_drop=v.drop and Difference(0.1, 0.9)
        )
        for v in report.variants
    )
    return replace(report, variants=variants, budgets=own)


def hostile(report: Report) -> Report:
    old = report.variants[2]
    bad = replace(
        old,
        name=HOSTILE,
        artifacts=(Artifact(HOSTILE, "javascript:alert(1)//" + HOSTILE, "0" * 64, 9, 9, HOSTILE),),
        scheme=HOSTILE,
        steps=(HOSTILE,),
        notes=(HOSTILE,),
        metric=old.metric and replace(old.metric, name=HOSTILE),
        bytes_by_kind={HOSTILE: 5},
        layer_errors=(LayerError(HOSTILE, 3.0, 0.5), LayerError("b", 4.0, 0.5)),
        on_target=OnTarget((HOSTILE,), 1, 2, "measured", 3.0, "estimated", (HOSTILE,)),
        fidelity=fidelity(HOSTILE),
        runtimes=(*old.runtimes, RuntimeResult(HOSTILE, HOSTILE, "failed", HOSTILE)),
    )
    failed = Variant("x" + HOSTILE, "int8", error=HOSTILE)
    return replace(
        report,
        variants=(report.variants[0], bad, failed),
        best=HOSTILE,
        model=ModelFacts(HOSTILE, inputs=(TensorSpec(HOSTILE, (1,)),), notes=(HOSTILE,)),
        data=DataFacts(HOSTILE, shapes={HOSTILE: (1,)}, samples={HOSTILE: 1}, notes=(HOSTILE,)),
        target=HOSTILE,
        created=HOSTILE,
        best_reason=HOSTILE,
        recipe={HOSTILE: [HOSTILE]},
        machine={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        commands=(HOSTILE, "```"),
        elapsed_s={HOSTILE: 1.0},
        warnings=(HOSTILE,),
    )


CASES = [
    one_variant,
    twelve_variants,
    no_latency,
    no_labels,
    errors_as_metric,
    one_failed,
    all_failed,
    nothing_kept,
    not_finite,
    for_a_target,
    tuned,
    hostile,
]


class Page(HTMLParser):
    """Checks that elements nest, and gathers addresses, texts and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


# --- layout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [lambda report: report, *CASES])
def test_every_report_follows_the_schema(report: Report, case: Any) -> None:
    written = json.loads(json.dumps(to_json(case(report)), allow_nan=False))
    jsonschema.Draft202012Validator.check_schema(schema.load_schema())
    jsonschema.Draft202012Validator(schema.load_schema()).validate(written)


def test_schema_and_dataclasses_name_the_same_keys() -> None:
    definitions = schema.load_schema()["$defs"]
    kinds = {
        "tensor": TensorSpec,
        "quantization": vocabulary.Quantization,
        "model": ModelFacts,
        "data": DataFacts,
        "preprocessing": Preprocessing,
        "budgets": Budgets,
        "variant": Variant,
        "artifact": Artifact,
        "on_target": vocabulary.OnTarget,
        "metric": MetricValue,
        "drop": Difference,
        "runtime": RuntimeResult,
        "latency": Latency,
        "footprint": vocabulary.Footprint,
        "layer_error": LayerError,
        "step": StepRecord,
        "promise": Promise,
        "layer_change": LayerChange,
        "fidelity": vocabulary.Fidelity,
        "input_fidelity": vocabulary.InputFidelity,
        "input_component": vocabulary.InputComponent,
        "output_fidelity": vocabulary.OutputFidelity,
        "output_component": vocabulary.OutputComponent,
        "problem": vocabulary.Problem,
        "interval": vocabulary.Interval,
        "climb": vocabulary.Climb,
        "breakdown": vocabulary.Breakdown,
        "output_metric": vocabulary.OutputMetric,
        "rung": vocabulary.RungRecord,
        "sensitivity": Sensitivity,
        "layer_losses": LayerLosses,
        "loss": Loss,
    }
    assert set(definitions) == set(kinds)
    derived = {"runtime": {"loads"}}
    for name, kind in [*kinds.items(), ("", Report)]:
        properties = set((definitions[name] if name else schema.load_schema())["properties"])
        assert properties == {f.name for f in dataclasses.fields(kind)} | derived.get(name, set()), name


def test_contract_keys(report: Report) -> None:
    written = to_json(report)
    int8 = written["variants"][2]
    assert {"schema_version", "machine", "model", "data", "target", "budgets", "variants", "best", "recipe"} < set(
        written
    )
    assert int8["metric"] | {} == {
        "name": "accuracy",
        "value": 0.977,
        "low": 0.977 - 0.01,
        "high": 0.977 + 0.01,
        "samples": 1797,
        "higher_is_better": True,
        "is_share": True,
    }
    assert int8["drop"] == {"value": 0.3, "p_value": 0.4, "low": None, "high": None}
    assert [row["loads"] for row in int8["runtimes"]] == [True, False]
    assert int8["runtimes"][0]["latency_ms"]["p99"] == 1.3 * 0.05
    assert not Path(int8["artifacts"][0]["file"]).is_absolute()


@pytest.mark.parametrize("case", [case for case in CASES if case is not not_finite])
def test_round_trip(report: Report, case: Any, tmp_path: Path) -> None:
    original = case(report)
    write_report(original, tmp_path)
    # Mappings of tuples come back as lists: the machine and the recipe are plain JSON.
    plain = replace(original, machine=json.loads(json.dumps(original.machine)))
    assert read_report(tmp_path) == plain
    assert read_report(tmp_path / "report.json") == plain


def test_what_is_not_finite_comes_back_as_nan(report: Report) -> None:
    again = from_json(to_json(not_finite(report)))
    assert again.variants[1].metric is not None
    assert math.isnan(again.variants[1].metric.value)
    assert math.isnan(again.variants[1].layer_errors[0].sqnr_db)
    assert again.variants[1].drop is not None
    assert again.variants[1].drop.p_value is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, r"Expected a report of schema version 2, got 99\. Try the edgeopt version"),
        ({"varants": []}, r"Unknown key 'varants' in report\. Did you mean 'variants'\?"),
        ({"created": 5}, r"Expected str at report\.created, got 5"),
        ({"budgets": {"max_drop": "1"}}, r"Expected int or float at report\.budgets\.max_drop, got '1'"),
        ({"budgets": {"max_size_bytes": True}}, r"Expected int at report\.budgets\.max_size_bytes, got True"),
        ({"variants": [{"name": "a"}]}, r"Expected scheme in report\.variants\[0\], got nothing there"),
        (
            {"steps": [{"technique": "prune", "promises": [{"kind": "zeros", "bound": "exactly"}]}]},
            r"Expected 'least' or 'most' at report\.steps\[0\]\.promises\[0\]\.bound, got 'exactly'",
        ),
        ({"best": "int9"}, r"Expected best to name a variant, got 'int9'\. Did you mean 'int8'\?"),
    ],
)
def test_refuses_what_is_no_report(report: Report, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_json({**to_json(report), **change})


@pytest.mark.parametrize(
    ("promise", "expected"),
    [
        (
            Promise("zeros", "conv/kernel", limit=8, bound="least", of=10, unit="weights"),
            "zeros of conv/kernel: promised at least 8 of 10 weights (80.0%), measured nothing",
        ),
        (
            Promise("zeros", "conv/kernel", limit=8, bound="least", of=10, unit="weights").found(9),
            "zeros of conv/kernel: promised at least 8 of 10 weights (80.0%), measured 9 weights (90.0%)",
        ),
        (
            Promise("kinds of float operators", limit=0).found(2, note="ADD, MUL"),
            "kinds of float operators: promised at most 0, measured 2 (ADD, MUL)",
        ),
        (
            Promise("latency", limit=0.0625, of=0.125, unit="ms").found(1234.5, note="LiteRT"),
            "latency: promised at most 0.0625 of 0.125 ms (50.0%), measured 1,234 ms (987600.0%) (LiteRT)",
        ),
    ],
)
def test_a_promise_in_words(promise: Promise, expected: str) -> None:
    assert words.promise_words(promise) == expected


@pytest.mark.parametrize(
    ("lost", "limit", "strict", "exceeds"),
    [
        (Difference(0.05, 1.0, -0.1, 0.2), 0.0, False, False),
        (Difference(0.05, 1.0, -0.1, 0.2), 0.0, True, True),
        (Difference(2.0, 0.01, 0.6, 3.4), 0.5, False, True),
        (Difference(2.0, 0.01, 0.6, 3.4), 0.7, False, False),
        (Difference(2.0, 0.01, 0.6, 3.4), 2.0, True, False),
        (Difference(0.05), 0.0, False, True),  # no test applies
        (Difference(math.nan, None, math.nan, math.nan), 0.0, True, False),
    ],
)
def test_a_loss_exceeds_a_limit_where_the_whole_interval_does(
    lost: Difference, limit: float, strict: bool, exceeds: bool
) -> None:
    assert lost.exceeds(limit, strict=strict) is exceeds


@pytest.mark.parametrize(("measured", "slack", "kept"), [(100, 0, True), (101, 0, False), (102, 0.02, True)])
def test_a_promise_is_kept_up_to_its_limit(measured: float, slack: float, kept: bool) -> None:
    assert Promise("parameters", limit=100).found(measured, slack=slack).kept is kept
    assert Promise("zeros", limit=-100, bound="least").found(-measured, slack=-slack).kept is kept


def test_reads_a_report_whose_promises_are_words(report: Report) -> None:
    told = {"what": "sparsity of conv/kernel", "promised": "8 of 10 weights zero", "measured": "9 zero", "kept": True}
    plain = to_json(replace(report, steps=(StepRecord("prune"),)))
    plain["steps"][0]["promises"] = [told, {**told, "measured": "", "kept": None}]
    first, second = from_json({**plain, "schema_version": 1}).steps[0].promises
    assert words.promise_words(first) == "sparsity of conv/kernel: promised 8 of 10 weights zero, measured 9 zero"
    assert words.promise_words(second) == "sparsity of conv/kernel: promised 8 of 10 weights zero, measured nothing"
    assert (first.kept, second.kept) == (True, None)


def test_a_report_of_version_1_is_read(tmp_path: Path) -> None:
    """Written by the last edgeopt of that version, and shortened."""
    old = read_report(Path(__file__).parent / "reports" / "schema-1.json")
    best = old.variant("prune.int8")
    assert best is not None
    assert best.artifacts == (Artifact("tflite", str(best.file), str(best.sha256), 47_328, 31_069),)
    assert {row.artifact for row in best.runtimes} == {"variants/digits.prune.int8.tflite"}
    assert smaller(old, best) == 158_592 / 47_328
    assert words.promise_words(old.steps[0].promises[0]) == (
        "sparsity of conv2d_1/kernel: promised 512 of 1,024 weights zero (50.0%), measured 512 zero (50.0%)"
    )

    new = RuntimeResult("adb-cpu", "1", latency_ms=Latency(1.0, 1.0, 1.0, 10, 1))
    write_report(merged(old, {str(best.sha256): [new]}), tmp_path)
    written = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(written, schema.load_schema())
    assert written["variants"][1]["runtimes"][-1]["artifact"] == best.file


def test_a_report_of_version_1_without_a_file_is_read() -> None:
    old = json.loads((Path(__file__).parent / "reports" / "schema-1.json").read_text())
    keys = ("file", "sha256", "size_bytes", "gzip_bytes")
    old["variants"].append({"name": "int9", "scheme": "int8", "error": "died", **dict.fromkeys(keys)})
    assert from_json(old).variants[-1] == Variant("int9", "int8", error="died")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": 5}, r"Expected list at report\.variants, got 5"),
        ({"variants": [5]}, r"Expected dict at report\.variants\[0\], got 5"),
        (
            {"variants": [{"name": "a", "scheme": "int8", "file": "a.tflite", "runtimes": []}]},
            r"Expected gzip_bytes, sha256, size_bytes in report\.variants\[0\]\.artifacts\[0\]",
        ),
    ],
)
def test_refuses_what_is_no_report_of_version_1(change: dict[str, Any], message: str) -> None:
    old = json.loads((Path(__file__).parent / "reports" / "schema-1.json").read_text())
    with pytest.raises(DataError, match=message):
        from_json({**old, **change})


def test_results_go_to_the_artifact_that_ran(report: Report) -> None:
    plain, compiled = (Artifact("tflite", name, digit * 64, 9, 9) for name, digit in (("a", "1"), ("a.vela", "2")))
    told = replace(report, variants=(replace(report.variants[0], artifacts=(plain, compiled), runtimes=()),), best=None)
    rows = {digit * 64: [RuntimeResult("adb", "1", reason=digit)] for digit in "12"}
    (variant,) = merged(merged(told, {"1" * 64: rows["1" * 64]}), rows).variants
    assert [(row.artifact, row.reason) for row in variant.runtimes] == [("a", "1"), ("a.vela", "2")]


def test_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected a report \(an object with schema_version\)"):
        from_json([1])
    with pytest.raises(DataError, match=r"Expected a report at .*report\.json, got: No such file"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(DataError, match=r"Expected JSON in .*report\.json, got"):
        read_report(tmp_path)


def test_how_a_scheme_computes_is_told_apart(report: Report) -> None:
    told = {name: render._arithmetic(Variant(name, name)) for name in ("dynamic", "int8", "float16", "int16x8")}
    assert told["dynamic"] == "int8 weights, activations quantized at each inference"
    assert told["int8"] == "int8 weights, int8 arithmetic"
    assert len(set(told.values())) == len(told)


def test_refuses_two_variants_of_one_name(report: Report) -> None:
    with pytest.raises(DataError, match=r"Expected variants of different names, got \['float32', 'float32'\]"):
        replace(report, variants=(report.variants[0], report.variants[0]), best=None)


def test_documentation_is_current() -> None:
    page = Path(__file__).parents[1] / "docs" / "report-schema.md"
    assert page.read_text(encoding="utf-8") == schema.reference_page(), (
        "docs/report-schema.md is out of date: write edgeopt.report.schema.reference_page() to it"
    )


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [lambda report: report, *CASES])
def test_files_are_whole_and_repeatable(report: Report, case: Any, tmp_path: Path) -> None:
    first = [file.read_bytes() for file in write_report(case(report), tmp_path / "a")]
    again = [file.read_bytes() for file in write_report(read_report(tmp_path / "a"), tmp_path / "b")]
    assert first == again
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["report.html", "report.json", "report.md"]
    page = Page(first[2].decode())
    assert {"html", "head", "body", "table", "h1"} <= page.tags
    assert not {"img", "link", "iframe", "object"} & page.tags
    addresses = [value for name, value in page.attributes if name in ("href", "src", "srcset", "action", "xlink:href")]
    assert all(value.startswith(("./", "#")) for value in addresses)
    assert "url(" not in first[2].decode()
    assert "@import" not in first[2].decode()


def test_the_page_runs_its_own_script_and_no_other(report: Report) -> None:
    text = render_html(hostile(report))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script == (Path(render.__file__).parent / "templates" / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_reasons_are_read_without_a_mouse(report: Report) -> None:
    text = render_html(report)
    body = text.partition("<body>")[2]
    assert '<td colspan="10" class="reason">Hybrid models are not supported</td>' in body
    assert '<a href="#gaps">tflm</a>' in body
    # What a pointer shows besides is in tables: the bytes by kind, the tensors, the variants.
    assert set(re.findall(r' title="([^"]*)"', body)) == {
        f"{kind}: {size:,} bytes" for v in report.variants for kind, size in v.bytes_by_kind.items()
    }


def in_a_browser(page: Path) -> str:
    """Returns the page as it stands in a browser after its scripts have run."""
    browser = next(
        (path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None
    )
    if browser is None:
        pytest.skip("no browser here: install chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    command = [browser, *options, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


CLICKS = """
const table = document.querySelector("table.variants");
const names = () => [...table.tBodies].map((body) => body.querySelector("th").firstChild.textContent).join();
const head = (column) => table.tHead.rows[0].cells[column];
const seen = [];
for (const column of [1, 1, 0, 5]) {
  head(column).querySelector("button").click();
  seen.push(`${names()} ${head(column).getAttribute("aria-sort")}`);
}
dispatchEvent(new Event("beforeprint"));
seen.push(document.querySelectorAll("details:not([open])").length);
dispatchEvent(new Event("afterprint"));
seen.push(document.querySelectorAll("details:not([open])").length);
document.title = seen.join("; ");
"""


def test_tables_are_sorted_by_their_heads_and_closed_parts_print(report: Report, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_html(report))
    whole = in_a_browser(file)
    assert '<th scope="col" class="n"><button type="button">bytes</button></th>' in whole
    closed = len(re.findall("<details>", whole))
    # The same page, with a script of ours, which its own policy would not let run.
    ours = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", file.read_text())
    file.write_text(ours.replace("</body>", f"<script>{CLICKS}</script></body>"))
    title = re.search("<title>(.*?)</title>", in_a_browser(file))
    assert title is not None
    assert title[1].split("; ") == [
        "int8,float16,float32 ascending",
        "float32,float16,int8 descending",
        "float16,float32,int8 ascending",
        # int8 lost most; float32 has no difference to itself, and what is absent stands last.
        "int8,float16,float32 ascending",
        "0",
        str(closed),
    ]


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(report: Report) -> None:
    frame = Page(report._repr_html_())
    assert frame.tags == {"iframe"}
    values = dict(frame.attributes)
    assert values["srcdoc"] == render_html(report)
    assert values["sandbox"] == "allow-scripts allow-popups"
    assert Page(hostile(report)._repr_html_()).tags == {"iframe"}


def test_folder_that_cannot_be_written(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"Could not write .*report\.json: .* Try another output path"):
        write_report(report, tmp_path / "file")


def test_a_report_shows_what_each_layer_bears(report: Report, tmp_path: Path) -> None:
    losses = {"int8": Loss(math.inf), "int4": Loss(-1.25)}
    layer = LayerLosses("<b>conv|1</b>", "conv", "CONV_2D", 100, losses)
    found = Sensitivity(64, None, ("int8", "int4"), (layer,), {"int8": Loss(41.0), "int4": Loss(12.5)})
    whole = dataclasses.replace(report, sensitivity=found)
    jsonschema.Draft202012Validator(schema.load_schema()).validate(to_json(whole))
    # JSON has no infinity: what comes back is shown as it was.
    for one in (whole, from_json(json.loads(json.dumps(to_json(whole))))):
        page, text = render_html(one), render_markdown(one)
        assert "What each layer bears" in page
        assert page.count('class="heat heat4"') == 2  # int8: nothing is lost, alone or together
        assert page.count('class="heat heat0"') == 1
        assert "&lt;b&gt;conv|1&lt;/b&gt;" in page
        assert "| &lt;b&gt;conv\\|1&lt;/b&gt; | ∞ | \N{MINUS SIGN}1.2 |" in text
        assert "| **all at once** | 41.0 | 12.5 |" in text
    assert "What each layer bears" not in render_html(report) + render_markdown(report)


def test_no_address_outside(report: Report) -> None:
    assert not re.search(r"https?:|//\w", render_html(report))


def test_page_says_what_matters(report: Report) -> None:
    text = " ".join(Page(render_html(report)).text.split())
    for expected in (
        "int8 is 4.0× smaller and 4.0× faster than float32",
        "A variant qualifies when it loses at most 1 point of accuracy.",
        "the smallest of the 3 that keep the budget",
        "no difference beyond chance, p=0.40",
        "tflm failed on every variant: Hybrid models are not supported.",
        "multiplied by 0.0625",
        "8 GB",
        "avx2, fma",
        "edgeopt optimize m.keras --data d.npz -o out",
        "1 min 15 s",
        "Note: the machine was busy",
    ):
        assert expected in text, expected


def test_both_scores_are_shown_and_which_of_them_chose(report: Report) -> None:
    flattered = "Chosen by the scores shown, of 1,797 validation samples: they flatter what was chosen by them."
    honest = (
        "Chosen by the scores on 600 tuning samples. The scores shown are of 1,797 validation samples, which no choice"
    )
    for text in (Page(render_html(report)).text, render_markdown(report)):
        assert flattered in text
        assert "on the tuning samples" not in text
    page = Page(render_html(tuned(report))).text
    for text in (page, render_markdown(tuned(report))):
        assert honest in text
        assert "on the tuning samples 97.7 %, −0.1 points" in text
    assert "chosen, but it keeps every budget on the tuning samples only" in page
    best = report.variant(report.best)
    assert best is not None
    assert not_kept(tuned(report), best, ("loses 1 point",), Path("best.tflite")) == (
        f"{best.name} keeps every budget on the samples that it was chosen on, but where it is scored it loses 1 "
        "point. It was written as best.tflite all the same. Try data with a val split: the more samples choose, the "
        "seldomer that happens."
    )


def test_a_step_that_ends_worse_says_so(report: Report) -> None:
    lost = StepRecord("prune", before="float32", after="int8", drop=Difference(0.3, 0.4))
    said = "ends worse than it began: 0.30 points of accuracy lost (no difference beyond chance, p=0.40)"
    worse, same, better = (
        replace(report, steps=(replace(lost, drop=Difference(value, 0.4)),)) for value in (0.3, 0.004, -0.3)
    )
    for text in (Page(render_html(worse)).text, render_markdown(worse)):
        assert f"prune {said}" in text
    for other in (same, better):
        assert "ends worse" not in Page(render_html(other)).text + render_markdown(other)
    assert words.ended_worse(replace(lost, drop=None), report.variants[0].metric) == ""


def test_hostile_names_stay_text(report: Report) -> None:
    page = Page(render_html(hostile(report)))
    assert "onerror" not in {name for name, _ in page.attributes}
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert "alert('x')" in page.text
    styles = [value for name, value in page.attributes if name == "style"]
    assert all(re.fullmatch(r"width:[\d.]+%", value) for value in styles)


def test_hostile_names_stay_text_in_markdown(report: Report) -> None:
    text = render_markdown(hostile(report))
    blocks = re.findall(r"^(`{3,})(?:sh|yaml)\n.*?^\1$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    outside = re.sub(r"^(`{3,})(?:sh|yaml)\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "<" not in outside
    assert "\x1b" not in text
    assert not re.search(r"(?<!\\)`", outside)
    assert [line for line in outside.splitlines() if line.startswith("# ")] == [outside.splitlines()[0]]


@pytest.mark.parametrize("case", [lambda report: report, *CASES])
def test_markdown_tables_have_even_rows(report: Report, case: Any) -> None:
    lines = render_markdown(case(report)).splitlines()
    tables = [
        list(group) for is_table, group in itertools.groupby(lines, lambda line: line.startswith("|")) if is_table
    ]
    assert tables
    for table in tables:
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in table}
        assert len(columns) == 1, table
        assert re.fullmatch(r"\|(:--\||--:\|)+", table[1])


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (
            lambda report: report,
            "int8 is 4.0× smaller and 4.0× faster than float32, its accuracy 0.3 points lower, within chance "
            "(97.7 %, 95 % interval 96.7 to 98.7 %) — recommended",
        ),
        (one_variant, "float32 is recommended as it is"),
        (no_latency, "int8 is 4.0× smaller than float32, its accuracy 0.3 points lower"),
        (no_labels, "int8 is 4.0× smaller and 4.0× faster than float32, its quality not measured — recommended"),
        (
            errors_as_metric,
            "float16 is 2.0× smaller and as fast as float32 at the same mse (11.2, 95 % interval 10.2 to",
        ),
        (nearly_nothing_lost, "at the same accuracy"),
        (all_failed, "No variant could be made"),
        (nothing_kept, "No variant keeps every budget; nearest, int8 is 4.0× smaller"),
        (lambda report: replace(report, best=None), "3 of 3 variants made, none recommended"),
        (lambda report: replace(report, variants=report.variants[:2], best="float16"), "at the same accuracy"),
    ],
)
def test_headline(report: Report, case: Any, expected: str) -> None:
    assert expected in headline(case(report))


def test_headline_owns_up_to_what_got_worse(report: Report) -> None:
    int8 = report.variants[2]
    slow = replace(int8.runtimes[0], latency_ms=Latency(0.5, 0.6, 0.7, 10, 1))
    slower = replace(report, variants=(*report.variants[:2], replace(int8, runtimes=(slow,))))
    assert "4.0× smaller but 2.5× slower than float32" in headline(slower)
    better = replace(report, variants=(*report.variants[:2], replace(int8, drop=Difference(-0.4, 0.2))))
    assert "its accuracy 0.4 points higher, within chance (" in headline(better)
    shown = replace(report, variants=(*report.variants[:2], replace(int8, drop=Difference(0.4, 0.01))))
    assert "its accuracy 0.4 points lower (" in headline(shown)


def test_broken_budgets_in_words(report: Report) -> None:
    strict = nothing_kept(report)
    assert broken_budgets(strict, strict.variants[2]) == (
        "loses 0.3 points of accuracy, more than 0.1 points",
        "takes 10,000 bytes, more than 5,000 bytes",
        "takes 50 µs on litert, more than 10 µs",
        "does not run on tflm: Hybrid models are not supported",
        "was not run on tflite-runtime==2.14",
    )
    # What a target's own runtime refuses is told of the target alone; another promise is told beside it.
    refused = replace(strict.variants[2], on_target=OnTarget(("dynamic (1 CONV_2D): no kernels",)))
    at_hand = replace(strict, target="cortex-m4", budgets=Budgets(runtimes=("tflm", "tflite-runtime==2.14")))
    assert broken_budgets(at_hand, refused) == (
        "does not run on cortex-m4: dynamic (1 CONV_2D): no kernels",
        "was not run on tflite-runtime==2.14",
    )
    small = replace(refused, on_target=replace(refused.on_target, problems=()))
    assert "does not run on tflm: Hybrid models are not supported" in broken_budgets(at_hand, small)
    assert broken_budgets(report, report.variants[2]) == ()
    bare = replace(strict.variants[2], drop=None, artifacts=(), runtimes=())
    assert broken_budgets(strict, bare)[:3] == (
        "loss not known (at most 0.1 points allowed)",
        "size not measured (at most 5,000 bytes allowed)",
        "latency on litert not measured (at most 10 µs allowed)",
    )
    assert broken_budgets(strict, Variant("x", "int8", error="died")) == ("was not made",)
    mse = errors_as_metric(report)
    assert broken_budgets(mse, mse.variants[2]) == ("has mse 25.0 % worse, more than 1 %",)


@pytest.mark.parametrize(
    ("promise", "kept"),
    [("tflite-runtime", True), ("tflite-runtime==2.14", True), ("tflite-runtime==2.1", False), ("tflm", False)],
)
def test_promised_runtimes(report: Report, promise: str, kept: bool) -> None:
    older = RuntimeResult("tflite-runtime", "2.14.0", matches_reference=True)
    promised = replace(
        report,
        budgets=Budgets(runtimes=(promise,)),
        variants=tuple(replace(v, runtimes=(*v.runtimes, older)) for v in report.variants),
    )
    assert (broken_budgets(promised, promised.variants[2]) == ()) is kept


def test_a_runtime_that_computes_something_else_breaks_its_promise(report: Report) -> None:
    wrong = RuntimeResult("tflite-runtime", "2.14.0", matches_reference=False, max_difference=1.01)
    int8 = replace(report.variants[2], runtimes=(wrong,))
    promised = replace(report, budgets=Budgets(runtimes=("tflite-runtime",)), variants=(*report.variants[:2], int8))
    words_for_it = "its outputs differ from the reference's (by up to 1.01)"
    assert broken_budgets(promised, int8) == (f"runs on tflite-runtime, but {words_for_it}",)
    assert verdict.Gap("tflite-runtime", f"runs int8, but {words_for_it}") in verdict.gaps(promised)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (None, ""),
        (Difference(0.3), ""),
        (Difference(0.3, 0.45), "no difference beyond chance, p=0.45"),
        (Difference(2.3, 0.0031), "worse, p=0.003"),
        (Difference(-2.3, 0.0001), "better, p<0.001"),
    ],
)
def test_significance(difference: Difference | None, expected: str) -> None:
    assert words.significance(difference) == expected


def test_numbers_share_unit_and_precision(report: Report) -> None:
    numbers = words.Numbers.of(report)
    assert (numbers.time(0.05), numbers.time(13.8)) == ("50 µs", "13,800 µs")
    assert (numbers.metric(0.98), numbers.change(Difference(0.3))) == ("98.0 %", "\u22120.3")
    assert numbers.change(Difference(0.0)) == "±0.0"
    assert numbers.moved(Difference(1.8, 0.01, 1.2, 2.4)) == "loses 1.8 ± 0.6 points"
    assert numbers.moved(Difference(-0.3, 0.5, -1.0, 0.4)) == "gains 0.3 ± 0.7 points"
    slow = replace(report, runtime="x", variants=(variant("a", 5, 0.9, None, 4.2),), baseline="a", best="a")
    assert words.Numbers.of(slow).time(1380.0) == "1,380.00 ms"
    mse = words.Numbers.of(errors_as_metric(report))
    assert (mse.metric(11.2), mse.change(Difference(25.0)), mse.change_unit) == ("11.2", "+25.0", "%")


def test_small_words() -> None:
    assert [words.seconds(value) for value in (83.2, 720.0, 9.94)] == ["1 min 23 s", "12 min", "9.9 s"]
    assert words.size(999) == "999 bytes"
    assert words.size(98_496) == "98.5 kB"
    assert words.ratio(0.0031) == "0.003×"
    assert words.ratio(12.4) == "12×"
    assert words.moment("2026-11-21T10:14:03+00:00") == "2026-11-21 10:14 UTC"
    assert words.moment("yesterday") == "yesterday"
    assert words.preprocessing_steps(Preprocessing()) == ["none: samples pass as they are, as float32"]
    steps = words.preprocessing_steps(Preprocessing((32, 32), 0.5, (1.0, 2.0), (3.0,)))
    assert steps == ["resized to 32 × 32", "multiplied by 0.5", "mean 1, 2 subtracted", "divided by 3", "as float32"]


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [lambda report: report, twelve_variants, errors_as_metric])
def test_scatter_keeps_inside_its_frame(report: Report, case: Any) -> None:
    full = case(report)
    for plot in (figures.size_scatter(full), figures.latency_scatter(full)):
        assert plot is not None
        assert len(plot.marks) == len(full.variants)
        assert 3 <= len(plot.y_ticks) <= 8
        for mark in plot.marks:
            assert plot.left <= mark.x <= plot.right
            assert plot.top <= min(mark.y_bar) <= mark.y <= max(mark.y_bar) <= plot.bottom
            width = 6.1 * len(mark.label)
            start = mark.label_x if mark.anchor == "start" else mark.label_x - width
            assert start >= -1
            assert start + width <= plot.width + 1
        assert plot.marks[-1].name == full.best


def test_wide_ranges_get_a_log_axis(report: Report) -> None:
    wide = replace(report, variants=(*report.variants, variant("int16x8", 11_000, 0.98, 0.0, 13.8)))
    narrow, broad = figures.size_scatter(wide), figures.latency_scatter(wide)
    assert narrow is not None
    assert broad is not None
    assert "log" not in narrow.x_label
    assert "log scale" in broad.x_label


def test_no_scatter_without_two_points(report: Report) -> None:
    assert figures.size_scatter(one_variant(report)) is None
    assert figures.latency_scatter(no_latency(report)) is None
    assert figures.size_scatter(no_labels(report)) is None


def test_bars_add_up(report: Report) -> None:
    kinds, bars = figures.byte_bars(report)
    assert kinds == ["weights", "graph", "biases"]
    for bar, made in zip(bars, report.variants):
        assert bar.size_bytes == made.size_bytes
        assert sum(s.percent for s in bar.segments) == pytest.approx(100 * bar.size_bytes / 40_000, abs=0.01)


def test_small_kinds_of_bytes_are_joined(report: Report) -> None:
    kinds = {f"kind {i}": 100 - i for i in range(9)}
    many = replace(report, variants=(replace(report.variants[0], bytes_by_kind=kinds),), best=None)
    shown, bars = figures.byte_bars(many)
    assert shown == [*[f"kind {i}" for i in range(5)], "all else"]
    assert bars[0].size_bytes == sum(kinds.values())
    assert bars[0].segments[-1].size_bytes == sum(100 - i for i in range(5, 9))


def test_layer_plot_marks_the_worst(report: Report) -> None:
    plot = figures.layer_plot(report)
    assert plot is not None
    assert [line.name for line in plot.lines] == ["float16", "int8"]
    assert all(line.worst[2] == "b" for line in plot.lines)
    assert figures.tensor_order(report) == ["a", "b"]
    gap = (LayerError("a", 9.0, 1.0), LayerError("b", math.nan, 1.0), LayerError("c", 8.0, 1.0))
    broken = figures.layer_plot(
        replace(report, variants=(*report.variants[:2], replace(report.variants[2], layer_errors=gap)))
    )
    assert broken is not None
    assert len(broken.lines[-1].pieces) == 2


# --- terminal --------------------------------------------------------------------------------------------------------


def printed(report: Report, **console: Any) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=80, **console).print(terminal_table(report))
    return out.getvalue()


@pytest.mark.parametrize("case", [lambda report: report, *CASES])
def test_terminal_table_fits_and_is_plain_when_piped(report: Report, case: Any) -> None:
    full = case(report)
    text = printed(full)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert len(lines) == 1 + len(full.variants)
    assert all(len(line) <= 80 for line in lines)
    assert sum(line.startswith("→") for line in lines) == (full.best is not None)


def test_terminal_table_cuts_names_never_numbers(report: Report) -> None:
    text = printed(twelve_variants(report))
    assert "…" in text
    assert "90,000" in text
    assert re.search(r"v12 +7,500 +1\.0× ", text)


def test_terminal_table_marks_losses_beyond_chance(report: Report) -> None:
    assert "+25.0*" in printed(errors_as_metric(report))
    assert "*" not in printed(report)


def test_importing_the_report_is_light() -> None:
    heavy = ("numpy", "jinja2", "rich", "yaml", "matplotlib")
    code = f"import sys, edgeopt.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
