"""A model that reads a whole sample goes in; what has to be done so that it reads it step by step comes out.

Each tensor that has a position for some of the frames is a Track, and what is known of all frames a Whole. Where a
tensor is a Track, a step computes its next positions from the frames that are new and from what is remembered; nothing
is computed twice. `delay` says by how many positions it lags: position p is there with the frame that is the last one
it depends on, so that 'valid' convolutions lag as 'same' ones do, and only the count of positions tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgeopt import graph
from edgeopt.errors import ConversionError
from edgeopt.windows import missing_for_same

if TYPE_CHECKING:
    from edgeopt.conversion.streaming.building import Builder


@dataclass(frozen=True)
class Track:
    """A tensor with positions in time.

    Attributes:
        axis: of its positions.
        stride: frames from one position to the next.
        delay: positions by which it lags behind the frames.
        length: positions of a whole sample.
        quiet: whether it is zero wherever no frame was heard.
        pad: positions of zeros that the next layer is to put before and behind it.
    """

    axis: int
    stride: int
    delay: int
    length: int
    quiet: bool = False
    pad: tuple[int, int] = (0, 0)

    @property
    def done(self) -> int:
        """Frames after which its last position is there."""
        return (self.length + self.delay) * self.stride


@dataclass(frozen=True)
class Whole:
    """A tensor that depends on all frames.

    Attributes:
        done: frames after which it is there.
    """

    done: int


@dataclass(frozen=True)
class Window:
    """How a layer looks at its input along time.

    Attributes:
        size: positions that it sees at once.
        step: positions that it moves by.
        before, behind: positions of zeros around a whole sample.
        given: the layer's input.
        made: its output.
    """

    size: int
    step: int
    before: int
    behind: int
    given: Track
    made: Track

    @property
    def masks_before(self) -> bool:
        """Whether what stands before the sample would be something else than zeros."""
        return self.before > 0 and self.given.delay > 0

    @property
    def masks_behind(self) -> bool:
        """Whether what stands behind it would."""
        return self.behind > 0 and not self.given.quiet


# What a call becomes in the model that reads step by step.
Make = Callable[["Builder", graph.Call, tuple[Any, ...], dict[str, Any]], Any]

_POINTWISE = frozenset(
    {
        *("Activation", "ActivityRegularization", "AlphaDropout", "Dropout", "ELU", "GaussianDropout", "GaussianNoise"),
        *("KerasActivation", "LeakyReLU", "ReLU", "Rescaling", "SpatialDropout1D", "SpatialDropout2D"),
        *("ThresholdedReLU", "TimeDistributed"),
    }
)
_ALONG_AXIS = frozenset({"BatchNormalization", "LayerNormalization", "Normalization", "Softmax", "UnitNormalization"})
_MERGES = frozenset({"Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"})
CONVOLUTIONS = frozenset(
    {"Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"}
)
POOLINGS = frozenset({"AveragePooling1D", "AveragePooling2D", "MaxPooling1D", "MaxPooling2D"})
# TensorFlow's and Keras 3's functions of each number alone.
_ELEMENTWISE = frozenset(
    {
        *("abs", "add", "divide", "elu", "exp", "gelu", "hardsigmoid", "hardsilu", "hardswish", "leakyrelu", "log"),
        *("maximum", "minimum", "multiply", "negative", "relu", "relu6", "rsqrt", "selu", "sigmoid", "silu"),
        *("softplus", "sqrt", "square", "subtract", "tanh", "truediv"),
    }
)


@dataclass
class Plan:
    """What becomes of a model.

    Attributes:
        makes: of each call, in the order of `graph.walk`.
        unit: frames that a step has to be a multiple of.
        lookback: frames of which it has to be known whether they belong to the sample.
        hears_end: whether it has to be told where the sample ends.
        lookahead: layers that look ahead, with the frames.
        renewed: layers that see all positions at once, with the reason.
        outputs: as Track or Whole.
    """

    makes: list[Make] = field(default_factory=list)
    unit: int = 1
    lookback: int = 0
    hears_end: bool = False
    lookahead: list[tuple[str, int]] = field(default_factory=list)
    renewed: list[tuple[str, str]] = field(default_factory=list)
    outputs: list[Track | Whole] = field(default_factory=list)


def planned(model: Any, *, frames: int, axis: int) -> Plan:
    """Returns how a tf_keras model of one input of so many frames reads them step by step.

    Raises:
        ConversionError: a layer needs all frames before anything was computed of them; the message names it.
    """
    planner = _Planner(Plan(), frames)
    found = graph.walk(model, [Track(axis, 1, 0, frames, quiet=True)], planner)
    planner.plan.outputs = found
    return planner.plan


class _Planner:
    def __init__(self, plan: Plan, frames: int) -> None:
        self.plan, self._frames = plan, frames
        self._computed = False

    def __call__(self, call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kind, layer = kind_of(call.layer), call.layer
        given: list[Track | Whole] = []
        graph.map_leaves(lambda leaf: given.append(leaf) if isinstance(leaf, (Track, Whole)) else None, (args, kwargs))
        tracks = [value for value in given if isinstance(value, Track)]
        if kind == "Masking" or getattr(layer, "mask_zero", False):
            raise ConversionError(
                f"Expected layers that a stream can go through, got {call.name!r} ({kind}), which masks padding: a "
                "stream has none. Try the model without it."
            )
        if not tracks:
            return self._as_it_is(call, given)
        track = tracks[0]
        if any(one.pad != (0, 0) for one in tracks) and kind not in (CONVOLUTIONS | POOLINGS | {"Activation"}):
            return self._renewed(call, given, "it follows padding, which only convolutions and pooling go through")
        if len(tracks) == len(given) == 1:
            made = self._alone(kind, call, track, args, kwargs)
        elif len(tracks) == len(given):
            made = self._merged(kind, call, tracks)
        else:
            made = "it joins single positions with what is known of all of them"
        return self._renewed(call, given, made) if isinstance(made, str) else made

    def _alone(
        self, kind: str, call: graph.Call, track: Track, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Track | Whole | list[Any] | str:
        """Returns what a layer of one input makes of it, or why it cannot go step by step."""
        layer, shape = call.layer, shape_of(call)
        rank = len(shape)
        alone = replace(track, quiet=False)
        if _is_pointwise(kind, layer, track.axis, rank, shape) or _is_elementwise(layer, args, kwargs):
            self._computed |= bool(layer.weights)
            return self._pointwise(alone)
        if kind == "Embedding":
            self._computed = True
            return self._pointwise(alone)
        if kind == "Reshape":
            target = tuple(layer.target_shape)
            rest, wanted = [size for size in shape[2:] if size], target[1:]
            whole = len(rest) == rank - 2 and bool(target) and -1 not in wanted
            if track.axis == 1 and whole and math.prod(rest) == math.prod(wanted):
                return self._add(track, lambda b, c, a, k: b.reshaped(a[0], wanted))
            return "it mixes positions"
        if kind == "Permute":
            axis = list(layer.dims).index(track.axis) + 1
            return self._add(replace(track, axis=axis), lambda b, c, a, k: b.cloned(c)(*a, **k))
        if kind in ("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D"):
            return self._edges(kind, layer, track)
        if kind in CONVOLUTIONS | POOLINGS:
            return self._windowed(kind, call, track, shape)
        if hasattr(layer, "cell"):
            return self._recurrent(call, track, shape)
        if kind == "GlobalAveragePooling2D" and track.axis == 1 and layer.data_format == "channels_last":
            self._renew(call, "it averages them")
            return self._add(Whole(track.done), lambda b, c, a, k: b.averaged(c, a[0], track))
        reasons = {
            "Dense": "it mixes them",
            "Bidirectional": "its backward half begins at the end",
            "GlobalAveragePooling1D": "it averages them",
            "GlobalMaxPooling1D": "it takes the largest",
            "GlobalMaxPooling2D": "it takes the largest",
            "Flatten": "it takes each of them apart",
        }
        return reasons.get(kind, "it may mix positions")

    def _merged(self, kind: str, call: graph.Call, tracks: Sequence[Track]) -> Track | str:
        first = tracks[0]
        alike = all((t.axis, t.stride, t.length) == (first.axis, first.stride, first.length) for t in tracks)
        along = kind == "Concatenate" and call.layer.axis % len(shape_of(call)) == first.axis
        if not alike or along or not (kind in _MERGES or _name_of_function(call.layer) in _ELEMENTWISE):
            return "it joins other positions with one another"
        last = max(track.delay for track in tracks)
        made = replace(first, delay=last, quiet=all(t.quiet for t in tracks) and kind not in ("Average",))

        def late(builder: Builder, tensor: Any, track: Track) -> Any:
            return builder.delayed(call.name, tensor, last - track.delay, first.axis)

        return self._add(made, lambda b, c, a, k: b.called(c, a, k, [partial(late, b, track=t) for t in tracks]))

    def _edges(self, kind: str, layer: Any, track: Track) -> Track | str:
        """Zeros around the positions, or positions that are left out."""
        edges = layer.padding if kind.startswith("ZeroPadding") else layer.cropping
        pairs = [tuple(edges)] if kind.endswith("1D") else [tuple(pair) for pair in edges]
        if getattr(layer, "data_format", None) == "channels_first" or track.axis > len(pairs):
            return "it may mix positions"
        before, behind = pairs[track.axis - 1]
        others = [(0, 0) if i + 1 == track.axis else pair for i, pair in enumerate(pairs)]

        def make(builder: Builder, call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not any(map(any, others)):
                return args[0]
            key = "padding" if kind.startswith("ZeroPadding") else "cropping"
            return builder.cloned(call, **{key: others[0] if kind.endswith("1D") else others})(args[0])

        if kind.startswith("ZeroPadding"):
            return self._add(replace(track, pad=(before, behind)), make)
        length = track.length - before - behind
        return self._add(replace(track, delay=track.delay + before, length=length, quiet=False), make)

    def _windowed(self, kind: str, call: graph.Call, track: Track, shape: Sequence[int | None]) -> Track | str:
        """A convolution or pooling."""
        layer = call.layer
        pooling, axis = kind in POOLINGS, track.axis
        if layer.data_format == "channels_first" or axis > len(layer.strides):
            return "its positions are no axis that it moves along"
        size = (layer.pool_size if pooling else layer.kernel_size)[axis - 1]
        step = layer.strides[axis - 1]
        if not pooling:
            size = (size - 1) * layer.dilation_rate[axis - 1] + 1
        before, behind = track.pad
        padded = track.length + before + behind
        if layer.padding == "causal":
            before += size - 1
            padded += size - 1
        length = (padded - size) // step + 1
        if layer.padding == "same":
            length = -(-padded // step)
            missing = missing_for_same(padded, size, step)
            if pooling and (missing or _pads_others(layer, axis, shape)):
                return "its padding counts for nothing, which a stream cannot tell; padding='valid' could"
            before, behind = before + missing // 2, behind + missing - missing // 2
        if length < 1 or before > size - 1:
            return "it sees more than there is"
        if length == 1:  # it never moves
            step = 1
        ahead = size - 1 - before if behind else 0
        delay = -(-(track.delay + size - before) // step) - 1
        made = Track(axis, track.stride * step, delay, length)
        window = Window(size, step, before, behind, track, made)
        if window.masks_behind and behind_of(track, self._frames) > track.delay * track.stride:
            return "it would have to know where the sample ends before that is heard"
        if window.masks_before or window.masks_behind:
            self._told(track, ends=window.masks_behind)
        if ahead:
            self.plan.lookahead.append((call.name, ahead * track.stride))
        self._computed = True
        return self._add(made, lambda b, c, a, k: b.windowed(c, a[0], window))

    def _recurrent(self, call: graph.Call, track: Track, shape: Sequence[int | None]) -> Any:
        layer = call.layer
        if layer.go_backwards:
            return "it begins at the end"
        if track.axis != 1 or getattr(layer, "time_major", False):
            return "its steps are another axis than the frames"
        if track.delay > 0:
            self._told(track, ends=False, lag=1)
        self._computed = True
        if layer.return_state:
            return "it hands its states on"
        made = Track(1, track.stride, track.delay, track.length) if layer.return_sequences else Whole(track.done)
        return self._add(made, lambda b, c, a, k: b.recurrent(c, a[0], track))

    def _told(self, track: Track, *, ends: bool, lag: int = 0) -> None:
        """Notes that a layer has to know which positions belong to the sample."""
        most = (track.delay + lag) * track.stride
        self.plan.lookback = max(self.plan.lookback, most, most - behind_of(track, self._frames))
        self.plan.hears_end |= ends

    def _pointwise(self, track: Track) -> Track:
        return self._add(track, lambda b, c, a, k: b.cloned(c)(*a, **k))

    def _as_it_is(self, call: graph.Call, given: list[Any]) -> Any:
        """A layer behind all positions."""
        done = max((one.done for one in given), default=0)
        return self._add([Whole(done)] * len(call.outputs), _with_all(given, done))

    def _renewed(self, call: graph.Call, given: list[Any], reason: str) -> Any:
        """A layer that gets the positions of a whole sample at each step."""
        self._renew(call, reason)
        done = max(one.done for one in given)
        return self._add([Whole(done)] * len(call.outputs), _with_all(given, done))

    def _renew(self, call: graph.Call, reason: str) -> None:
        if not self._computed:
            kind = kind_of(call.layer)
            raise ConversionError(
                f"Expected a layer that can go step by step before any that needs all frames, got {call.name!r} "
                f"({kind}) first: {reason}. Try a model of convolutions, pooling, GRU or LSTM along time, or "
                "--time-axis where the frames are another axis; without --stream it is converted as it is."
            )
        self.plan.renewed.append((call.name, reason))

    def _add(self, made: Any, make: Make) -> Any:
        for track in graph.leaves(made):
            if isinstance(track, Track):
                self.plan.unit = math.lcm(self.plan.unit, track.stride)
        self.plan.makes.append(make)
        return made


def _with_all(given: Sequence[Track | Whole], done: int) -> Make:
    """Returns what gives a layer all that its inputs are in a whole sample, after `done` frames."""

    def all_of(builder: Builder, call: graph.Call, tensor: Any, one: Track | Whole) -> Any:
        return builder.whole(call.name, tensor, one, done)

    return lambda b, c, a, k: b.called(c, a, k, [partial(all_of, b, c, one=one) for one in given])


def behind_of(track: Track, frames: int) -> int:
    """Returns how many frames behind the one of a track's position has to be heard for the position to be one.

    That position p is one of the sample can be told from frame p * stride + this: it is 0 for most.
    """
    least, most = frames - track.length * track.stride, frames - 1 - (track.length - 1) * track.stride
    return min(max(0, least), most)


def kind_of(layer: Any) -> str:
    """Returns the class of a layer."""
    return type(layer).__name__


def shape_of(call: graph.Call) -> tuple[int | None, ...]:
    """Returns the shape of the first tensor that a call gets, as the model declares it."""
    tensor = next(leaf for leaf in graph.leaves((call.args, call.kwargs)) if hasattr(leaf, "shape"))
    return tuple(tensor.shape)


def _is_pointwise(kind: str, layer: Any, axis: int, rank: int, shape: Sequence[int | None]) -> bool:
    """Whether a layer does the same to each position by itself."""
    last = axis != rank - 1
    if kind == "TimeDistributed":
        return axis == 1
    if kind in ("Activation", "KerasActivation"):
        return last or getattr(layer.activation, "__name__", "") not in ("softmax", "log_softmax", "glu", "sparsemax")
    if kind in _POINTWISE:
        return True
    if kind == "Dense":
        return last
    if kind in _ALONG_AXIS:
        along = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        return all(one is not None and one % rank != axis for one in along)
    if kind == "PReLU":
        return axis in (layer.shared_axes or ())
    return False


def _is_elementwise(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    rest = [leaf for leaf in graph.leaves((args, dict(kwargs))) if not isinstance(leaf, Track) and leaf is not None]
    name = _name_of_function(layer)
    return name in _ELEMENTWISE and all(isinstance(leaf, (int, float, str, bool)) for leaf in rest)


def _name_of_function(layer: Any) -> str:
    """Returns the function that TensorFlow's or Keras 3's call stands for, "" for a layer."""
    if kind_of(layer) == "KerasOperation":
        return str(type(layer.operation).__name__).lower()
    return str(getattr(layer, "symbol", "")).rpartition(".")[2] if kind_of(layer) == "TFOpLambda" else ""


def _pads_others(layer: Any, axis: int, shape: Sequence[int | None]) -> bool:
    """Whether 'same' padding adds anything along the other axes."""
    for other, (size, step) in enumerate(zip(layer.pool_size, layer.strides), start=1):
        length = shape[other]
        if other != axis and (length is None or missing_for_same(length, size, step)):
            return True
    return False
