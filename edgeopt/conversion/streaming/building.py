"""A tf_keras model and the plan of its steps go in; the model of one step, with its states, comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeopt import frameworks, graph
from edgeopt.conversion.streaming.tracks import (
    POOLINGS,
    Plan,
    Track,
    Whole,
    Window,
    behind_of,
    kind_of,
)
from edgeopt.tflite.stream import Stream, StreamOutput
from edgeopt.windows import missing_for_same

VALID = "valid"


@dataclass(frozen=True)
class State:
    """What a step leaves to the next."""

    name: str
    input: Any
    output: Any


@dataclass
class Builder:
    """A step model while it is built.

    Attributes:
        plan: see `tracks`.
        frames: of a sample.
        step: frames of a step.
        states: what was found to be remembered so far.
    """

    plan: Plan
    frames: int
    step: int
    states: list[State] = field(default_factory=list)
    _clones: dict[tuple[int, str], Any] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _flags: Any = None
    _valid: Any = None

    def build(self, model: Any, *, axis: int) -> tuple[Any, Stream]:
        """Returns the model of one step and how it is to be called."""
        keras = frameworks.load("tf_keras")
        (name, tensor), *_ = graph.input_names(model)
        shape = [self.step if i == axis else size for i, size in enumerate(tensor.shape)]
        frames = keras.Input(shape[1:], dtype=graph.dtype_name(tensor), name=graph.legal_name(name))
        self._names |= {name for name, _ in graph.output_names(model)} | {frames.name, VALID}
        if self.plan.hears_end:
            self._valid = keras.Input((self.step,), name=VALID)
        if self.plan.hears_end or self.plan.lookback:
            self._flags = self._known(frames, axis)
        makes = iter(self.plan.makes)
        found = graph.walk(model, [frames], lambda call, args, kwargs: next(makes)(self, call, args, kwargs))
        done = max(self.frames, *(one.done for one in self.plan.outputs))
        outputs, notes = [], {}
        for (name, _), value, one in zip(graph.output_names(model), found, self.plan.outputs):
            if isinstance(one, Whole):
                value, notes[name] = self.waited(name, value, done, one.done), StreamOutput()
            else:
                notes[name] = StreamOutput(one.axis, one.delay, one.length, one.stride)
            outputs.append(value)
        inputs = [frames, *([] if self._valid is None else [self._valid]), *(state.input for state in self.states)]
        made = keras.Model(inputs, [*outputs, *(state.output for state in self.states)], name=f"{model.name}_step")
        stream = Stream(
            frames.name,
            axis,
            self.frames,
            False,
            self.step,
            -(-done // self.step),
            tuple((state.name, f"{state.name}_next") for state in self.states),
            VALID if self._valid is not None else "",
            notes,
        )
        return made, stream

    # --- what plans ask for ------------------------------------------------------------------------------------------

    def called(
        self, call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any], changes: Sequence[Callable[[Any], Any]]
    ) -> Any:
        """Returns what a call's layer makes of its tensors, each changed by the function in its place."""
        each = iter(changes)
        args, kwargs = graph.map_leaves(
            lambda leaf: next(each)(leaf) if hasattr(leaf, "_keras_history") else leaf, (args, kwargs)
        )
        return self.cloned(call)(*args, **kwargs)

    def cloned(self, call: graph.Call, **changes: Any) -> Any:
        """Returns the layer of a call with its weights, its config changed; the same for each of its calls."""
        layer = call.layer
        key = (id(layer), repr(sorted(changes.items())))
        if key not in self._clones:
            config = {**layer.get_config(), **changes}
            made = type(layer).from_config(config)
            made._name = call.name
            self._clones[key] = made
        made = self._clones[key]

        def called(*args: Any, **kwargs: Any) -> Any:
            result = made(*args, **kwargs)
            if layer.get_weights():
                graph.set_weights(made, layer.get_weights())
            return result

        return called

    def reshaped(self, x: Any, rest: Sequence[int]) -> Any:
        """Returns each position in another shape."""
        return frameworks.load("tf_keras").layers.Reshape((x.shape[1], *rest))(x)

    def delayed(self, name: str, x: Any, positions: int, axis: int) -> Any:
        """Returns a track so many positions later."""
        if not positions:
            return x
        held = self._held(f"{name}_delay", x, positions, axis)
        return _cut(held, axis, 0, x.shape[axis])

    def waited(self, name: str, x: Any, done: int, own: int) -> Any:
        """Returns what is there after `own` frames as many steps later as it takes to be there after `done`."""
        steps = -(-done // self.step) - -(-own // self.step)
        if not steps:
            return x
        library = frameworks.load("tf_keras").layers
        lane = library.Reshape((1, *x.shape[1:]))(x)
        return library.Reshape(tuple(x.shape[1:]))(_cut(self._held(f"{name}_wait", lane, steps, 1), 1, 0, 1))

    def whole(self, name: str, x: Any, one: Track | Whole, done: int) -> Any:
        """Returns all positions of a sample, after `done` frames."""
        if isinstance(one, Whole):
            return self.waited(name, x, done, one.done)
        positions = x.shape[one.axis]
        newer = -(-done // self.step) * positions - one.delay - one.length
        history = one.length + newer - positions
        held = self._held(name, x, max(0, history), one.axis)
        start = max(0, -history)
        return _cut(held, one.axis, start, start + one.length)

    def windowed(self, call: graph.Call, x: Any, window: Window) -> Any:
        """Returns what a convolution or pooling makes of the positions that are new."""
        layer, given, made = call.layer, window.given, window.made
        axis = given.axis
        if window.masks_before or window.masks_behind:
            x = self._masked(x, given, before=window.masks_before, behind=window.masks_behind)
        positions = self.step // made.stride
        ahead = (made.delay + 1) * window.step - (given.delay + window.size - window.before)
        history = window.size - window.step + ahead
        seen = (positions - 1) * window.step + window.size
        start = max(0, -history)
        held = _cut(self._held(call.name, x, max(0, history), axis), axis, start, start + seen)
        changes: dict[str, Any] = {"padding": "valid"}
        if window.step != layer.strides[axis - 1]:
            changes["strides"] = tuple(window.step if i + 1 == axis else s for i, s in enumerate(layer.strides))
        if layer.padding == "same" and len(layer.strides) == 2 and kind_of(layer) not in POOLINGS:
            held = _padded(layer, held, axis)
        return self.cloned(call, **changes)(held)

    def averaged(self, call: graph.Call, x: Any, track: Track) -> Any:
        """Returns the mean of all positions, each of them averaged by itself before it is kept."""
        library, layer = frameworks.load("tf_keras").layers, call.layer
        one = library.AveragePooling2D((1, x.shape[2]), name=f"{call.name}_frame")(x)
        kept = self.whole(call.name, one, track, track.done)
        mean = library.GlobalAveragePooling2D(keepdims=layer.keepdims, name=call.name)
        return mean(kept)

    def recurrent(self, call: graph.Call, x: Any, track: Track) -> Any:
        """Returns the outputs of a recurrent layer at the positions that are new, or at the last one."""
        tf, keras = frameworks.load("tensorflow"), frameworks.load("tf_keras")
        layer, positions = call.layer, x.shape[1]
        twin = graph.clone(layer)
        twin.build((None, 1, *x.shape[2:]))
        graph.set_weights(twin, layer.get_weights())
        cell = twin.cell
        cell._name = call.name
        start = layer.get_initial_state(tf.zeros((1, 1, *x.shape[2:])))
        names = [self._free(f"{call.name}_state")] if len(tf.nest.flatten(start)) == 1 else []
        names = names or [self._free(f"{call.name}_state_{i}") for i in range(len(tf.nest.flatten(start)))]
        given = [keras.Input(one.shape[1:], name=name) for name, one in zip(names, tf.nest.flatten(start))]
        states, outputs = list(given), []
        for number in range(positions):
            if track.delay > 0:
                flag = self._flag(track, before=True, behind=False, lag=1, only=number)
                states = [keras.layers.Multiply()([one, _spread(flag, 0, one)]) for one in states]
            value, new = cell(x[:, number], states)
            states = list(tf.nest.flatten(new))
            outputs.append(value)
        self.states += [State(name, one, other) for name, one, other in zip(names, given, states)]
        if layer.return_sequences:
            rows = [keras.layers.Reshape((1, *value.shape[1:]))(value) for value in outputs]
            return rows[0] if positions == 1 else keras.layers.Concatenate(axis=1)(rows)
        newer = -(-track.done // self.step) * positions - track.delay - track.length
        return outputs[positions - 1 - newer]

    # --- what is remembered ------------------------------------------------------------------------------------------

    def _held(self, name: str, x: Any, history: int, axis: int) -> Any:
        """Returns so many positions that came before, and these."""
        if not history:
            return x
        keras = frameworks.load("tf_keras")
        name = self._free(f"{name}_state")
        shape = [history if i == axis else size for i, size in enumerate(x.shape)]
        given = keras.Input(shape[1:], dtype=graph.dtype_name(x), name=name)
        everything = keras.layers.Concatenate(axis=axis, name=f"{name}_joined")([given, x])
        self.states.append(State(name, given, _cut(everything, axis, x.shape[axis], history + x.shape[axis])))
        return everything

    def _free(self, name: str) -> str:
        name = graph.legal_name(name)
        found = next(n for n in (name, *(f"{name}_{i}" for i in range(2, 10_000))) if n not in self._names)
        self._names.add(found)
        return found

    # --- which positions belong to the sample ------------------------------------------------------------------------

    def _known(self, frames: Any, axis: int) -> Any:
        """Returns for each frame that may be asked for whether it belongs to the sample, [batch, frames]."""
        tf = frameworks.load("tensorflow")
        now = self._valid
        if now is None:
            index: list[Any] = [slice(None)] + [slice(None) if i == axis else 0 for i in range(1, len(frames.shape))]
            now = tf.ones_like(frames[tuple(index)], dtype="float32")
        return self._held("heard", now, self.plan.lookback, 1)

    def _masked(self, x: Any, track: Track, *, before: bool, behind: bool) -> Any:
        flag = self._flag(track, before=before, behind=behind)
        return frameworks.load("tf_keras").layers.Multiply()([x, _spread(flag, track.axis, x)])

    def _flag(self, track: Track, *, before: bool, behind: bool, lag: int = 0, only: int | None = None) -> Any:
        """Returns 1 for each new position of a track that is one of the sample, else 0: [batch, positions]."""
        count = self.step // track.stride
        behind_by = behind_of(track, self.frames)
        found = []
        for offset in dict.fromkeys([*([0] if before else []), *([behind_by] if behind else [])]):
            start = self.plan.lookback - (track.delay + lag) * track.stride + offset
            first, many = (start, count) if only is None else (start + only * track.stride, 1)
            found.append(_cut(self._flags, 1, first, first + (many - 1) * track.stride + 1, step=track.stride))
        return found[0] if len(found) == 1 else frameworks.load("tf_keras").layers.Multiply()(found)


def _cut(x: Any, axis: int, start: int, stop: int, *, step: int = 1) -> Any:
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def _spread(flag: Any, axis: int, x: Any) -> Any:
    """Returns flags of positions (or, with axis 0, of one) in a shape that multiplies with `x`."""
    shape = [flag.shape[1] if i == axis else 1 for i in range(1, len(x.shape))]
    return flag if [*flag.shape[1:]] == shape else frameworks.load("tf_keras").layers.Reshape(shape)(flag)


def _padded(layer: Any, x: Any, axis: int) -> Any:
    """Returns positions with the zeros that 'same' padding puts around the axis that is not time."""
    other = 3 - axis
    size = (layer.kernel_size[other - 1] - 1) * layer.dilation_rate[other - 1] + 1
    missing = missing_for_same(x.shape[other], size, layer.strides[other - 1])
    if not missing:
        return x
    pair = (missing // 2, missing - missing // 2)
    padding = ((0, 0), pair) if axis == 1 else (pair, (0, 0))
    return frameworks.load("tf_keras").layers.ZeroPadding2D(padding)(x)
