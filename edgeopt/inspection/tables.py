"""An Inspection as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from edgeopt.loading.formats import FORMATS as SOURCES
from edgeopt.showing.narrow import narrowed
from edgeopt.showing.safe import visible_lines

if TYPE_CHECKING:
    from rich.table import Table

    from edgeopt.inspection import Inspection
    from edgeopt.targets import Assessment
    from edgeopt.vocabulary import Quantization, Shape, TensorSpec


# Of "DEPTHWISE_CONV_2D v1".
_SHORTEST_NAME, _SHORTEST_KIND = 16, 20
# Columns of operators that a narrow terminal does without, the first to go first.
_SPARE = ("distinct", "zeros", "weights", "MACs", "params")


def inspection_tables(inspection: Inspection, *, width: int = 200) -> list[Table]:
    """Returns the summary, inputs and outputs, operators or layers, what each technique can do, and the target.

    Args:
        inspection: of a file.
        width: of the terminal, in characters.
    """
    tables = [_summary(inspection), _interface(inspection), narrowed(_rows(inspection), width, _SPARE)]
    if inspection.format in SOURCES:
        tables.append(_advice(inspection))
    return tables if inspection.target is None else [*tables, target_table(inspection.target)]


def target_table(found: Assessment) -> Table:
    """Returns what a file costs on a target, and what runs how there."""
    table = _table(f"On {found.target}: {found.summary}", ("", {"style": "bold", "no_wrap": True}), "")
    table.show_header = False
    time = found.estimate
    latency = "not known" if time.latency_ms is None else f"{time.latency_ms:.3g} ms ({time.how})"
    rows = {
        "runs there": {True: "yes", False: "no", None: "not known"}[found.runs],
        "refused": "\n".join(found.refusals),
        "no room for": "\n".join(found.fit.problems),
        "flash": _of(found.fit.flash_bytes, found.fit.flash_limit_bytes),
        "RAM": f"{_of(found.fit.ram_bytes, found.fit.ram_limit_bytes)} ({found.memory_how}), most at {found.fit.peak}",
        "latency": latency,
        "runs well": _operators(found, "well"),
        "runs": _operators(found, "runs"),
        "not known": _operators(found, "unknown"),
        **found.techniques,
        "notes": "\n".join((*time.notes, *found.notes)),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, _text(value))
    return table


def _operators(found: Assessment, verdict: str) -> str:
    """Returns the operators of one verdict, a line for each reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for row in found.operators:
        if row.verdict == verdict:
            by_reason.setdefault((row.arithmetic, row.reason), []).append(f"{row.count} {row.operator}")
    return "\n".join(
        f"{', '.join(names)}{f' in {kind}' if kind else ''}: {reason}" for (kind, reason), names in by_reason.items()
    )


def _of(need: int, limit: int | None) -> str:
    return f"{need:,} bytes" + ("" if limit is None else f" of {limit:,} ({need / limit:.0%})")


def _summary(inspection: Inspection) -> Table:
    table = _table(inspection.path, ("", {"style": "bold", "no_wrap": True}), "")
    table.show_header = False
    size = f"{inspection.size_bytes:,} bytes"
    if inspection.gzip_bytes is not None:
        size += f", {inspection.gzip_bytes:,} gzipped"
    kinds = inspection.bytes_by_kind
    rows = {
        "format": inspection.format,
        "size": size,
        "where the bytes are": ", ".join(f"{kind} {size:,} ({_share(size, kinds)})" for kind, size in kinds.items()),
        "computes": inspection.quantization,
        "parameters": f"{inspection.parameters:,}",
        "multiply-accumulates": f"{inspection.macs:,}",
        "zero weights": "" if inspection.sparsity is None else f"{inspection.sparsity:.1%}",
        "operators": ", ".join(f"{o.count} {_versioned(o.name, o.version)}" for o in inspection.operators),
        "oldest runtime": _runtime(inspection),
        "may run on": ", ".join(name for name, reasons in inspection.verdicts.items() if not reasons),
        **{f"not on {name}": "\n".join(reasons) for name, reasons in inspection.verdicts.items()},
        "notes": "\n".join(inspection.notes),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, _text(value))
    return table


def _runtime(inspection: Inspection) -> str:
    need = inspection.runtime
    if need is None:
        return ""
    because = ", ".join(f"{r.operator} v{r.version}" for r in need.because)
    if not need.version:
        return f"none known, for {because}"
    litert = f", ai-edge-litert {need.litert}" if need.litert else ", no known ai-edge-litert"
    return f"TensorFlow Lite {need.version}{litert} (for {because})"


def _interface(inspection: Inspection) -> Table:
    table = _table("Inputs and outputs", "", "name", "shape", "dtype", "scale", "zero point")
    for role, specs in (("input", inspection.inputs), ("output", inspection.outputs)):
        for spec in specs:
            table.add_row(role, _text(spec.name), _shape(spec.shape), spec.dtype, *_affine(spec))
    return table


def _affine(spec: TensorSpec) -> tuple[str, str]:
    quantization: Quantization | None = spec.quantization
    if quantization is None:
        return "", ""
    return ", ".join(f"{s:.8g}" for s in quantization.scales), ", ".join(map(str, quantization.zero_points))


def _rows(inspection: Inspection) -> Table:
    number = {"justify": "right", "no_wrap": True}
    noted = any(row.note for row in inspection.rows)
    table = _table(
        "Operators" if inspection.operators else "Layers",
        ("", number),
        ("name", {"min_width": _SHORTEST_NAME}),
        ("kind", {"min_width": _SHORTEST_KIND}),
        ("output", {"no_wrap": True}),
        ("params", number),
        ("MACs", number),
        ("weights", {"no_wrap": True}),
        ("zeros", number),
        ("distinct", number),
        *(("note",) if noted else ()),
    )
    shared = _shared_folder([row.name for row in inspection.rows])
    for row in inspection.rows:
        table.add_row(
            str(row.index),
            _text(row.name.removeprefix(shared)),
            _text(_versioned(row.kind, row.version)),
            _shape(row.output_shape),
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.macs:,}" if row.macs else "",
            row.weight_dtype,
            "" if row.sparsity is None else f"{row.sparsity:.1%}",
            "" if row.unique_weights is None else f"{row.unique_weights:,}",
            *((_text(row.note),) if noted else ()),
        )
    return table


def _shared_folder(names: Sequence[str]) -> str:
    """Returns the "model/" that most tensors of a file are in: it says nothing, and there is little room."""
    heads = Counter(name.partition("/")[0] + "/" for name in names if "/" in name)
    head, count = heads.most_common(1)[0] if heads else ("", 0)
    return head if count > len(names) / 2 else ""


_POSSIBLE = {True: "yes", False: "no", None: "not known"}


def _versioned(name: str, version: int | None) -> str:
    return name if version is None else f"{name} v{version}"


def _advice(inspection: Inspection) -> Table:
    name = {"style": "bold", "no_wrap": True}
    table = _table("What each technique can do here", ("technique", name), "possible", "gain", "why")
    for (possible, gain, reason), several in groupby(inspection.advice, lambda a: (a.possible, a.gain, a.reason)):
        techniques = "\n".join(advice.technique for advice in several)
        table.add_row(techniques, _POSSIBLE[possible], _text(gain), _text(reason))
    return table


def _table(title: str, *columns: str | tuple[str, dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title=_text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        name, options = column if isinstance(column, tuple) else (column, {})
        table.add_column(name, overflow="fold", **options)
    return table


def _text(value: str) -> Any:
    """Returns a file's own words as plain text: no markup, and no control characters that steer a terminal."""
    from rich.text import Text

    return Text(visible_lines(value))


def _shape(shape: Shape) -> str:
    return "x".join("?" if d is None else str(d) for d in shape)


def _share(size: int, kinds: dict[str, int]) -> str:
    return f"{size / (sum(kinds.values()) or 1):.0%}"
