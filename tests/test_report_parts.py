"""The score by class or target in a report: what is told of it, drawn and written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeopt.report.model import ModelFacts, Report, from_json, to_json
from edgeopt.report.parts import Parts, parts, svg
from edgeopt.report.render import render_html, render_markdown
from edgeopt.vocabulary import Artifact, Breakdown, Variant


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
    found = parts(report_of(before, after))
    assert found is not None
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


def test_of_many_classes_those_that_lost_most_stay() -> None:
    scores = np.linspace(0.5, 0.9, 50)
    found = told(of_classes(tuple(scores)), of_classes(tuple(scores * np.linspace(1, 0.5, 50))))
    assert found.left_out == 30
    assert [row.name for row in found.rows] == [f"<class {n}>" for n in range(30, 50)]


def test_where_there_is_nothing_to_tell() -> None:
    some = of_classes((0.5, 0.5))
    for before, after in ((None, some), (some, None), (of_classes((0.5,)), of_classes((0.5,)))):
        assert parts(report_of(before, after)) is None
        assert "by class" not in render_markdown(report_of(before, after))
    assert parts(report_of(some, of_classes((0.5, 0.5, 0.5)))) is None
    assert parts(replace(report_of(some, some), best=None)) is None
