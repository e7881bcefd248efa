"""Graphs as pictures: each operator once, edges downwards, colours by what was counted or measured, text as text."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import runtime_models
import tflite_models
from click.testing import CliRunner

import edgeopt
from edgeopt import drawing, formats
from edgeopt.cli import cli
from edgeopt.drawing import colouring
from edgeopt.drawing.layout import Layout, layout
from edgeopt.errors import ConfigError, DataError, ModelError
from edgeopt.formats.contract import FileFacts, OperatorFacts
from edgeopt.plain import to_plain
from edgeopt.vocabulary import LayerError, OperatorTime, TensorSpec

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</title><script>alert(1)</script>&\x00\x1b[2J\ud800"


def _chain(count: int, skips: Sequence[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    return [*((i, i + 1) for i in range(count - 1)), *skips]


def _boxes_of(found: Layout) -> dict[int, list[tuple[float, float]]]:
    """Returns, rank by rank, from where to where something stands; boxes are 100 wide and bends 10."""
    rows = defaultdict(list)
    for rank, centre in zip(found.ranks, found.centres):
        rows[rank].append((centre - 50, centre + 50))
    for centre, rank in {bend for bends in found.routes.values() for bend in bends}:
        rows[rank].append((centre - 5, centre + 5))
    return {rank: sorted(row) for rank, row in rows.items()}


def test_boxes_stand_below_what_they_read_and_apart() -> None:
    edges = _chain(30, [(0, 29), (2, 9), (2, 20), (5, 7), (11, 13)])
    found = layout([100.0] * 30, edges, gap=20.0)
    assert all(found.ranks[upper] < found.ranks[lower] for upper, lower in edges)
    for row in _boxes_of(found).values():
        assert all(right + 20 <= left + 1e-6 for (_, right), (left, _) in pairwise(row))
    assert len(found.routes[0, 29]) == 28
    # One tensor that two operators read far below goes there as one line.
    assert set(found.routes[2, 9]) <= set(found.routes[2, 20])
    assert min(left for row in _boxes_of(found).values() for left, _ in row) == 0
    assert layout([], [], gap=20.0).width == 0


def test_a_chain_is_a_straight_line() -> None:
    assert set(layout([100.0] * 9, _chain(9), gap=20.0).centres) == {50.0}


def test_what_nothing_leads_to_stands_just_above_its_reader() -> None:
    assert layout([100.0] * 5, [(0, 2), (2, 3), (3, 4), (1, 4)], gap=20.0).ranks == (0, 2, 1, 2, 3)


def test_a_thousand_operators_take_seconds_at_most() -> None:
    """The machine may be busy: a quadratic step would take minutes."""
    facts = _facts([_operator("ADD", (i, max(0, i - 700 * (i % 3 == 0))), i + 1) for i in range(3000)])
    start = time.process_time()
    assert drawing.svg(facts, "large").count("<rect") == 1 + 3000 + 2
    assert time.process_time() - start < 20


def _operator(name: str, reads: Sequence[int], writes: int, *, graph: int = 0, macs: int = 0) -> OperatorFacts:
    taken = tuple(map(str, reads))
    return OperatorFacts(
        name, f"t{writes}", (1, 4), True, macs, graph=graph, reads=taken, writes=(str(writes),), kind="other"
    )


def _facts(operators: Sequence[OperatorFacts]) -> FileFacts:
    spec = TensorSpec("in", (1, 4)), TensorSpec("out", (1, 4))
    ends = {"input_tensors": ("0",), "output_tensors": operators[-1].writes}
    return FileFacts(
        "tflite", spec[:1], spec[1:], tuple(operators), (), 0, {}, 0, False, read=lambda weight: NotImplemented, **ends
    )


def _root(text: str) -> ElementTree.Element:
    assert "<script" not in text
    return ElementTree.fromstring(text)


def _heads(root: ElementTree.Element) -> list[str]:
    return [
        str(group.findall(f"{SVG}text")[0].text)
        for group in root.iter(f"{SVG}g")
        if group.find(f"{SVG}title") is not None
    ]


def _fills(root: ElementTree.Element) -> list[str]:
    return [
        group.find(f"{SVG}rect").get("fill") for group in root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None
    ]  # type: ignore[union-attr,misc]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "cnn.tflite"
    path.write_bytes(tflite_models.convert(tflite_models.cnn, "int8"))
    return path


def test_every_operator_input_and_output_has_a_box(file: Path) -> None:
    facts = formats.facts(file)
    root = _root(drawing.svg(facts, "cnn"))
    names = [operator.name for operator in facts.operators]
    assert _heads(root) == [facts.inputs[0].name, *names, facts.outputs[0].name]
    assert len(root.findall(f".//{SVG}path")) == len(names) + 1


def test_onnx_is_drawn_without_what_only_unpacks_weights(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Mul", ["a", "w"], ["b"]),
        helper.make_node("Add", ["b", "x"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(name, kind, [2])] for name in "xy"]
    weight = helper.make_tensor("w", kind, [2], [1.0, 2.0])
    model = helper.make_model(helper.make_graph(nodes, "g", *ends, [weight]), ir_version=8)
    onnx.save(model, tmp_path / "small.onnx")
    edgeopt.draw(tmp_path / "small.onnx", tmp_path / "small.svg", colour="macs")
    root = _root((tmp_path / "small.svg").read_text("utf-8"))
    assert _heads(root) == ["x", "Relu", "Mul", "Add", "y"]
    # x is read twice, and the weight by no line.
    assert len(root.findall(f".//{SVG}path")) == 5


def test_the_darkest_box_has_most(file: Path, tmp_path: Path) -> None:
    facts = formats.facts(file)
    for colour, most in (
        ("bytes", max(facts.operators, key=lambda o: sum(w.size_bytes for w in o.weights))),
        ("macs", max(facts.operators, key=lambda o: o.macs)),
    ):
        edgeopt.draw(file, tmp_path / f"{colour}.svg", colour=colour)
        fills = _fills(_root((tmp_path / f"{colour}.svg").read_text("utf-8")))
        assert fills.count("#b30000") == 1
        assert fills.index("#b30000") == 1 + facts.operators.index(most)


def test_times_and_errors_come_from_what_was_measured(file: Path, tmp_path: Path) -> None:
    first, *others = (operator.layer for operator in formats.facts(file).operators)
    profile = [OperatorTime("CONV_2D", first, 0.75, 3.0), OperatorTime("MEAN", others[0], 0.25, 1.0)]
    rows = [
        {"file": "b.tflite", "result": {"name": "litert"}, "operators": []},
        {"file": f"some/{file.name}", "result": {"name": "litert"}, "operators": to_plain(profile)},
    ]
    (tmp_path / "bench.json").write_text(json.dumps({"rows": rows}))
    edgeopt.draw(file, tmp_path / "time.svg", colour="time", measured=tmp_path / "bench.json")
    text = (tmp_path / "time.svg").read_text("utf-8")
    assert "time on litert" in text
    assert "3 µs, 75.0%" in text
    # Dark, a third of it, and unknown for all the rest.
    third = "#" + "".join(f"{round(a + (b - a) / 3):02x}" for a, b in ((255, 179), (247, 0), (236, 0)))
    assert _fills(_root(text))[1:-1] == ["#b30000", third, *["#e5e7eb"] * (len(others) - 1)]
    layers = [LayerError(first, 10.0, 1.0), LayerError(others[0], float("inf"), 1.0), LayerError(others[1], 30.0, 1.0)]
    (tmp_path / "compared.json").write_text(json.dumps({"layers": to_plain(layers)}))
    edgeopt.draw(file, tmp_path / "error.svg", colour="error", measured=tmp_path / "compared.json")
    text = (tmp_path / "error.svg").read_text("utf-8")
    assert "10.0 dB" in text
    assert "no noise" in text
    half = "#" + "".join(f"{round(a + (b - a) / 2):02x}" for a, b in ((255, 179), (247, 0), (236, 0)))
    assert _fills(_root(text))[1:4] == ["#b30000", "#fff7ec", half]


def test_a_profile_of_the_command_colours_the_picture(file: Path, tmp_path: Path) -> None:
    run = CliRunner()
    timed = run.invoke(cli, ["benchmark", str(file), "--runtime", "litert", "--profile", "--runs", "3", "--json"])
    (tmp_path / "bench.json").write_text(timed.stdout)
    picture = tmp_path / "time.svg"
    words = [
        "inspect",
        str(file),
        "--graph",
        str(picture),
        "--colour",
        "time",
        "--measured",
        str(tmp_path / "bench.json"),
    ]
    done = run.invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert ": the graph, coloured by time" in done.stdout.replace("\n", " ")
    assert "#e5e7eb" not in _fills(_root(picture.read_text("utf-8")))
    assert "µs" in picture.read_text("utf-8")


def test_any_text_is_only_text() -> None:
    facts = _facts([_operator(HOSTILE, [0], 1), _operator("A" * 10_000, [1], 2)])
    facts = replace(facts, inputs=(TensorSpec(HOSTILE, (1,)),))
    root = _root(drawing.svg(facts, HOSTILE).encode("utf-8").decode("utf-8"))
    assert {element.tag for element in root.iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "style", "rect", "g", "text", "title", "path")
    }
    assert len(_heads(root)[2]) == 26


def test_broken_graphs_are_drawn_all_the_same() -> None:
    """An operator that reads what is written later, itself, or nothing that is known; a loop's own graph."""
    facts = _facts(
        [
            _operator("A", [2], 1),
            _operator("B", [1, 2, 99], 2),
            _operator("INNER", [0], 5, graph=1),
            _operator("C", [2, 2], 3),
        ]
    )
    root = _root(drawing.svg(facts, "odd"))
    assert sorted(_heads(root)) == ["A", "B", "C", "INNER", "in", "out"]
    # A to B, B to C once, C to the output.
    assert len(root.findall(f".//{SVG}path")) == 3


def test_counts_of_nothing_are_light() -> None:
    shades = colouring.by_macs(_facts([_operator("A", [0], 1)])).shades
    assert [(shade.share, shade.text) for shade in shades] == [(0.0, "")]


def test_what_cannot_be_drawn_is_refused(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.svg"
    with pytest.raises(ModelError, match=r"Expected a \.tflite .*to draw, got digits\.keras"):
        edgeopt.draw("digits.keras", out)
    with pytest.raises(ConfigError, match="Expected one of kind, bytes, macs, time, error as colour, got 'red'"):
        edgeopt.draw(file, out, colour="red")
    with pytest.raises(ConfigError, match="Expected a measurement: edgeopt benchmark FILE --profile --json"):
        edgeopt.draw(file, out, colour="time")
    with pytest.raises(ConfigError, match="Expected no measurement, for the colour bytes, got "):
        edgeopt.draw(file, out, colour="bytes", measured=tmp_path / "bench.json")
    measured = tmp_path / "bench.json"
    for content, why in (
        ("{", "Expected what `edgeopt benchmark FILE --profile --json` prints, got .*bench.json: "),
        ("[" * 100_000, "Expected what `edgeopt benchmark"),
        ("[]", "got .*bench.json, which is no object"),
        ('{"rows": [1, {"operators": []}]}', "it has no profile"),
        ('{"rows": [{"operators": [{"operator": 1}]}]}', "operators"),
    ):
        measured.write_text(content)
        with pytest.raises(DataError, match=why):
            edgeopt.draw(file, out, colour="time", measured=measured)
    measured.write_text(json.dumps({"layers": to_plain([LayerError("other", 1.0, 1.0)])}))
    with pytest.raises(DataError, match="none of its tensors are in it"):
        edgeopt.draw(file, out, colour="error", measured=measured)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(ConfigError, match=r"out\.svg"):
        edgeopt.draw(file, out)
    done = CliRunner().invoke(cli, ["inspect", str(file), "--colour", "bytes"])
    assert "Expected a file for the picture with --colour and --measured, got none" in str(done.exception)


def test_loops_and_free_sizes_are_drawn(tmp_path: Path) -> None:
    for name in ("any-size", "ring-in-a-branch", "lstm"):
        edgeopt.draw(runtime_models.models()[name], tmp_path / f"{name}.svg")
        _root((tmp_path / f"{name}.svg").read_text("utf-8"))
    assert "?x?x3" in (tmp_path / "any-size.svg").read_text("utf-8")
