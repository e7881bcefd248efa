"""A `.tflite` file and an interpreter package go in, an open session comes out; LiteRT and tflite-runtime share it."""

from __future__ import annotations

import ctypes
import functools
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.errors import DataError, ModelError, UnavailableError
from edgeopt.native_log import NativeLog, native_log
from edgeopt.runtimes import Delegate, Runtime, Session
from edgeopt.runtimes.batching import batch_is_its_samples
from edgeopt.runtimes.samples import FREE_SIZE
from edgeopt.runtimes.state import State, state
from edgeopt.tflite.model import printable
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Quantization, TensorSpec

# What the interpreters raise when they refuse a file, a shape or a delegate.
REFUSALS = (ValueError, RuntimeError, SystemError, MemoryError, TypeError)
# A refusal may say the same of every tensor.
_REFUSAL_CHARACTERS = 500


class InterpreterSession(Session):
    """A file on the Interpreter class of one package.

    Args:
        module: the imported package, with Interpreter and load_delegate.
        runtime: the row.
        file: the `.tflite` file.
        options: further arguments of Interpreter.
        threads: of the interpreter.
        delegate: an external delegate.
        own_delegate: whether the package applies a delegate of its own (XNNPACK) with these options.
        keep_intermediates: keep every activation for `tensors`.
    """

    _interpreter: Any
    _fresh: bool
    _declared: tuple[TensorSpec, ...]

    def __init__(
        self,
        module: Any,
        runtime: Runtime,
        file: Path,
        *,
        options: Mapping[str, Any],
        threads: int,
        delegate: Delegate | None,
        own_delegate: bool,
        keep_intermediates: bool,
    ) -> None:
        self.runtime, self.threads = runtime, threads
        self._module, self._name, self._file = module, runtime.name, file
        self._options = dict(options, num_threads=threads, experimental_preserve_all_tensors=keep_intermediates)
        self._delegate = delegate
        self._keep_intermediates = keep_intermediates
        self._content = read_file(file)
        self._batches: bool | None = None
        self._open()
        nodes = _nodes(self._interpreter)
        of_delegate = self._external_nodes if delegate else [node for node in nodes if node.is_delegate]
        operators = [node for node in nodes if not node.is_delegate]
        taken = {node for one in of_delegate for node in members(one, operators)}
        self.delegated = counted(operators[i].kind for i in sorted(taken))
        if (own_delegate or delegate is not None) and operators:
            self.delegated_share = len(taken) / len(operators)
            self.undelegated = counted(node.kind for i, node in enumerate(operators) if i not in taken)
        if delegate is not None and not taken:
            raise UnavailableError(
                f"The delegate {delegate.library.name} took none of the {len(operators)} operators of {file.name} "
                f"({', '.join(self.undelegated)}): everything would run on {runtime.name}'s own kernels. "
                "Try a model in the dtypes and operators it supports, or no --delegate."
            )

    def resize(self, batch_size: int) -> bool:
        """See Session.resize."""
        sizes = {spec.shape[0] if spec.shape else None for spec in self.inputs}
        if sizes == {batch_size}:
            return True
        if None in sizes or len(sizes) != 1 or self._batches is False:
            return False
        before = [spec.shape for spec in self.inputs]
        shapes = [(batch_size, *shape[1:]) for shape in before]
        if self._batches is None:
            self._batches = batch_is_its_samples(self, shapes, self._reshape, refusals=REFUSALS)
            if not self._batches:
                self._open()  # what failed half-way may have left anything behind
                self._reshape(before)
                return False
            return True
        self._reshape(shapes)
        return True

    @property
    def declared(self) -> tuple[TensorSpec, ...]:
        """See Session.declared."""
        return self._declared

    def reshape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """See Session.reshape."""
        for spec in self._declared:
            shape = shapes[spec.name]
            if len(shape) != len(spec.shape) or any(w not in (None, n) for n, w in zip(shape[1:], spec.shape[1:])):
                raise self.runtime.refuses_shape(spec, shapes)
        if all(spec.shape == shapes[spec.name] for spec in self.inputs):
            return
        log = NativeLog()
        try:
            with native_log() as log:
                self._reshape([shapes[spec.name] for spec in self.inputs])
        except REFUSALS as error:
            raise self.runtime.refuses_shape(self._declared[0], shapes, log.words or one_line(error)) from error

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Session.run."""
        self._renew()
        self._set(inputs)
        interpreter = self._interpreter
        try:
            interpreter.invoke()
            # Where nothing computes an output there is none to take.
            return {spec.name: interpreter.get_tensor(i) for spec, i in zip(self.outputs, self._output_indices)}
        except REFUSALS as error:
            raise ModelError(
                f"{self._name} could not run {self._file.name}: {one_line(error)}. Expected a file that runs as well "
                "as it loads; try another runtime or scheme."
            ) from error

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """See Session.invoke_ns. The call's way through Python, about half a microsecond, is part of each time."""
        self._renew()
        return self.continue_ns(inputs, runs=runs)

    def continue_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """As invoke_ns, in the interpreter as it is: whatever `attach` added to it is there, and its state as well."""
        self._set(inputs)
        return times_ns(self._interpreter.invoke, runs)

    def tensors(self) -> dict[str, np.ndarray]:
        """See Session.tensors."""
        if not self._keep_intermediates:
            raise ModelError("Expected a session opened with keep_intermediates, got one without. Try opening it anew.")
        known = set(self._input_indices)
        kept: dict[str, np.ndarray] = {}
        for node in _nodes(self._interpreter):
            if node.is_delegate or known.isdisjoint(node.inputs):
                continue  # the second: constants that are unpacked, no activations
            known.update(node.outputs)
            for index in node.outputs:
                kept[self._tensor_name(index)] = self._interpreter.get_tensor(index)
        return kept

    def close(self) -> None:
        """See Session.close."""
        self._interpreter = None

    def attach(self, library: Path, options: Mapping[str, str]) -> tuple[Node, ...]:
        """Applies one more delegate to the graph as it runs now, and returns all its nodes.

        Raises:
            UnavailableError: the graph takes none, as one whose sizes are only known while it runs.
        """
        try:
            with native_log():
                delegate = self._module.load_delegate(str(library), dict(options))
                self._interpreter._interpreter.ModifyGraphWithDelegate(delegate._get_native_delegate_pointer())
                self._interpreter._delegates = [*self._interpreter._delegates, delegate]
                self._interpreter.allocate_tensors()
        except REFUSALS as error:
            raise UnavailableError(
                f"{self._name} takes no further delegate into {self._file.name}, whose sizes it only knows while it "
                "runs. Try --runtime litert-builtin, or a model with fixed sizes."
            ) from error
        return _nodes(self._interpreter)

    def layer(self, node: Node) -> str:
        """Returns the name of the first tensor that `node` writes."""
        return self._tensor_name(node.outputs[0]) if node.outputs else ""

    @functools.cached_property
    def _state(self) -> State:
        # Read when a run is to follow another: opening a file takes what the runtime takes.
        return state(read(self._content))

    def _renew(self) -> None:
        """Puts the interpreter into the state of a file that was just opened."""
        if not self._fresh and self._state.resources:
            shapes = [spec.shape for spec in self.inputs]
            self._start()
            self._reshape(shapes)
        elif not self._fresh and self._state.tensors:
            self._interpreter.reset_all_variables()
        self._fresh = False

    def _start(self) -> None:
        self._interpreter = None  # its memory is free before another takes as much
        delegates = [load_delegate(self._module, self._delegate)] if self._delegate else None
        self._interpreter = self._module.Interpreter(
            model_content=self._content, experimental_delegates=delegates, **self._options
        )
        self._external_nodes = [node for node in _nodes(self._interpreter) if node.is_delegate]
        for details in self._interpreter.get_input_details():
            free = [n < 0 for n in details["shape_signature"][1:]]
            if any(free):  # the 1 that stands for it in the file is less than most kernels are wide
                sizes = [FREE_SIZE if is_free else n for is_free, n in zip(free, details["shape"][1:])]
                self._interpreter.resize_tensor_input(details["index"], [*details["shape"][:1], *sizes])
        self._interpreter.allocate_tensors()
        self._fresh = True

    def _open(self) -> None:
        log = NativeLog()
        try:
            with native_log() as log:
                self._start()
        except REFUSALS as error:
            said = " ".join(dict.fromkeys(filter(None, (one_line(error), printable(log.words)))))
            said = textwrap.shorten(said, _REFUSAL_CHARACTERS, placeholder=" …")
            if self._delegate:
                raise UnavailableError(
                    f"{self._name} with the delegate {self._delegate.library.name} refused {self._file.name}: {said}. "
                    "Try without --delegate to see whether the file or the delegate is the reason."
                ) from error
            raise ModelError(
                f"{self._name} refused {self._file.name}: {said}. Expected a .tflite file that this runtime knows; try "
                f"another scheme, or --runtime {self._name} when converting."
            ) from error
        self._describe()

    def _describe(self) -> None:
        interpreter = self._interpreter
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        in_names, out_names = self._signature_names()
        self._input_indices = [details["index"] for details in inputs]
        self._output_indices = [details["index"] for details in outputs]
        self.inputs = tuple(_spec(details, in_names) for details in inputs)
        self._declared = tuple(
            replace(spec, shape=tuple(None if n < 0 else n for n in map(int, details["shape_signature"])) or spec.shape)
            for spec, details in zip(self.inputs, inputs)
        )
        self.outputs = tuple(_spec(details, out_names) for details in outputs)
        self._index_of = {spec.name: index for spec, index in zip(self.inputs, self._input_indices)}

    def _signature_names(self) -> tuple[dict[int, str], dict[int, str]]:
        """Returns tensor index to signature name, for inputs and outputs of the main graph."""
        for key, signature in self._interpreter._get_full_signature_list().items():
            if self._interpreter._interpreter.GetSubgraphIndexFromSignature(key) == 0:
                return (
                    {index: printable(name) for name, index in signature["inputs"].items()},
                    {index: printable(name) for name, index in signature["outputs"].items()},
                )
        return {}, {}

    def _tensor_name(self, index: int) -> str:
        return printable(self._interpreter._get_tensor_details(index, 0)["name"])

    def _set(self, inputs: Mapping[str, np.ndarray]) -> None:
        require_inputs(inputs, self.inputs)
        for name, array in inputs.items():
            self._interpreter.set_tensor(self._index_of[name], array)

    def _reshape(self, shapes: Sequence[Sequence[int | None]]) -> None:
        for index, shape in zip(self._input_indices, shapes):
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()
        self._describe()


class Node:
    """A node of the graph: an operator of the file, or a delegate's stand-in for some of them."""

    def __init__(self, kind: str, inputs: Iterable[int], outputs: Iterable[int]) -> None:
        self.kind = kind
        self.inputs = tuple(int(i) for i in inputs if i >= 0)
        self.outputs = tuple(int(i) for i in outputs if i >= 0)
        self.is_delegate = kind == "DELEGATE"


def members(delegate: Node, operators: Sequence[Node]) -> set[int]:
    """Returns the indices of the `operators` that a delegate's node stands for.

    The interpreters keep the replaced operators in their list and do not say which they are; but whatever makes the
    delegate's outputs out of its inputs is inside it, since what is made outside is among those inputs.
    """
    producer = {tensor: i for i, operator in enumerate(operators) for tensor in operator.outputs}
    inside: set[int] = set()
    wanted = list(delegate.outputs)
    outside = set(delegate.inputs)
    while wanted:
        tensor = wanted.pop()
        operator = producer.get(tensor)
        if tensor in outside or operator is None or operator in inside:
            continue
        inside.add(operator)
        wanted.extend(operators[operator].inputs)
    return inside


def load_delegate(module: Any, delegate: Delegate) -> Any:
    """Loads an external delegate into `module`'s interpreters.

    Raises:
        UnavailableError: the library is missing, is no delegate, or refuses its options.
    """
    library = delegate.library.resolve()
    if not library.is_file():
        raise UnavailableError(f"Expected a delegate's shared library, got {delegate.library}, which does not exist.")
    try:
        # The packages find a missing symbol too late to clean up after themselves.
        _ = ctypes.CDLL(str(library)).tflite_plugin_create_delegate
    except (OSError, AttributeError) as error:
        raise UnavailableError(
            f"{delegate.library} cannot be loaded as a delegate: {one_line(error)}. Expected a shared library for this "
            "machine that exports tflite_plugin_create_delegate; try one built for this CPU and system."
        ) from error
    try:
        with native_log():
            return module.load_delegate(str(library), dict(delegate.options))
    except (ValueError, RuntimeError) as error:
        options = ", ".join(f"{key}={value}" for key, value in delegate.options.items()) or "none"
        said = one_line(error).removeprefix(f"Failed to load delegate from {library}").strip()
        raise UnavailableError(
            f"The delegate {delegate.library.name} refused to start with the options {options}: "
            f"{said or 'it gave no reason'}. "
            "Try the options its documentation names."
        ) from error


def read_file(file: Path) -> bytes:
    """Returns the bytes of a `.tflite` file.

    Raises:
        ModelError: it is missing, or no TensorFlow Lite flatbuffer.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"Expected a .tflite file, got {file}: {error.strerror}. Try the path of a file.") from error
    if content[4:8] != b"TFL3":
        raise ModelError(
            f"Expected a .tflite file, got {file}, whose bytes 4 to 8 are not 'TFL3'. "
            "Try `edgeopt convert` to make one."
        )
    return content


def require_inputs(inputs: Mapping[str, np.ndarray], specs: Sequence[TensorSpec]) -> None:
    """Raises DataError unless `inputs` has exactly the names, dtypes and shapes of `specs`."""
    names = [spec.name for spec in specs]
    if len(inputs) != len(names) or any(name not in inputs for name in names):
        raise DataError(f"Expected the inputs {', '.join(names)}, got {', '.join(inputs) or 'none'}.")
    for spec in specs:
        array = inputs[spec.name]
        if array.dtype != spec.dtype or array.shape != spec.shape:
            raise DataError(
                f"Expected {spec.dtype} {list(spec.shape)} for the input {spec.name!r}, got {array.dtype} "
                f"{list(array.shape)}. Try quantize() for the dtype, resize() for the batch."
            )


def times_ns(invoke: Callable[[], Any], runs: int) -> np.ndarray:
    """Returns how long each of `runs` calls took: int64 nanoseconds [runs]."""
    clock = time.perf_counter_ns
    times = np.empty(runs, np.int64)
    for i in range(runs):
        start = clock()
        invoke()
        times[i] = clock() - start
    return times


def quantization(parameters: Mapping[str, Any]) -> Quantization | None:
    """Returns what an interpreter calls quantization_parameters; None where the tensor has no scale."""
    scales = tuple(float(scale) for scale in parameters["scales"])
    if not scales or not any(scales):
        return None
    zero_points = tuple(int(point) for point in parameters["zero_points"])
    return Quantization(scales, zero_points, int(parameters["quantized_dimension"]) if len(scales) > 1 else None)


def counted(kinds: Iterable[str]) -> tuple[str, ...]:
    """Returns operators by kind, the most frequent first: ("9 x CONV_2D", "SOFTMAX")."""
    return tuple(f"{count} x {kind}" if count > 1 else kind for kind, count in Counter(kinds).most_common())


def one_line(error: BaseException) -> str:
    """Returns an error's message on one line, without the full stop."""
    return printable(" ".join(str(error).split())).rstrip(".")


def _nodes(interpreter: Any) -> tuple[Node, ...]:
    # Not _get_ops_details: it also looks up every tensor, and fails on a delegate's unnamed ones.
    wrapper = interpreter._interpreter
    return tuple(
        Node(wrapper.NodeName(i), wrapper.NodeInputs(i), wrapper.NodeOutputs(i)) for i in range(wrapper.NumNodes())
    )


def _spec(details: Mapping[str, Any], names: Mapping[int, str]) -> TensorSpec:
    return TensorSpec(
        names.get(details["index"], printable(details["name"])),
        tuple(int(size) for size in details["shape"]),
        np.dtype(details["dtype"]).name,
        quantization(details["quantization_parameters"]),
    )
