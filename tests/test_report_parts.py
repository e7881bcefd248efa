"""The score by class or target in a report: what is told of it, drawn and written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeopt.metrics import metric
from edgeopt.report.model import ModelFacts, Report, from_json, to_json
from edgeopt.report.parts import Parts, parts, spread_svg, spreads, svg
from edgeopt.report.render import render_html, render_markdown
from edgeopt.vocabulary import Artifact, Breakdown, MetricValue, OutputMetric, Variant


def of_classes(f1: tuple[float | None, ...], confusion: tuple[tuple[int, ...], ...] = ()) -> Breakdown:
    names = tuple(f"<class {n}>" for n in range(len(f1)))
    return Breakdown("classes", names, {"f1": f1}, tuple(range(len(f1))), confusion)


def report_of(before: Breakdown | None, after: Breakdown | None) -> Report:
    file = Artifact("tflite", "m.tflite", "a" * 64, 1000, 500)
    variants = (
        Variant("float32", "float32", (file,), breakdown=before),
        Variant("int8", "int8", (file,), breakdown=after),
    )
    facts = ModelFacts("m.keras")
    return Report("0.1.0", "2026-11-21T10:14:03+00:00", facts, variants=variants, baseline="float32", best="int8")


def told(before: Breakdown | None, after: Breakdown | None) -> Parts:
    (found,) = parts(report_of(before, after))
    return found


def test_classes_before_and_after() -> None:
    before = of_classes((0.9, 0.8, None), ((5, 0, 1), (0, 6, 0), (0, 0, 6)))
    after = of_classes((0.9, 0.6, None), ((5, 0, 1), (2, 4, 0), (0, 1, 5)))
    found = told(before, after)
    assert (found.kind, found.measure, found.before, found.after, found.left_out) == (
        "class",
        "f1",
        "float32",
        "int8",
        0,
    )
    assert [row.worse for row in found.rows] == [0.0, 0.8 - 0.6, 0.0]
    assert found.mistakes == (
        "<class 1> is taken for <class 0> 2 times instead of 0",
        "<class 2> is taken for <class 1> 1 times instead of 0",
    )
    drawn = svg(found)
    assert drawn.count("<circle") == 2 * 2  # the third class has no score
    assert "&lt;class 1&gt;: 80.0%, then 60.0%" in drawn
    report = report_of(before, after)
    page, text = render_html(report), render_markdown(report)
    assert "Class by class" in page
    assert "&lt;class 1&gt; is taken for &lt;class 0&gt; 2 times instead of 0" in page
    assert "<class 1>" not in page
    assert "| 80.0% | 60.0% | 1 |" in text
    assert from_json(to_json(report)).variants[1].breakdown == after


def test_targets_are_worse_when_they_grow() -> None:
    before, after = (Breakdown("targets", ("0", "1"), {"rmse": errors}) for errors in ((1.0, 2.0), (1.5, 1.0)))
    found = told(before, after)
    assert [row.worse for row in found.rows] == [0.5, -1.0]
    assert found.text(found.rows[0].after) == "1.5"
    assert "Target by target" in render_markdown(report_of(before, after))


def test_targets_are_told_in_their_own_spread_where_they_have_one() -> None:
    explained = [(0.75, 0.96), (0.75, 0.91)]
    before, after = (Breakdown("targets", ("0", "1"), {"rmse": (100.0, 0.2), "r2": r2}) for r2 in explained)
    found = told(before, after)
    assert found.called == "RMSE, as a share of its spread,"
    assert [row.worse for row in found.rows] == pytest.approx([0, 0.3 - 0.2])
    drawn = svg(found)
    assert "50.0% → 50.0%" in drawn
    assert "20.0% → 30.0%" in drawn


def test_of_many_classes_those_that_lost_most_stay() -> None:
    scores = np.linspace(0.5, 0.9, 50)
    found = told(of_classes(tuple(scores)), of_classes(tuple(scores * np.linspace(1, 0.5, 50))))
    assert found.left_out == 30
    assert [row.name for row in found.rows] == [f"<class {n}>" for n in range(30, 50)]


def test_where_there_is_nothing_to_tell() -> None:
    some = of_classes((0.5, 0.5))
    for before, after in ((None, some), (some, None), (of_classes((0.5,)), of_classes((0.5,)))):
        assert parts(report_of(before, after)) == ()
        assert "by class" not in render_markdown(report_of(before, after))
    assert parts(report_of(some, of_classes((0.5, 0.5, 0.5)))) == ()
    assert parts(replace(report_of(some, some), best=None)) == ()


def test_several_outputs_are_told_one_by_one() -> None:
    def outputs(value: float, error: float) -> tuple[OutputMetric, ...]:
        kind = OutputMetric("kind", MetricValue("top1", value, value - 0.1, value + 0.05, 99), of_classes((value, 0.5)))
        where = OutputMetric("<where>", MetricValue("mse", error, error / 2, 2 * error, 99, higher_is_better=False))
        return kind, where

    report = report_of(None, None)
    first, second = report.variants
    report = replace(
        report, variants=(replace(first, outputs=outputs(0.9, 2.5)), replace(second, outputs=outputs(0.8, 3.5)))
    )
    (found,) = parts(report)
    assert (found.title, found.rows[0].before, found.rows[0].after) == ("Class by class of kind", 0.9, 0.8)
    page, text = render_html(report), render_markdown(report)
    assert "Output by output" in page
    assert "&lt;where&gt;: mse" in page
    assert "| int8 | 0.8 (0.7 to 0.85) | 3.5 (1.75 to 7) |" in text.replace("\\", "")
    assert from_json(to_json(report)).variants == report.variants


def test_what_is_taken_for_what_is_a_table_of_few_classes() -> None:
    few, many = (of_classes((0.5,) * n, ((1234,) * n,) * n) for n in (3, 13))
    assert told(few, few).confusion == few.confusion
    assert "What int8 takes for what" in render_html(report_of(few, few))
    assert told(many, many).confusion == ()


def test_where_errors_of_anomalies_lie() -> None:
    one = metric("auc-reconstruction")
    errors = np.concatenate([np.full(30, 1.0), np.full(8, 1.0), np.full(62, 9.0)])
    found = one.apart(errors, np.arange(100) >= 30)
    assert found is not None
    assert (found.of, found.names, found.counts) == ("scores", ("ordinary", "anomaly"), (30, 70))
    columns = list(found.columns.values())
    assert columns[0] == (1.0, 8 / 70)
    assert columns[-1] == (0.0, 62 / 70)
    assert one.apart(errors, np.zeros(100)) is None
    assert one.apart(np.ones(100), np.arange(100) % 2) is None
    report = report_of(found, found)
    (spread,) = spreads(report)
    assert spread_svg(spread).count("<rect") == 2 * len(columns)
    assert "anomaly from 1: 11.4%" in render_html(report)
    assert parts(report) == ()


def test_boxes_are_told_by_class() -> None:
    one = metric("map")
    rows = (np.array([[0.9, 0.8]]), np.array([[0, 1]]), np.ones((1, 2, 10), bool), np.array([[1, 2]]))
    found = one.apart(*rows)
    assert found is not None
    assert (found.names, found.counts) == (("0", "1"), (1, 2))
    assert found.columns["ap"] == pytest.approx((1.0, sum(recall <= 0.5 for recall in np.linspace(0, 1, 101)) / 101))
    assert one.apart(*rows[:3], np.array([[1, 0]])) is None
    assert told(found, found).called == "average precision"
