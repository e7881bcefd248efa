"""A flat model, samples and a number of bits go in; the same function, its weights scaled by what they meet, comes out.

Inputs of a layer that are large on real samples make the rounding of their weights costly. They are divided by a number
a channel in whatever makes them, the gain of a normalization or the columns of another matrix, and the layer's weights
multiplied by it, so that those are rounded more finely: AWQ, Lin et al. 2023 (arXiv 2306.00978). The numbers are powers
of the mean size of a channel; which power is chosen by the error of the outputs, whose quadratic form the covariance of
the inputs is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import frameworks, graph, progress
from edgeopt.errors import ConfigError, setting
from edgeopt.tflite.weight_grid import nearest

TASK = "scaling by activations"
# Of the mean size of a channel; 0 leaves all as it is.
_POWERS = np.linspace(0.0, 1.0, 20, endpoint=False)
_LEAST_SCALE = 1e-4
# Of the error: where less is won, what later layers make of it decides, and a decoder without large channels got worse.
_WORTHWHILE = 0.9
# Activations of a Dense layer that pass a scale above 0 on.
_HOMOGENEOUS = ("linear", "relu")


@dataclass(frozen=True, eq=False)
class Kernel:
    """A variable of weights; its first `inputs` axes are summed over, which the others are made by."""

    variable: Any
    inputs: int

    @property
    def matrix(self) -> np.ndarray:
        """The weights as [outputs, inputs], as a FULLY_CONNECTED stores them."""
        value = _value(self.variable)
        return value.reshape(int(np.prod(value.shape[: self.inputs])), -1).T


@dataclass(frozen=True, eq=False)
class Site:
    """Channels that may be divided by any numbers.

    Attributes:
        name: of what makes them.
        kind: its class.
        makers: variables whose last axes are these channels: they are divided.
        readers: weights that meet them: they are multiplied.
        reason: why they may not, "" where they may.
    """

    name: str
    kind: str
    makers: tuple[Any, ...] = ()
    readers: tuple[Kernel, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Scaled:
    """What became of a site: the power that was taken, and the error of what reads it before and after.

    Errors are shares of the outputs' mean square, the mean over the readers, with weights of as few bits as were asked
    for.
    """

    site: Site
    power: float
    before: float
    after: float


@dataclass
class _Sums:
    """Sums over what a site's channels are on samples."""

    count: int = 0
    sizes: np.ndarray | float = 0.0
    products: np.ndarray | float = 0.0

    def add(self, values: np.ndarray) -> None:
        self.count += len(values)
        self.sizes = self.sizes + np.abs(values).sum(0, dtype=np.float64)
        self.products = self.products + (values.T @ values).astype(np.float64)


def scale(
    model: Any, batches: Callable[[], Iterator[Sequence[np.ndarray]]], *, bits: int, group: int
) -> tuple[tuple[Scaled, ...], tuple[Site, ...]]:
    """Scales the weights of a flat tf_keras model in place, and says what was done and what was left.

    Args:
        model: flat, functional.
        batches: gives samples, an array for each input, anew at each call.
        bits: of the weights that it is scaled for.
        group: numbers in a row that share a step; 0 where all of them do.

    Raises:
        ConfigError: rows of weights do not divide into groups.
    """
    sites = find(model)
    able = {key: site for key, site in sites.items() if not site.reason}
    _require_groups(able.values(), group)
    sums = _measured(model, able, batches)
    done = []
    for number, (key, site) in enumerate(able.items()):
        progress.tell(TASK, number, len(able), site.name)
        done.append(_scaled(site, sums[key], bits, group))
    progress.tell(TASK, len(able), len(able))
    return tuple(done), tuple(site for site in sites.values() if site.reason)


def find(model: Any) -> dict[int, Site]:
    """Returns the sites of a flat model by id of the tensor that holds their channels, or of the layer inside which.

    They are the channels that a normalization makes for linear layers alone, that a Dense layer without a bend makes
    for such layers, and that go between the values and the output of an attention.
    """
    calls = graph.flat_calls(model)
    outputs = {id(tensor) for _, tensor in graph.output_names(model)}
    readers: dict[int, list[graph.Call]] = {}
    for call in calls:
        for leaf in {id(leaf): leaf for leaf in graph.leaves((call.args, call.kwargs))}.values():
            readers.setdefault(id(leaf), []).append(call)
    uses: dict[int, int] = {}
    for call in calls:
        uses[id(call.layer)] = uses.get(id(call.layer), 0) + 1
    found: dict[int, Site] = {}
    for call in calls:
        layer = inner(call.layer)
        kind = type(layer).__name__
        if attends(layer):
            found[id(call.layer)] = _between(call.name, layer)
        makers = _makers(layer, kind)
        if makers is None or not readers.get(id(call.outputs[0])):
            continue
        tensor = call.outputs[0]
        reason, kernels = "", []
        for reader in readers[id(tensor)]:
            read = _read(reader, tensor)
            if not read:
                reason = f"{reader.name} ({type(inner(reader.layer)).__name__}) reads it, too"
            kernels += read or []
        if id(tensor) in outputs:
            reason = "it is an output of the model"
        if uses[id(call.layer)] > 1 or any(uses[id(reader.layer)] > 1 for reader in readers[id(tensor)]):
            reason = "a layer is called more than once"
        if kind == "Dense" and reason:
            continue  # what bends, adds or ends behind a Dense layer is the rule
        found[id(tensor)] = Site(call.name, kind, makers, tuple(kernels), reason)
    return found


def inner(layer: Any) -> Any:
    """Returns the Keras 3 layer that a tf_keras layer holds, or the layer itself."""
    return getattr(layer, "layer", layer) if type(layer).__name__ == "KerasLayer" else layer


def attends(layer: Any) -> bool:
    """Whether it is one of Keras's attention layers with projections of their own."""
    return all(hasattr(layer, name) for name in ("_query_dense", "_key_dense", "_value_dense", "_output_dense"))


def _makers(layer: Any, kind: str) -> tuple[Any, ...] | None:
    """Returns the variables that a layer's outputs are made of, by channels of the last axis; None where none are."""
    if kind == "LayerNormalization" and _last_alone(layer):
        found = (layer.gamma, layer.beta)
        return tuple(one for one in found if one is not None) if layer.gamma is not None else None
    if kind == "RMSNormalization" and _last_alone(layer):
        return (layer.scale,)
    if kind == "Dense" and getattr(layer.activation, "__name__", "") in _HOMOGENEOUS:
        return (layer.kernel, *([layer.bias] if layer.bias is not None else []))
    return None


def _last_alone(layer: Any) -> bool:
    axis = layer.axis if isinstance(layer.axis, int) else next(iter(layer.axis)) if len(layer.axis) == 1 else None
    rank = len((layer.gamma if hasattr(layer, "gamma") else layer.scale).shape) if axis is not None else 0
    return axis is not None and rank == 1


def _read(call: graph.Call, tensor: Any) -> list[Kernel] | None:
    """Returns the weights that multiply a tensor's last axis in a call; None where it does anything else with it."""
    layer = inner(call.layer)
    kind = type(layer).__name__
    if kind == "Dense":
        return [Kernel(layer.kernel, 1)]
    if kind == "EinsumDense":
        return [Kernel(layer.kernel, 1)] if _sums_last(layer.equation) else None
    if attends(layer):
        given = dict(zip(("query", "value", "key"), call.args)) | dict(call.kwargs)
        given["key"] = given["value"] if given.get("key") is None else given["key"]
        if any(value is tensor for name, value in given.items() if name not in ("query", "value", "key")):
            return None
        names = [name for name in ("query", "value", "key") if given.get(name) is tensor]
        gate = getattr(layer, "_gate_dense", None)
        kernels = [Kernel(getattr(layer, f"_{name}_dense").kernel, 1) for name in names]
        return kernels + ([Kernel(gate.kernel, 1)] if gate is not None and "query" in names else [])
    return None


def _sums_last(equation: str) -> bool:
    """Whether an einsum of an input and a kernel sums the input's last axis with the kernel's first, and no other."""
    left, _, result = equation.replace(" ", "").replace("...", "").partition("->")
    given, _, kernel = left.partition(",")
    return bool(given and kernel) and [letter for letter in kernel if letter not in result] == [given[-1]] == [
        kernel[0]
    ]


def _between(name: str, layer: Any) -> Site:
    """Returns the channels between the values and the output of an attention layer."""
    name, kind = f"{name} (values)", type(layer).__name__
    value, output = layer._value_dense, layer._output_dense
    if tuple(value.kernel.shape[1:]) != tuple(output.kernel.shape[:2]):
        return Site(name, kind, reason="several heads share one of values")
    if getattr(layer, "_gate_dense", None) is not None:
        return Site(name, kind, reason="a gate multiplies it")
    if type(layer).__module__.startswith("keras."):
        return Site(name, kind, reason="tf_keras has no such layer, whose inside would be seen")
    makers = (value.kernel, *([value.bias] if value.bias is not None else []))
    return Site(name, kind, makers, (Kernel(output.kernel, 2),))


def _measured(
    model: Any, sites: dict[int, Site], batches: Callable[[], Iterator[Sequence[np.ndarray]]]
) -> dict[int, _Sums]:
    """Returns the sums over what the channels of each site are on samples."""
    tf = frameworks.load("tensorflow")
    sums = {key: _Sums() for key in sites}

    def note(key: int, values: Any) -> None:
        channels = int(np.prod(sites[key].makers[-1].shape))
        sums[key].add(np.asarray(values, np.float32).reshape(-1, channels))

    def step(call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if id(call.layer) in sites:
            return attended(call.layer, args, kwargs, lambda values: note(id(call.layer), values))
        result = call.layer(*args, **kwargs)
        if len(call.outputs) == 1 and id(call.outputs[0]) in sites:
            note(id(call.outputs[0]), result)
        return result

    for batch in batches():
        graph.walk(model, [tf.constant(array) for array in batch], step)
    return sums


def attended(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], see: Callable[[Any], None]) -> Any:
    """Calls a tf_keras MultiHeadAttention in inference; `see` gets what its output projection reads."""
    given = dict(zip(("query", "value", "key", "attention_mask"), args)) | kwargs
    query, value = given["query"], given["value"]
    key = value if given.get("key") is None else given["key"]
    mask = layer._compute_attention_mask(
        query,
        value,
        key=key,
        attention_mask=given.get("attention_mask"),
        use_causal_mask=given.get("use_causal_mask", False),
    )
    projected = (layer._query_dense(query), layer._key_dense(key), layer._value_dense(value))
    output, scores = layer._compute_attention(*projected, mask, False)
    see(output)
    result = layer._output_dense(output)
    return (result, scores) if given.get("return_attention_scores") else result


def _scaled(site: Site, sums: _Sums, bits: int, group: int) -> Scaled:
    """Searches the power of a site, and divides and multiplies its weights."""
    count = max(1, sums.count)
    sizes, hessian = np.asarray(sums.sizes) / count, np.asarray(sums.products) / count
    matrices = [kernel.matrix.astype(np.float64) for kernel in site.readers]
    # Each reader in its own measure: queries and keys are large, and what they lose is softened.
    wholes = [_quadratic(matrix, hessian) or 1.0 for matrix in matrices]
    best, least, first = np.ones_like(sizes), 0.0, 0.0
    power = 0.0
    for tried in _POWERS:
        scales = _scales(sizes, tried)
        lost = [_quadratic(_rounded(m * scales, bits, group) / scales - m, hessian) for m in matrices]
        error = float(np.mean([one / whole for one, whole in zip(lost, wholes)]))
        if tried == 0:
            first = least = error
        elif error < least and error < _WORTHWHILE * first:
            best, least, power = scales, error, float(tried)
    for variable in site.makers:
        value = _value(variable)
        variable.assign((value / best.reshape(_channels(variable, best.size))).astype(np.float32))
    for kernel in site.readers:
        value = _value(kernel.variable)
        along = value.shape[: kernel.inputs] + (1,) * (value.ndim - kernel.inputs)
        kernel.variable.assign((value * best.reshape(along)).astype(np.float32))
    return Scaled(site, power, first, least)


def _scales(sizes: np.ndarray, power: float) -> np.ndarray:
    """Returns sizes to a power, the largest as far above 1 as the smallest below."""
    found = np.maximum(sizes, _LEAST_SCALE) ** power
    result: np.ndarray = found / np.sqrt(found.max() * found.min())
    return result


def _channels(variable: Any, count: int) -> tuple[int, ...]:
    """Returns the shape in which `count` channels lie along a variable's last axes."""
    shape, rest = tuple(variable.shape), list[int]()
    while int(np.prod(rest or [1])) < count:
        rest.insert(0, int(shape[len(shape) - len(rest) - 1]))
    return tuple(rest)


def _rounded(matrix: np.ndarray, bits: int, group: int) -> np.ndarray:
    """Returns [outputs, inputs] as its nearest integers stand for it."""
    rows = matrix.reshape(-1, group or matrix.shape[1]).astype(np.float32)
    found: np.ndarray = nearest(rows, bits, axis=0, algorithm="min-max").dequantized.reshape(matrix.shape)
    return found.astype(np.float64)


def _quadratic(off: np.ndarray, hessian: np.ndarray) -> float:
    return float(np.einsum("ok,ok->", off @ hessian, off))


def _require_groups(sites: Iterator[Site] | Any, group: int) -> None:
    lengths = sorted({kernel.matrix.shape[1] for site in sites for kernel in site.readers})
    if group and (unfit := [length for length in lengths if length % group]):
        fit = next((size for size in (128, 64, 32, 16, 8, 4, 2) if not any(length % size for length in lengths)), 0)
        raise ConfigError(
            f"Expected rows of weights that divide into groups of {group}, got rows of "
            f"{' and '.join(map(str, unfit))}. Try {setting('group', fit)}."
        )


def _value(variable: Any) -> np.ndarray:
    return np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)
