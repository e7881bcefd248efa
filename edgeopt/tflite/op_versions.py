"""Which runtimes load a `.tflite` file: a TFLiteModel goes in, the oldest runtime or the reasons against one come out.

Two things decide: the operator versions written in the file, which a runtime compares when it opens the file, and what
the operands demand, which some writers do not say (ai-edge-quantizer calls everything version 1) and which an old
runtime then computes wrongly without a word. Both are checked. The facts are in `op_versions.json`: `tflite` gives
for each operator version the first TensorFlow Lite that has it (also the number of tflite-runtime and tf.lite),
`litert` for each release of ai-edge-litert the highest versions that it has and the release before it has not, `tflm`
the builtin operators of TensorFlow Lite for Microcontrollers, which looks at no versions. `op_versions_update.py`
writes it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.errors import ConfigError, suggestion
from edgeopt.tflite.model import Operator, Subgraph, Tensor, TFLiteModel
from edgeopt.tflite.weights import activations_position

# What users call the packages → how their versions are counted.
PACKAGES: dict[str, str] = {
    "tflite-runtime": "tflite",
    "tensorflow": "tflite",
    "ai-edge-litert": "litert",
    "litert": "litert",
    "litert-builtin": "litert",
    "litert-reference": "litert",
    "tflm": "tflm",
    "tflite-micro": "tflm",
}
# Beside TFLM's own: what audio front ends in the file consist of.
_SIGNAL = (
    "Delay",
    "Energy",
    "FftAutoScale",
    "FilterBank",
    "FilterBankLog",
    "FilterBankSpectralSubtraction",
    "FilterBankSquareRoot",
    "Framer",
    "Irfft",
    "OverlapAdd",
    "PCAN",
    "Rfft",
    "Stacker",
    "Window",
)
# Registered by every full interpreter; and those of MediaPipe's models, which XNNPACK takes and nothing else has.
_REGISTERED = frozenset({"AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess"})
_XNNPACK_S = frozenset({"Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D"})
# Beside the builtin operators; TFLM's are those of a build with all operators.
_CUSTOM_OPERATORS: dict[str, frozenset[str]] = {
    "tflite": _REGISTERED | _XNNPACK_S,
    "litert": _REGISTERED | _XNNPACK_S,
    "tflm": frozenset(
        {"CIRCULAR_BUFFER", "TFLM_DECODE", "TFLite_Detection_PostProcess", "ethos-u"} | {f"Signal{s}" for s in _SIGNAL}
    ),
}


@dataclass(frozen=True)
class Floor:
    """The oldest releases that run something no operator version tells; "" where none is known to."""

    tflite: str
    litert: str


@dataclass(frozen=True)
class Demand:
    """What operands of these types demand of a runtime: an operator version, or releases where none says it.

    `activations` "" matches any; `per_channel` demands more than one scale on the weights.
    """

    operator: str
    activations: str
    weights: str
    needs: int | Floor
    per_channel: bool = False


# Measured on tflite-runtime 2.14 and ai-edge-litert 1.0.1, 1.2.0, 1.4.0, 2.1.0 and 2.3.0, or as LiteRT's converter
# sets versions (`op_version.cc`). What no release runs is refused by some and computed as if it were int8 by others.
_BY_INT4 = Floor("2.20.0", "1.2.0")
_NEVER = Floor("", "")
# Converters call it version 4, as with one scale; older runtimes than these were not to be had to try.
_INT8_DENSE_PER_CHANNEL = Floor("2.14.0", "1.0.1")
_BLOCKWISE = Floor("2.23.0", "2.3.0")
DEMANDS: tuple[Demand, ...] = (
    Demand("FULLY_CONNECTED", "float32", "int8", 12, per_channel=True),
    Demand("FULLY_CONNECTED", "float32", "int4", 12),
    Demand("FULLY_CONNECTED", "int8", "int8", _INT8_DENSE_PER_CHANNEL, per_channel=True),
    Demand("FULLY_CONNECTED", "int8", "int4", 10),
    Demand("FULLY_CONNECTED", "int8", "int4", _BY_INT4, per_channel=True),
    Demand("FULLY_CONNECTED", "int16", "int8", 7),
    Demand("FULLY_CONNECTED", "int16", "int4", 13),
    Demand("FULLY_CONNECTED", "", "int2", 14),
    Demand("CONV_2D", "float32", "int8", 5, per_channel=True),
    Demand("CONV_2D", "float32", "int4", _BY_INT4),
    Demand("CONV_2D", "int16", "int8", 4),
    Demand("CONV_2D", "int16", "int4", 4),
    Demand("CONV_2D", "int16", "int4", _BY_INT4),
    Demand("CONV_2D", "int8", "int4", 7),
    Demand("CONV_2D", "", "int2", _NEVER),
    Demand("DEPTHWISE_CONV_2D", "float32", "int8", 6, per_channel=True),
    Demand("DEPTHWISE_CONV_2D", "float32", "int4", _NEVER),
    Demand("DEPTHWISE_CONV_2D", "int16", "int4", _NEVER),
    Demand("DEPTHWISE_CONV_2D", "", "int2", _NEVER),
    Demand("DEPTHWISE_CONV_2D", "int16", "int8", 5),
    Demand("DEPTHWISE_CONV_2D", "int8", "int4", 7),
    Demand("TRANSPOSE_CONV", "float32", "int8", Floor("2.18.0", "1.0.1")),
    Demand("TRANSPOSE_CONV", "", "int4", _NEVER),
    Demand("TRANSPOSE_CONV", "", "int2", _NEVER),
    Demand("DEQUANTIZE", "float16", "", 3),
    Demand("DEQUANTIZE", "int8", "", 5, per_channel=True),
    Demand("DEQUANTIZE", "int4", "", 6),
    Demand("DEQUANTIZE", "int2", "", 7),
    Demand("EMBEDDING_LOOKUP", "", "int4", 4),
    Demand("EMBEDDING_LOOKUP", "", "int2", 5),
)
# What one set of a release's kernels knows less of than the release.
_LACKING = {"litert-reference": {"DEPTHWISE_CONV_2D": 6}}
_COMPUTING = (
    "FULLY_CONNECTED",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "SVDF",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)


@dataclass(frozen=True)
class Requirement:
    """An operator and the first TensorFlow Lite that runs it as the file has it; `needs` "" where none is known."""

    operator: str
    version: int
    needs: str


@dataclass(frozen=True)
class RuntimeNeed:
    """The oldest runtime that loads a file.

    Attributes:
        version: of TensorFlow Lite, tf.lite and tflite-runtime; "" when no known one does.
        litert: oldest release of ai-edge-litert known to; None when no known one does.
        because: the operators that set it.
    """

    version: str
    litert: str | None
    because: tuple[Requirement, ...]


def minimum_runtime(model: TFLiteModel) -> RuntimeNeed:
    """Returns the oldest runtime that loads and computes the model."""
    requirements = {Requirement(name, version, _first_tflite(name, version)) for name, version in _versions(model)}
    requirements |= {
        Requirement(operator.name, operator.version, demand.needs.tflite)
        for operator, demand in _demands(model)
        if isinstance(demand.needs, Floor)
    }
    litert = next((release for release in _table()["litert"] if not unsupported_by(model, "litert", release)), None)
    customs = {c.name for c in model.codes if c.custom and c.name not in _CUSTOM_OPERATORS["tflite"]}
    unknown = [r for r in requirements if not r.needs] + [Requirement(name, 1, "") for name in customs]
    if unknown:
        return RuntimeNeed("", litert, tuple(sorted(unknown, key=lambda r: r.operator)))
    highest = max((_numbers(r.needs) for r in requirements), default=(0, 0, 0))
    because = [r for r in requirements if _numbers(r.needs) == highest]
    return RuntimeNeed(_short(highest), litert, tuple(sorted(because, key=lambda r: (r.operator, r.version))))


def unsupported_by(model: TFLiteModel, package: str, version: str = "") -> tuple[str, ...]:
    """Returns why a release cannot run the model, in words, one reason each; empty when nothing speaks against it.

    Args:
        package: a key of PACKAGES.
        version: such as "2.14"; not looked at for tflm. "" is the newest known.

    Raises:
        ConfigError: an unknown package, or a version that is none.
    """
    if package not in PACKAGES:
        raise ConfigError(f"Expected a runtime package, got {package!r}.{suggestion(package, PACKAGES)}")
    counting = PACKAGES[package]
    reasons = [
        f"custom operator {code.name!r} is not part of {package}"
        for code in model.codes
        if code.custom and code.name not in _CUSTOM_OPERATORS[counting]
    ]
    if counting == "tflm":
        return tuple(reasons + list(dict.fromkeys(_refused_by_tflm(model))))
    strays = [t for graph in model.subgraphs for t in graph.tensors if t.stray_dimension is not None]
    if strays:
        # As converters of 2019 wrote of biases; TFLM looks at it of weights alone.
        reasons.append(
            f"{package} refuses {strays[0].name!r} of {len(strays[0].shape)} dimensions, which is quantized along "
            f"dimension {strays[0].stray_dimension}"
        )
    release = _numbers(version) if version else (999, 0, 0)
    called = f"{package} {version}".strip()
    for name, needed in sorted(_versions(model)):
        highest = min(_highest(counting, name, release), _LACKING.get(package, {}).get(name, needed))
        if highest < needed:
            first = _first_tflite(name, needed)
            needs = f"TensorFlow Lite {_short(_numbers(first))}" if first else "a runtime that is not known yet"
            has = f"has up to {highest}" if highest else "has no such operator"
            reasons.append(f"{name} version {needed} needs {needs}, {called} {has}")
    for operator, demand in _demands(model):
        need = demand.needs
        if need == _NEVER:
            beside = f" and {demand.activations} activations" if demand.activations else ""
            reasons.append(f"no release computes {operator.name} with {demand.weights} weights{beside}")
        elif isinstance(need, Floor) and release < _numbers(getattr(need, counting)):
            reasons.append(f"{operator.name} on its types of weights needs {_named(counting, need)}, not {called}")
    return tuple(dict.fromkeys(reasons))


def truthful_versions(model: TFLiteModel) -> dict[int, int]:
    """Returns, for each operator code (by its index) that says too low a version, the one its operands demand."""
    found: dict[int, int] = {}
    for operator, demand in _demands(model):
        need = demand.needs
        if isinstance(need, int) and need > max(operator.version, found.get(operator.code, 0)):
            found[operator.code] = need
    return found


def _versions(model: TFLiteModel) -> set[tuple[str, int]]:
    written = {(code.name, code.version) for code in model.codes if not code.custom}
    return written | {
        (op.name, d.needs) for op, d in _demands(model) if isinstance(d.needs, int) and d.needs > op.version
    }


def _demands(model: TFLiteModel) -> Iterator[tuple[Operator, Demand]]:
    for graph in model.subgraphs:
        for operator in graph.operators:
            activations = graph.operand(operator, activations_position(operator))
            weights = activations if operator.name == "DEQUANTIZE" else graph.operand(operator, 1)
            if activations is None or weights is None:
                continue
            if weights.block_size:
                yield operator, Demand(operator.name, "", "", _BLOCKWISE)
            for demand in _demands_by_operator().get(operator.name, ()):
                if (
                    demand.activations in ("", activations.dtype)
                    and demand.weights in ("", weights.dtype)
                    and (weights.is_per_channel or not demand.per_channel)
                ):
                    yield operator, demand


@functools.cache
def _demands_by_operator() -> dict[str, list[Demand]]:
    by_operator: dict[str, list[Demand]] = {}
    for demand in DEMANDS:
        by_operator.setdefault(demand.operator, []).append(demand)
    return by_operator


def _refused_by_tflm(model: TFLiteModel) -> Iterator[str]:
    known = set(_table()["tflm"])
    if model.outside_bytes:
        yield "tflm finds no weights that lie behind the flatbuffer, and computes without them"
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.sparsity is not None:
                yield f"tflm reads the sparse-encoded {tensor.name!r} as if it were dense"
        for operator in graph.operators:
            if not operator.custom and operator.name not in known:
                yield f"{operator.name} is not among tflm's operators"
            yield from _refused_operands(graph, operator)


def _refused_operands(graph: Subgraph, operator: Operator) -> Iterator[str]:
    activations: Tensor | None = graph.operand(operator, activations_position(operator))
    weights = graph.operand(operator, 1)
    if activations is None:
        return
    if operator.name == "DEQUANTIZE":
        if activations.dtype not in ("int8", "int16", "uint8"):
            yield f"tflm's DEQUANTIZE takes no {activations.dtype}"
        elif activations.is_per_channel:
            yield "tflm's DEQUANTIZE reads one scale of weights that have one for each channel: wrong values"
    elif operator.name in _COMPUTING and weights is not None:
        if activations.dtype == "uint8":
            yield f"tflm's {operator.name} takes int8, not the uint8 of older files"
        elif activations.dtype == "float32" and not weights.is_float:
            yield f"tflm has no dynamic-range kernels: {operator.name} has float inputs and {weights.dtype} weights"
        elif weights.dtype == "int4" and (operator.name == "TRANSPOSE_CONV" or activations.dtype != "int8"):
            yield f"tflm's {operator.name} takes no int4 weights with {activations.dtype} inputs"
        elif weights.dtype == "int4" and operator.name == "FULLY_CONNECTED" and weights.is_per_channel:
            yield "tflm's FULLY_CONNECTED takes int4 weights with one scale only"
        elif weights.dtype == "int2":
            yield f"tflm's {operator.name} takes no int2 weights"


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("op_versions.json").read_text())


def _first_tflite(name: str, version: int) -> str:
    """Returns the first TensorFlow Lite with an operator version, "" when it is not known."""
    versions = _table()["tflite"].get(name, {})
    # BROADCAST_TO's versions start at 2; what loads a later version loads an earlier one.
    return next((first for number, first in versions.items() if int(number) >= version), "")


def _highest(counting: str, name: str, release: tuple[int, int, int]) -> int:
    """Returns the highest version of an operator that a release has, 0 when it lacks the operator."""
    if counting == "tflite":
        versions = _table()["tflite"].get(name, {})
        return max((int(number) for number, first in versions.items() if _numbers(first) <= release), default=0)
    rows = list(_table()["litert"].items())
    known = [row for number, row in rows if _numbers(number) <= release] or [rows[0][1]]
    return next((row[name] for row in reversed(known) if name in row), 0)


def _numbers(version: str) -> tuple[int, int, int]:
    match = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", version)
    if match is None:
        raise ConfigError(f"Expected a version such as 2.14, got {version!r}. Try NAME==VERSION, or NAME alone.")
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def _short(numbers: tuple[int, int, int]) -> str:
    return ".".join(map(str, numbers if numbers[2] else numbers[:2]))


def _named(counting: str, need: Floor) -> str:
    return (
        f"ai-edge-litert {need.litert}" if counting == "litert" else f"TensorFlow Lite {_short(_numbers(need.tflite))}"
    )
