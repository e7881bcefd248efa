"""An `.onnx` file goes in, FileFacts come out.

The onnx package reads it in a worker: its shape inference is native code, and the file may be anybody's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks, workers
from edgeopt.errors import ModelError
from edgeopt.formats.contract import FileFacts, OperatorFacts
from edgeopt.vocabulary import Quantization, StoredWeight, TensorSpec

# The key of a model's metadata under which stands what scale integer inputs and outputs have: ONNX has no place for it.
QUANTIZATION = "edgeopt.quantization"

# The operator set of the files that we make: what onnxruntime 1.12, of 2022, knows.
OPSET = 17

# The newest that tf2onnx writes.
NEWEST_OPSET = 18

# The oldest operator set that onnxruntime promises to run.
OLDEST_OPSET = 7

# Dtypes of inputs that NumPy has by itself.
FED = frozenset(
    {"bool", "float16", "float32", "float64", *(f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64))}
)

# Operator → where its trained operands stand, and its bias.
_KERNELS = {
    "Conv": (1,),
    "FusedConv": (1,),
    "ConvTranspose": (1,),
    "ConvInteger": (1,),
    "QLinearConv": (3,),
    "Gemm": (1,),
    "MatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "MatMulInteger": (1,),
    "MatMulNBits": (1,),
    "QLinearMatMul": (3,),
    "QGemm": (3,),
    "Gather": (0,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "PRelu": (1,),
    "Einsum": (0, 1, 2, 3),
    "Attention": (1,),
}
_BIASES = {
    "Conv": 2,
    "FusedConv": 2,
    "ConvTranspose": 2,
    "QLinearConv": 8,
    "Gemm": 2,
    "QGemm": 6,
    "LSTM": 3,
    "GRU": 3,
    "RNN": 3,
    "Attention": 2,
}
_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "QLinearConv", "ConvInteger"})
_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul"})
# Operators that onnxruntime added → the one of ONNX whose result has the same shape, and where its operands stand:
# ONNX's shape inference knows no other, and ends at each.
_SAME_SHAPE = {
    "FusedConv": ("Conv", (0, 1)),
    "FusedMatMul": ("MatMul", (0, 1)),
    "Gelu": ("Relu", (0,)),
    "FastGelu": ("Relu", (0,)),
    "QuickGelu": ("Relu", (0,)),
    "QGemm": ("Gemm", (0, 3)),
    "QuantizeLinear": ("QuantizeLinear", (0, 1, 2)),
    "DequantizeLinear": ("DequantizeLinear", (0, 1, 2)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Relu", (0,)),
    "QLinearLeakyRelu": ("Relu", (0,)),
    "QLinearSoftmax": ("Relu", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearAveragePool": ("AveragePool", (0,)),
}
_KINDS = {
    "ConvTranspose": "transposed",
    "Gemm": "dense",
    "QGemm": "dense",
    "MatMulNBits": "dense",
    "Gather": "embedding",
    "Einsum": "dense",
    "Attention": "attention",
    "MultiHeadAttention": "attention",
    "LSTM": "recurrent",
    "GRU": "recurrent",
    "RNN": "recurrent",
    "Loop": "loop",
    "Scan": "loop",
}
# Kernels that onnxruntime fuses with the operator before them: they compute in its numbers.
_FUSED = frozenset({"Relu", "Clip", "MaxPool"})
# So many operators may stand between two that belong together, such as a weight and what multiplies with it.
_FAR = 8
# They hand numbers on, whatever these are.
_CARRY = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"})
# onnxruntime → the newest operator set and IR version that it knows (onnxruntime's docs/Versioning.md, ONNX's own
# docs/Versioning.md); ends of ranges alone.
RELEASES: dict[str, tuple[int, int]] = {
    "1.0": (11, 6),
    "1.3": (12, 7),
    "1.6": (13, 7),
    "1.8": (14, 7),
    "1.10": (15, 8),
    "1.11": (16, 8),
    "1.12": (17, 8),
    "1.14": (18, 8),
    "1.15": (19, 9),
    "1.17": (20, 9),
    "1.18": (21, 10),
    "1.21": (22, 10),
    "1.23": (23, 11),
}
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def facts(path: Path) -> FileFacts:
    """Returns the facts of a file.

    Raises:
        ModelError: it cannot be read.
        UnavailableError: the onnx package is missing.
    """
    try:
        found: FileFacts = workers.shared("onnx").call("edgeopt.formats.onnx:facts_here", path)
    except workers.WorkerCrashed as crash:
        raise ModelError(
            f"Expected an .onnx file, got {path}, on which the onnx package died: {crash.reason}."
        ) from None
    return found


def facts_here(path: Path) -> FileFacts:
    """As `facts`, in this process."""
    graph = _Graph(path)
    weights = tuple(graph.stored.values())
    size = path.stat().st_size + graph.external_bytes
    kinds = Counter({"weights": 0, "biases": 0, "constants": 0})
    for weight in weights:
        kinds[weight.kind] += weight.size_bytes
    kinds["metadata"] = sum(len(p.key) + len(p.value) for p in graph.model.metadata_props)
    kinds["graph"] = size - kinds.total()
    operators = tuple(graph.operators())
    words = _in_words(graph, operators)
    return FileFacts(
        format="onnx",
        inputs=graph.inputs,
        outputs=graph.outputs,
        operators=operators,
        weights=weights,
        macs=sum(operator.macs for operator in operators),
        bytes_by_kind=dict(kinds),
        size_bytes=size,
        is_quantized=graph.is_quantized,
        read=partial(_values, path),
        computes=words,
        in_half=words.startswith("float16"),
        notes=tuple(_notes(graph)),
        input_tensors=tuple(spec.name for spec in graph.inputs),
        output_tensors=tuple(spec.name for spec in graph.outputs),
    )


@dataclass(frozen=True)
class Needs:
    """What a file asks of a runtime.

    Attributes:
        opset, ir_version: of the file.
        domains: of operators that are neither ONNX's nor onnxruntime's.
        inputs: dtypes of inputs that NumPy has no numbers of.
    """

    opset: int
    ir_version: int
    domains: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()


def needs(path: Path) -> Needs:
    """Returns what a file asks of a runtime.

    Raises:
        ModelError: it cannot be read.
    """
    found: Needs = workers.shared("onnx").call("edgeopt.formats.onnx:needs_here", path)
    return found


def needs_here(path: Path) -> Needs:
    """As `needs`, in this process."""
    graph = _Graph(path)
    strange = tuple(f"{spec.dtype} ({spec.name!r})" for spec in graph.inputs if spec.dtype not in FED)
    return Needs(_opset(graph.model), int(graph.model.ir_version), _strange_domains(graph.model), strange)


def opset_for(releases: Iterable[str]) -> int:
    """Returns the operator set of a file of ours that all these releases of onnxruntime shall load, OPSET at most."""
    known = [_known_by(release)[0] for release in releases]
    return max(OLDEST_OPSET, min([OPSET, *known]))


def _known_by(release: str) -> tuple[int, int]:
    """Returns the newest operator set and IR version that a release knows, 0 of one before RELEASES."""
    known = [row for name, row in RELEASES.items() if _release(name) <= _release(release)]
    return known[-1] if known else (0, 0)


def oldest_release(opset: int, ir_version: int) -> str:
    """Returns the first onnxruntime that knows both, "" where no known one does."""
    return next((name for name, (ops, ir) in RELEASES.items() if ops >= opset and ir >= ir_version), "")


def refused_by(asked: Needs, release: str) -> tuple[str, ...]:
    """Returns why an onnxruntime cannot run a file that asks for this, as far as can be told without it."""
    opset, ir_version = asked.opset, asked.ir_version
    newest_known = _release(release) >= _release(next(reversed(RELEASES)))
    opsets, versions = _known_by(release)
    found = [f"it has operators of {domain}, which need a library of their own" for domain in asked.domains]
    found += [f"it takes {kind}, no numbers that can be fed here" for kind in asked.inputs]
    if opset < OLDEST_OPSET:
        found.append(
            f"its operator set {opset} is older than {OLDEST_OPSET}, with which onnxruntime begins: "
            "onnx.version_converter brings it on"
        )
    if opset > opsets and not newest_known:
        found.append(f"its operator set {opset} is newer than {opsets}, the newest that onnxruntime {release} knows")
    if ir_version > versions and not newest_known:
        found.append(
            f"its IR version {ir_version} is newer than {versions}, the newest that onnxruntime {release} knows"
        )
    return tuple(found)


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def read_model(path: Path) -> Any:
    """Returns the ModelProto of a file, its external data left where they are, and checked.

    Raises:
        ModelError: it is missing, or no ONNX model; or external data are missing, or lie outside its folder.
    """
    onnx = frameworks.load("onnx")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"Expected an .onnx file, got {path}: {error.strerror}. Try the path of a file.") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception:  # protobuf's own, of whatever implementation
        model = onnx.ModelProto()
    if (
        not model.HasField("graph")
        or not model.ir_version
        or not model.opset_import
        or not all(map(_is_text, _graphs(model.graph)))
    ):
        raise ModelError(f"Expected an .onnx file, got {path}, which holds no ONNX model. Try `edgeopt convert`.")
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _external(path, tensor)
    return model


def _is_text(graph: Any) -> bool:
    """Whether all names are text: protobuf gives bytes in place of what is none."""
    values = (value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer))
    names = (name for node in graph.node for name in (node.op_type, node.domain, *node.input, *node.output))
    attributes = (attribute.name for node in graph.node for attribute in node.attribute)
    return all(isinstance(name, str) for some in (values, names, attributes) for name in some)


def _tensors(graph: Any) -> Iterator[Any]:
    """Yields every stored tensor, those of nodes and of the graphs inside nodes too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _tensors(inner)


def _external(path: Path, tensor: Any) -> int:
    """Returns the bytes of a tensor beside the file.

    Raises:
        ModelError: they are missing, or elsewhere.
    """
    said = {entry.key: entry.value for entry in tensor.external_data}
    folder, location = path.resolve().parent, said.get("location", "")
    beside = (folder / location).resolve()
    if not location or not beside.is_relative_to(folder):
        raise ModelError(
            f"Expected the weights of {path.name} in its own folder, got {location!r} for {tensor.name!r}. "
            "Try a file that holds its weights itself."
        )
    if not beside.is_file():
        raise ModelError(
            f"Expected {location} beside {path.name}, which holds the weights {tensor.name!r}, got no such file. "
            "Try copying both."
        )
    try:
        offset, length = int(said.get("offset") or 0), int(said.get("length") or beside.stat().st_size)
    except ValueError:
        offset, length = -1, 0
    if offset < 0 or length < 0 or offset + length > beside.stat().st_size:
        raise ModelError(f"Expected {tensor.name!r} inside {location}, got a place outside it. Try copying it anew.")
    return length


@dataclass(frozen=True)
class _Read:
    """A trained operand: the stored tensor, and the operator that brings it to real numbers, if there is one."""

    tensor: Any
    dequantize: Any = None


class _Graph:
    """The main graph of a file and those inside its nodes, with what is asked of them."""

    def __init__(self, path: Path) -> None:
        self._onnx = frameworks.load("onnx")
        self.path = path
        self.model = read_model(path)
        graph = self.model.graph
        # Those inside branches and loops come after those that run in any case.
        self._graphs = tuple(_graphs(graph))
        _name_apart(self._graphs)
        homes = [(node, number) for number, one in enumerate(self._graphs) for node in one.node]
        self.nodes: Sequence[Any] = [node for node, _ in homes]
        self._home = {id(node): number for node, number in homes}
        self._initializers = {tensor.name: tensor for one in self._graphs for tensor in one.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.output:
                for attribute in node.attribute:
                    if attribute.name == "value":
                        attribute.t.name = node.output[0]
                        self._initializers[node.output[0]] = attribute.t
        self._makers = {name: node for node in self.nodes for name in node.output}
        self._users: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self.external_bytes = sum(
            _external(path, tensor)
            for tensor in _tensors(graph)
            if tensor.data_location == self._onnx.TensorProto.EXTERNAL
        )

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        given = [value for value in self.model.graph.input if value.name not in self._initializers]
        return tuple(self._spec(value) for value in given)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(self._spec(value) for value in self.model.graph.output)

    @cached_property
    def is_quantized(self) -> bool:
        return any("Quantize" in node.op_type or _in_integers(node) for node in self.nodes) or any(
            node.op_type == "MatMulNBits" for node in self.nodes
        )

    @cached_property
    def _shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shapes by name, as far as they can be told."""
        onnx = self._onnx
        try:
            model = onnx.shape_inference.infer_shapes(_in_onnx_alone(self.model), data_prop=True)
        except Exception:  # what it raises of a damaged graph is of many kinds
            model = self.model
        shapes = {v.name: self._shape(v) for g in _graphs(model.graph) for v in (*g.input, *g.value_info, *g.output)}
        return {**shapes, **{name: tuple(tensor.dims) for name, tensor in self._initializers.items()}}

    def _shape(self, value: Any) -> tuple[int | None, ...]:
        dims = value.type.tensor_type.shape.dim
        return tuple(int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)

    def _spec(self, value: Any) -> TensorSpec:
        kind = value.type.WhichOneof("value") or "tensor_type"
        tensor = kind == "tensor_type"
        dtype = self._dtype(value.type.tensor_type.elem_type) if tensor else f"a {kind.removesuffix('_type')}"
        return TensorSpec(value.name, self._shape(value), dtype, quantizations(self.model).get(value.name))

    def _dtype(self, number: int) -> str:
        try:
            name = self._onnx.TensorProto.DataType.Name(number).lower()
        except ValueError:
            return f"unknown type {number}"
        return {"float": "float32", "double": "float64"}.get(name, name)

    def _operand(self, node: Any, position: int) -> _Read | None:
        """Returns the stored tensor behind an input of a node, through what only hands it on."""
        if position >= len(node.input):
            return None
        name, dequantize = node.input[position], None
        for _ in range(_FAR):
            if name in self._initializers:
                return _Read(self._initializers[name], dequantize)
            maker = self._makers.get(name)
            if maker is None or not maker.input:
                return None
            if maker.op_type == "DequantizeLinear":
                dequantize = maker
            elif maker.op_type not in _CARRY:
                return None
            name = maker.input[0]
        return None

    def _added_to(self, node: Any) -> _Read | None:
        """Returns the stored vector that a node adds to a product, which is a bias."""
        if node.op_type != "Add" or len(node.input) != 2:
            return None
        for product, position in ((node.input[0], 1), (node.input[1], 0)):
            maker = self._makers.get(product)
            if maker is not None and maker.op_type in {*_PRODUCTS, "MatMulNBits", *_CONVOLUTIONS}:
                read = self._operand(node, position)
                return read if read is not None and len(read.tensor.dims) == 1 else None
        return None

    @cached_property
    def stored(self) -> Mapping[str, StoredWeight]:
        """Everything that is stored, by name."""
        roles: dict[str, tuple[str, Any, _Read]] = {}
        for node in self.nodes:
            for position in _KERNELS.get(node.op_type, ()):
                if (read := self._operand(node, position)) is not None:
                    roles.setdefault(read.tensor.name, ("weights", node, read))
            if (bias := self._operand(node, _BIASES.get(node.op_type, len(node.input)))) is not None:
                roles.setdefault(bias.tensor.name, ("biases", node, bias))
            if (product := self._added_to(node)) is not None:
                roles.setdefault(product.tensor.name, ("biases", node, product))
        found = {}
        for name, tensor in self._initializers.items():
            if name in self._scaling:
                continue
            kind, node, read = roles.get(tensor.name, ("constants", None, _Read(tensor)))
            user = node or next(iter(self._users.get(name, ())), None)
            found[name] = self._weight(read, kind, user)
        return found

    @cached_property
    def _scaling(self) -> frozenset[str]:
        """Names of scales and zero points, which are no weights."""
        places = {name: node.op_type for node in self.nodes for name in node.input[1:3] if _converts(node)}
        linear = {name for node in self.nodes if _in_integers(node) for name in node.input}
        blocks = {name for node in self.nodes if node.op_type == "MatMulNBits" for name in node.input[2:4]}
        return frozenset(
            name
            for name in self._initializers
            if name in places or name in blocks or (name in linear and prod(self._initializers[name].dims) <= 1)
        )

    def _weight(self, read: _Read, kind: str, node: Any) -> StoredWeight:
        tensor = read.tensor
        dtype = self._dtype(tensor.data_type)
        elements = prod(tensor.dims)
        bits = _bits(dtype)
        common = {
            "name": tensor.name,
            "shape": tuple(tensor.dims),
            "dtype": dtype,
            "bits": bits,
            "kind": kind,
            "operator": node.op_type if node is not None else "",
            "elements": elements,
            "size_bytes": -(-elements * bits // 8),
            "scales": self._scales(read, node),
            "encoding": "",
        }
        if not bits or kind == "constants":
            return StoredWeight(**common, zeros=None, unique=None, unique_per_channel=None)
        values = _channels_first(_array(self.path, tensor), node)
        if node.op_type == "MatMulNBits" and values.size > elements // 2:
            packed = _attribute(node, "bits", 4)
            common |= {"dtype": f"int{packed}", "bits": packed, "elements": values.size, "shape": values.shape}
        zero = self._zero_points(read, values)
        per_channel = (
            max((len(np.unique(row)) for row in values.reshape(len(values), -1)), default=0) if values.ndim else 1
        )
        return StoredWeight(
            **common,
            zeros=int((values == zero).sum()),
            unique=len(np.unique(values)),
            unique_per_channel=per_channel if kind == "weights" else None,
        )

    def _scales(self, read: _Read, node: Any) -> int:
        if read.dequantize is not None and len(read.dequantize.input) > 1:
            return prod(self._shapes.get(read.dequantize.input[1], (1,)) or (1,))  # type: ignore[arg-type]
        positions = {"QLinearConv": 4, "QLinearMatMul": 4, "QGemm": 4, "MatMulNBits": 2}
        if (
            node is not None
            and node.op_type in positions
            and read.tensor.name == node.input[positions[node.op_type] - 1]
        ):
            return prod(self._shapes.get(node.input[positions[node.op_type]], (1,)) or (1,))  # type: ignore[arg-type]
        return 1 if node is not None and node.op_type.endswith("Integer") else 0

    def _zero_points(self, read: _Read, values: np.ndarray) -> Any:
        if read.dequantize is None or len(read.dequantize.input) < 3:
            return 0
        tensor = self._initializers.get(read.dequantize.input[2])
        points = np.zeros(1) if tensor is None else _array(self.path, tensor).reshape(-1)
        if points.size in (1, len(values) if values.ndim else 1):
            return points.reshape(-1, *(1,) * (values.ndim - 1)) if points.size > 1 else points[0]
        return 0

    def operators(self) -> Iterator[OperatorFacts]:
        """Yields the operators in their order, but for constants and what only unpacks one."""
        for node in self.nodes:
            if node.op_type == "Constant" or (_converts(node) and node.input[0] in self._initializers):
                continue
            result = node.output[0] if node.output else ""
            own = [self._operand(node, position) for position in _KERNELS.get(node.op_type, ())]
            own.append(self._operand(node, _BIASES.get(node.op_type, len(node.input))))
            weights = tuple(dict.fromkeys(read.tensor.name for read in own if read is not None))
            yield OperatorFacts(
                name=node.op_type,
                layer=result,
                output_shape=self._shapes.get(result, ()),
                float_arithmetic=self._in_floats(node),
                macs=self._macs(node),
                weights=tuple(self.stored[name] for name in weights if name in self.stored),
                graph=self._home[id(node)],
                kind=self._kind(node),
                reads=tuple(name for name in node.input if name and name not in self._initializers),
                writes=tuple(name for name in node.output if name),
            )

    def _in_floats(self, node: Any) -> bool:
        """Whether a node computes in floats: what stands between two conversions onnxruntime fuses into integers."""
        for _ in range(_FAR):
            if node.op_type not in _FUSED or not node.input or node.input[0] not in self._makers:
                break
            node = self._makers[node.input[0]]
        if _converts(node) or node.op_type in _CARRY:
            return False
        if _in_integers(node):
            return False
        if not self.is_quantized:
            return True
        taken = [name for name in node.input if name and name not in self._initializers]
        return not (all(map(self._was_integer, taken)) and all(map(self._becomes_integer, node.output)))

    def _was_integer(self, name: str) -> bool:
        """Whether a tensor was made of integers just before."""
        for _ in range(_FAR):
            node = self._makers.get(name)
            if node is None or node.op_type == "DequantizeLinear":
                return node is not None
            if node.op_type not in _CARRY | _FUSED or not node.input:
                return False
            name = node.input[0]
        return False

    def _becomes_integer(self, name: str) -> bool:
        """Whether all that reads a tensor makes integers of it, after an activation at most."""
        waiting = [name]
        for _ in range(_FAR):
            users = [user for one in waiting for user in self._users.get(one, ())]
            if not users or any(user.op_type not in _CARRY | _FUSED | {"QuantizeLinear"} for user in users):
                return False
            waiting = [out for user in users if user.op_type != "QuantizeLinear" for out in user.output]
            if not waiting:
                return True
        return False

    def _kind(self, node: Any) -> str:
        if node.op_type in _CONVOLUTIONS:
            kernel = self._shapes.get(node.input[_KERNELS[node.op_type][0]]) or self._operand_shape(node)
            group = _attribute(node, "group", 1)
            if kernel and group > 1 and kernel[1] == 1:
                return "depthwise"
            return "pointwise" if kernel and prod(k or 1 for k in kernel[2:]) == 1 else "convolution"
        if node.op_type in _PRODUCTS:
            stored = any(self._operand(node, position) for position in _KERNELS[node.op_type])
            return "dense" if stored else "attention"
        if node.op_type == "Gather" and self._operand(node, 0) is None:
            return "other"
        return _KINDS.get(node.op_type, "other")

    def _operand_shape(self, node: Any) -> tuple[int, ...]:
        read = self._operand(node, _KERNELS[node.op_type][0])
        return tuple(read.tensor.dims) if read else ()

    def _macs(self, node: Any) -> int:
        """Returns the multiply-accumulates of one inference, free dimensions as 1."""
        out = prod(n or 1 for n in self._shapes.get(node.output[0], ())) if node.output else 0
        kernel = self._operand_shape(node) if node.op_type in _KERNELS else ()
        if node.op_type in _CONVOLUTIONS and kernel:
            return out * prod(kernel[1:])
        if node.op_type == "ConvTranspose" and kernel:
            taken = prod(n or 1 for n in self._shapes.get(node.input[0], ()))
            return taken * prod(kernel[1:])
        if node.op_type == "MatMulNBits":
            return out * int(_attribute(node, "K", 0))
        if node.op_type in {"Gemm", "QGemm", *_PRODUCTS}:
            shape = self._shapes.get(node.input[0], ())
            inner = shape[0 if _attribute(node, "transA", 0) else -1] if shape else 1
            return out * (inner or 1)
        if node.op_type == "Einsum":
            return self._einsum_macs(node)
        if node.op_type in ("Attention", "MultiHeadAttention"):
            return self._attention_macs(node)
        if node.op_type in ("LSTM", "GRU", "RNN"):
            steps = (self._shapes.get(node.input[0]) or (1,))[0] or 1
            kernels = [self._operand(node, position) for position in (1, 2)]
            return steps * sum(prod(read.tensor.dims) for read in kernels if read is not None)
        return 0

    def _einsum_macs(self, node: Any) -> int:
        """Returns the product of the sizes of all its indices; what stands behind an ellipsis is not told."""
        equation = next((a.s.decode("utf-8", "replace") for a in node.attribute if a.name == "equation"), "")
        sizes: dict[str, int] = {}
        for term, name in zip(equation.partition("->")[0].split(","), node.input):
            letters, shape = term.replace(" ", ""), self._shapes.get(name, ())
            if "..." not in letters and len(letters) == len(shape):
                sizes.update({letter: size or 1 for letter, size in zip(letters, shape)})
        return prod(sizes.values()) if len(node.input) > 1 and sizes else 0

    def _attention_macs(self, node: Any) -> int:
        """Returns those of queries with keys, of that with values, and of stored projections where it has them."""
        query = [n or 1 for n in self._shapes.get(node.input[0], ())] or [1]
        keys = [n or 1 for n in self._shapes.get(node.input[1], ())] if len(node.input) > 1 else []
        stored = self._operand(node, 1)
        if stored is not None:  # [hidden, 3 hidden] for queries, keys and values
            rows, steps = prod(query[:-1]), (query[-2:-1] or [1])[0]
            return rows * prod(stored.tensor.dims) + 2 * rows * steps * (stored.tensor.dims[-1] // 3)
        return 2 * prod(query) * (keys[-2] if len(keys) > 1 else 1)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yields a graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _graphs(inner)


def _name_apart(graphs: Sequence[Any]) -> None:
    """Gives what two branches call alike a name for each, in this copy of the model."""
    seen: set[str] = set()
    for number, graph in enumerate(graphs):
        own = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
        new = {name: f"{name}@{number}" for name in own if name in seen}
        seen.update(new.get(name, name) for name in own)
        if not new:
            continue
        for inner in _graphs(graph):
            for value in (*inner.initializer, *inner.value_info, *inner.output):
                value.name = new.get(value.name, value.name)
            for node in inner.node:
                node.input[:] = [new.get(name, name) for name in node.input]
                node.output[:] = [new.get(name, name) for name in node.output]


def quantizations(model: Any) -> dict[str, Quantization]:
    """Returns what scale integer inputs and outputs have, by name, where we wrote the file."""
    text = next((p.value for p in model.metadata_props if p.key == QUANTIZATION), "{}")
    try:
        return {
            str(name): Quantization((float(scale),), (int(zero),), None)
            for name, (scale, zero) in json.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def _in_onnx_alone(model: Any) -> Any:
    """Returns a model of the same shapes without operators that onnxruntime added, as far as these have a like."""
    if not any(node.domain == "com.microsoft" for node in model.graph.node):
        return model
    copy = type(model)()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type == "MatMulNBits":  # as the product of the weights that it unpacks
            unpacked = copy.graph.input.add(name=f"{node.output[0]}_unpacked")
            unpacked.type.tensor_type.elem_type = 1  # float
            for size in (_attribute(node, "K", 0), _attribute(node, "N", 0)):
                unpacked.type.tensor_type.shape.dim.add(dim_value=size)
            node.op_type, node.domain = "MatMul", ""
            node.input[:] = [node.input[0], unpacked.name]
            del node.attribute[:]
        if node.op_type in _SAME_SHAPE and node.domain == "com.microsoft":
            kind, places = _SAME_SHAPE[node.op_type]
            node.op_type, node.domain = kind, ""
            node.input[:] = [node.input[place] for place in places if place < len(node.input)]
    return copy


def _in_integers(node: Any) -> bool:
    """Whether an operator multiplies integers by its name alone."""
    return node.op_type.startswith("QLinear") or node.op_type.endswith("Integer") or node.op_type == "QGemm"


def _unpacked(values: np.ndarray, node: Any) -> np.ndarray:
    """Returns what MatMulNBits packs into bytes, the lowest bits first, as integers [N, K] around 0."""
    bits, columns = _attribute(node, "bits", 4), _attribute(node, "K", 0)
    if bits not in (2, 4, 8) or values.dtype != np.uint8 or values.ndim < 2:
        return values
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (values.reshape(len(values), -1, 1) >> shifts) & np.uint8(2**bits - 1)
    return parts.reshape(len(values), -1)[:, :columns].astype(np.int16) - np.int16(2 ** (bits - 1))


def _converts(node: Any) -> bool:
    return node.op_type in ("QuantizeLinear", "DequantizeLinear")


def _opset(model: Any) -> int:
    return max((int(row.version) for row in model.opset_import if row.domain in ("", "ai.onnx")), default=1)


def _strange_domains(model: Any) -> tuple[str, ...]:
    return tuple(sorted({node.domain for graph in _graphs(model.graph) for node in graph.node} - _DOMAINS))


def _notes(graph: _Graph) -> Iterator[str]:
    opset, ir_version = _opset(graph.model), int(graph.model.ir_version)
    oldest = oldest_release(opset, ir_version)
    loads = f"loads from onnxruntime {oldest} on" if oldest else "newer than every onnxruntime that is known here"
    yield f"operator set {opset}, IR version {ir_version}: {loads}"
    if graph.external_bytes:
        yield f"{graph.external_bytes:,} bytes of weights lie beside the file"
    if strange := _strange_domains(graph.model):
        yield f"operators of {', '.join(strange)}, which onnxruntime has only with a library of their own"


def _in_words(graph: _Graph, operators: Sequence[OperatorFacts]) -> str:
    """Names a file by what its operators compute with."""
    trained = [weight for weight in graph.stored.values() if weight.kind == "weights"]
    stored = Counter(weight.dtype for weight in trained)
    interface = {spec.dtype for spec in (*graph.inputs, *graph.outputs)}
    if not graph.is_quantized:
        return " and ".join(name for name, _ in stored.most_common()) or _of_floats(interface, operators)
    if any(node.op_type == "DynamicQuantizeLinear" for node in graph.nodes):
        return "dynamic range: int8 weights, activations quantized at each inference"
    computing = [operator for operator in operators if operator.weights]
    floats = Counter(operator.name for operator in computing if operator.float_arithmetic)
    widest = stored.most_common(1)[0][0] if stored else "int8"
    if len(floats) and floats.total() == len(computing):
        return f"weight-only {widest}: widened to float32 at each inference"
    words = f"full {widest}" if not floats else f"mixed: {widest}; float32 {_counted(floats)}"
    return words + (", float32 inputs and outputs" if interface == {"float32"} else "")


def _of_floats(interface: set[str], operators: Sequence[OperatorFacts]) -> str:
    """Names what a graph without weights computes with."""
    floats = sorted(name for name in interface if "float" in name)
    computes = any(operator.float_arithmetic for operator in operators)
    return " and ".join(floats) if computes and floats else "no arithmetic"


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in names.most_common())


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _bits(dtype: str) -> int:
    if dtype == "bool":
        return 8
    digits = "".join(filter(str.isdigit, dtype.partition("e")[0]))
    return int(digits) if digits else 0


def _array(path: Path, tensor: Any) -> np.ndarray:
    onnx = frameworks.load("onnx")
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor, base_dir=str(path.resolve().parent)))
    except Exception as error:  # of many kinds, for a tensor whose bytes are not those of its shape
        raise ModelError(
            f"Expected {path.name} to hold the values of {tensor.name!r}, got bytes that are not those of its shape "
            f"{list(tensor.dims)}. Try converting it anew."
        ) from error


def _channels_first(values: np.ndarray, node: Any) -> np.ndarray:
    """Returns weights [output channels, …, input channels], as every format's facts have them."""
    if node.op_type in _CONVOLUTIONS and values.ndim > 2:
        return np.moveaxis(values, 1, -1)
    if node.op_type == "ConvTranspose" and values.ndim > 2:
        return np.moveaxis(np.swapaxes(values, 0, 1), 1, -1)
    if node.op_type == "MatMulNBits":
        return _unpacked(values, node)
    turned = {"Gemm": not _attribute(node, "transB", 0)}
    if node.op_type in {"Gemm", "QGemm", *_PRODUCTS}:
        return np.swapaxes(values, -1, 0) if values.ndim > 1 and turned.get(node.op_type, True) else values
    return values


def _values(path: Path, weight: StoredWeight) -> np.ndarray:
    """Returns the stored values, [output channels, …, input channels].

    Raises:
        ModelError: the file is another one by now.
    """
    found: np.ndarray = workers.shared("onnx").call("edgeopt.formats.onnx:values_here", path, weight)
    return found


def values_here(path: Path, weight: StoredWeight) -> np.ndarray:
    """As `FileFacts.values`, in this process."""
    graph = _Graph(path)
    tensor = graph._initializers.get(weight.name)
    if tensor is None or graph.stored.get(weight.name) != weight:
        raise ModelError(
            f"Expected the weight {weight.name!r} in the file where it was found, got another file there. Try again, "
            "and write files under new names or in one piece."
        )
    node = next((n for n in graph.nodes for p in _KERNELS.get(n.op_type, ()) if _same(graph, n, p, tensor)), None)
    values = _array(path, tensor)
    return _channels_first(values, node) if node is not None and weight.kind == "weights" else values


def _same(graph: _Graph, node: Any, position: int, tensor: Any) -> bool:
    read = graph._operand(node, position)
    return read is not None and read.tensor is tensor
