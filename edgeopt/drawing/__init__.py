"""The graph of a converted file as a picture: its facts and a number for each operator go in, an SVG comes out.

No other program is needed, and the picture holds no script and asks for nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from edgeopt.drawing.colouring import Colouring, Shade
from edgeopt.drawing.layout import layout
from edgeopt.formats.contract import FileFacts, OperatorFacts
from edgeopt.vocabulary import Shape, TensorSpec

_WIDTH, _HEIGHT = 190.0, 40.0
_GAP, _RANK, _MARGIN, _HEAD = 22.0, 74.0, 16.0, 58.0
_LONGEST = 30
# Light to dark in one hue, so that it reads in grey as well.
_LIGHT, _DARK = (255, 247, 236), (179, 0, 0)
# From here on white letters are read more easily than black ones.
_INK = 0.6
_KINDS = {
    **dict.fromkeys(("convolution", "pointwise", "depthwise", "transposed"), "#dbeafe"),
    **dict.fromkeys(("dense", "attention", "embedding", "recurrent"), "#dcfce7"),
    "loop": "#fef3c7",
}
_PLAIN, _UNKNOWN, _END = "#f8fafc", "#e5e7eb", "#e0e7ff"
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#111}.k{font-weight:600}.k.q{fill:#111}.q{fill:#555}.w{fill:#fff}"
    "rect{stroke:#64748b}path{fill:none;stroke:#94a3b8;stroke-width:1.3}"
)


def svg(facts: FileFacts, title: str, colouring: Colouring | None = None) -> str:
    """Returns the graphs of a file as an SVG document, those of loops beside the main one.

    Args:
        facts: of the file.
        title: above the picture, any text.
        colouring: what the boxes' colours say; the kinds of operators if None.
    """
    graphs = defaultdict(list)
    for index, operator in enumerate(facts.operators):
        graphs[operator.graph].append(index)
    body, left, deepest = [], _MARGIN, 0.0
    for number, indices in sorted(graphs.items()) or [(0, [])]:
        parts, width, depth = _drawn(facts, indices, number, colouring)
        body.append(f'<g transform="translate({left:.0f} {_HEAD:.0f})">{"".join(parts)}</g>')
        left, deepest = left + width + 3 * _MARGIN, max(deepest, depth)
    said = colouring.title if colouring else f"{len(facts.operators):,} operators"
    heading = (
        f'<text class="k" x="{_MARGIN:.0f}" y="24">{_text(title, 200)}</text>'
        f'<text class="q" x="{_MARGIN:.0f}" y="42">{_text(said, 200)}</text>'
    )
    width, height = max(left, 320.0), deepest + _HEAD + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>{heading}{"".join(body)}</svg>\n'
    )


@dataclass(frozen=True)
class _Box:
    head: str
    line: str
    hint: str
    fill: str
    ink: str = "q"
    round: bool = False


def _drawn(
    facts: FileFacts, indices: Sequence[int], number: int, colouring: Colouring | None
) -> tuple[list[str], float, float]:
    """Returns one graph as elements, with its width and height."""
    operators = [facts.operators[index] for index in indices]
    boxes = [_operator_box(o, colouring.shades[i] if colouring else None) for i, o in zip(indices, operators)]
    first = len(facts.inputs) if number == 0 else 0
    sources = [_end_box(spec) for spec in facts.inputs[:first]]
    makers: dict[str, int] = {key: at for at, key in enumerate(facts.input_tensors[:first])}
    edges = []
    for at, operator in enumerate(operators, first):
        # What is written later is the state of a loop, or a broken file: no edge upwards.
        edges += [(makers[key], at) for key in operator.reads if key in makers]
        makers.update(dict.fromkeys(operator.writes, at))
    ends: list[_Box] = []
    if number == 0:
        for spec, key in zip(facts.outputs, facts.output_tensors):
            if key in makers:
                edges.append((makers[key], first + len(operators) + len(ends)))
                ends.append(_end_box(spec))
    every = [*sources, *boxes, *ends]
    found = layout([_WIDTH] * len(every), edges, gap=_GAP)
    lines = [_edge(found.centres, found.ranks, edge, found.routes[edge]) for edge in dict.fromkeys(edges)]
    drawn = [_box(box, x, rank) for box, x, rank in zip(every, found.centres, found.ranks)]
    return [*lines, *drawn], found.width, (max(found.ranks, default=0) + 1) * _RANK


def _operator_box(operator: OperatorFacts, shade: Shade | None) -> _Box:
    line = shade.text if shade and shade.text else _shape(operator.output_shape)
    hint = [operator.name, operator.layer, _shape(operator.output_shape)]
    hint += [f"{operator.macs:,} MACs"] * bool(operator.macs)
    hint += [f"{w.name}: {w.dtype} {_shape(w.shape)}, {w.size_bytes:,} bytes" for w in operator.weights]
    if shade is None:
        return _Box(operator.name, line, "\n".join(hint), _KINDS.get(operator.kind, _PLAIN))
    if shade.share is None:
        return _Box(operator.name, line, "\n".join(hint), _UNKNOWN)
    return _Box(operator.name, line, "\n".join(hint), _between(shade.share), "w" if shade.share > _INK else "b")


def _end_box(spec: TensorSpec) -> _Box:
    return _Box(spec.name, f"{spec.dtype} {_shape(spec.shape)}", spec.name, _END, round=True)


def _box(box: _Box, centre: float, rank: int) -> str:
    x, y = centre - _WIDTH / 2, rank * _RANK
    return (
        f'<g><title>{_text(box.hint, 2000)}</title><rect x="{x:.1f}" y="{y:.0f}" width="{_WIDTH:.0f}" '
        f'height="{_HEIGHT:.0f}" rx="{20 if box.round else 5}" fill={quoteattr(box.fill)}/>'
        f'<text class="k {box.ink}" x="{x + 10:.1f}" y="{y + 17:.0f}">{_text(box.head, _LONGEST - 4)}</text>'
        f'<text class="{box.ink}" x="{x + 10:.1f}" y="{y + 33:.0f}">{_text(box.line, _LONGEST)}</text></g>'
    )


def _edge(
    centres: Sequence[float], ranks: Sequence[int], edge: tuple[int, int], bends: Sequence[tuple[float, int]]
) -> str:
    upper, lower = edge
    y = ranks[upper] * _RANK + _HEIGHT
    parts = [f"M{centres[upper]:.1f} {y:.0f}"]
    x = centres[upper]
    for bend, rank in (*bends, (centres[lower], ranks[lower])):
        top = rank * _RANK
        middle = (y + top) / 2
        parts.append(f"C{x:.1f} {middle:.0f} {bend:.1f} {middle:.0f} {bend:.1f} {top:.0f}")
        x, y = bend, top + _HEIGHT
        if rank != ranks[lower]:
            parts.append(f"V{y:.0f}")
    return f'<path d="{"".join(parts)}"/>'


def _between(share: float) -> str:
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_LIGHT, _DARK))


def _shape(shape: Shape) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _text(text: str, longest: int) -> str:
    """Returns any text for an element of XML, which has no control characters, cut to `longest` with its end kept."""
    plain = "".join(c if c == "\n" or c.isprintable() else "�" for c in text)
    cut = (
        plain
        if len(plain) <= longest
        else f"{plain[: longest // 3]}…{plain[len(plain) - longest + longest // 3 + 1 :]}"
    )
    return escape(cut)
