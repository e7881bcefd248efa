"""Which operators a target runs well, runs or refuses: a Target and a TFLiteModel go in, verdicts come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgeopt import runtimes
from edgeopt.compilers import compiled_by
from edgeopt.compilers.contract import OnCpu
from edgeopt.errors import ConfigError
from edgeopt.frameworks import FRAMEWORKS
from edgeopt.targets.model import Target
from edgeopt.tflite.model import Operator, Subgraph, TFLiteModel
from edgeopt.tflite.op_versions import unsupported_by
from edgeopt.vocabulary import Scheme

# They stand between two kinds of numbers and are neither's arithmetic, or move values and compute nothing.
_BETWEEN = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})
_MOVING = frozenset(
    (
        *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "SLICE"),
        *("STRIDED_SLICE", "CONCATENATION", "GATHER", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"),
    )
)


@dataclass(frozen=True)
class Verdict:
    """What a target says to a kind of operator.

    Attributes:
        operator: its builtin name.
        arithmetic: one of `model.ARITHMETICS`, "" for what moves or rescales values.
        count: how many of them the file has.
        verdict: "well", "runs", "refused", or "unknown" where no public source tells.
    """

    operator: str
    arithmetic: str
    count: int
    verdict: str
    reason: str


def judge(target: Target, model: TFLiteModel) -> tuple[Verdict, ...]:
    """Returns a verdict for each operator and arithmetic of the file, most used first."""
    uses = Counter((op.name, arithmetic(graph, op)) for graph in model.subgraphs for op in graph.operators)
    return tuple(Verdict(name, kind, n, *_verdict(target, name, kind)) for (name, kind), n in uses.most_common())


def on_cpu(verdicts: Sequence[Verdict], left: Sequence[OnCpu]) -> tuple[Verdict, ...]:
    """Returns the verdicts with what a compiler left to the CPU taken out of what runs well."""
    counts = Counter(row.operator for row in left)
    reasons = {row.operator: row.reason for row in left}
    found = []
    for verdict in verdicts:
        if count := min(counts[verdict.operator], verdict.count):
            counts[verdict.operator] -= count
            reason = f"on the CPU: {reasons[verdict.operator]}"
            found.append(replace(verdict, count=count, verdict="runs", reason=reason))
        if verdict.count > count:
            found.append(replace(verdict, count=verdict.count - count))
    return tuple(found)


def refusal(target: Target, model: TFLiteModel) -> tuple[str, ...]:
    """Returns why the target cannot run the file, in words; empty where it can.

    By the arithmetics that the target refuses; where there are none, by the operator versions of its runtimes.
    """
    refused: dict[tuple[str, str], list[str]] = {}
    for row in judge(target, model):
        if row.verdict == "refused":
            refused.setdefault((row.arithmetic, row.reason), []).append(f"{row.count} {row.operator}")
    reasons = [f"{kind} ({', '.join(names)}): {reason}" for (kind, reason), names in refused.items()]
    reasons += _refused_shapes(target, model)
    made_by = compiled_by(operator.name for operator in model.main.operators)
    if made_by is not None and made_by.name != target.compiler:
        reasons.append(
            f"{made_by.title} compiled the file for {made_by.hardware}, and there is none: take the file it was made of"
        )
    if reasons:
        return tuple(reasons)
    for name in target.runtimes:
        request = runtimes.parse(name)
        package = "tflm" if request.runtime.name == "tflm" else FRAMEWORKS[request.runtime.package].distribution
        reasons += unsupported_by(model, package, request.version or "")
    return tuple(dict.fromkeys(reasons))


def _refused_shapes(target: Target, model: TFLiteModel) -> Iterator[str]:
    """Yields the first tensor whose shape the target does not take, by each of its rules."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors if not tensor.is_constant]
    free = next((t for t in tensors if None in t.signature[1:]), None)
    if target.fixed_shapes and free is not None:
        yield f"{free.name!r} has dimensions that the file does not tell, and its shapes have to be fixed"
    most = target.inner_dimensions
    outer = next((t for t in tensors if most is not None and any(size > 1 for size in t.shape[:-most])), None)
    if outer is not None:
        yield f"{outer.name!r} is {list(outer.shape)}, and only the last {most} dimensions may be greater than 1"


def refuse_scheme(target: Target, scheme: Scheme) -> None:
    """Raises ConfigError where the target cannot compute with what `scheme` makes: before a model is loaded."""
    kind = "dynamic" if scheme.dynamic else "int16x8" if scheme.activations == "int16" else scheme.weights
    if kind in target.refused:
        raise ConfigError(
            f"Expected a scheme that {target.name} can run, got {scheme.name}: {target.refused[kind]}. "
            f"Try --scheme {target.best_scheme}."
        )


def arithmetic(graph: Subgraph, operator: Operator) -> str:
    """Returns what an operator computes with: a name of `model.ARITHMETICS`, or "" where it moves or rescales."""
    # What a compiler made reads its commands as bytes: they are no arithmetic.
    if operator.name in _BETWEEN | _MOVING or compiled_by([operator.name]):
        return ""
    operands = [graph.tensors[i] for i in operator.inputs if i >= 0]
    activations = next((t for t in operands if not t.is_constant), None)
    dtype = "" if activations is None else activations.dtype
    weights = {t.dtype for t in operands if t.is_constant}
    if dtype.startswith("float"):
        return "dynamic" if weights & {"int8", "uint8", "int4", "int2"} else dtype.replace("float64", "float32")
    if dtype == "uint8":
        return dtype
    if dtype == "int8":
        return "int4" if weights & {"int4", "int2"} else "int8"
    return "int16x8" if dtype == "int16" else ""


def _verdict(target: Target, operator: str, kind: str) -> tuple[str, str]:
    if kind in target.refused:
        return "refused", target.refused[kind]
    if kind and kind not in target.well and kind not in target.runs:
        return "unknown", f"nothing is known of {kind} there"
    if not (target.operators or target.runtimes or target.compiler):
        return "unknown", target.others or "which operators it takes is not known"
    if target.others and operator not in target.operators:
        return "runs", target.others
    if kind in target.runs:
        return "runs", target.runs[kind]
    if not kind:
        return "runs", "it moves or rescales values"
    if target.operators and operator not in target.operators:
        return "runs", f"there is no fast {kind} kernel of it"
    return "well", target.well[kind]
