"""ONNX Runtime: a file and a provider go in, a session comes out, with the graph optimized as it is by default."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.errors import ModelError, UnavailableError
from edgeopt.formats.onnx import FED, needs, quantizations, read_model, refused_by
from edgeopt.runtimes import Delegate, Runtime, Session, providers
from edgeopt.runtimes.batching import batch_is_its_samples
from edgeopt.runtimes.intermediates import Intermediates
from edgeopt.runtimes.interpreter import counted, one_line, require_inputs, times_ns
from edgeopt.runtimes.providers import CPU, PROVIDERS
from edgeopt.runtimes.samples import FREE_SIZE, generated
from edgeopt.vocabulary import OperatorTime, TensorSpec

INSTALL = frameworks.install_command("onnxruntime", upgrade=True)
# What ONNX calls the elements of a tensor, where NumPy says otherwise.
_DTYPES = {"float": "float32", "double": "float64"}
_QUIET = 4
_PROFILED_RUNS = 50


def version() -> str:
    """Returns the installed version, "" where there is none."""
    return providers.version()


def load() -> None:
    """Imports the package."""
    frameworks.load("onnxruntime")


def refusals(file: Path, version: str) -> tuple[str, ...]:
    """Returns the reasons by the operator set and the IR version of `file`."""
    return refused_by(needs(file), version)


def open(
    file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None, keep_intermediates: bool
) -> OnnxSession:
    """Opens `file`; see `edgeopt.runtimes.open_session`."""
    return OnnxSession(file, runtime, threads=threads, keep_intermediates=keep_intermediates)


def profile(
    file: Path, runtime: Runtime, inputs: Mapping[str, np.ndarray], *, threads: int, delegate: Delegate | None
) -> tuple[OperatorTime, ...]:
    """Returns the time of each operator as the runtime itself logs it, of the graph that it made of the file's."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        session = OnnxSession(file, runtime, threads=threads, profile=Path(folder) / "profile")
        session.reshape({name: array.shape for name, array in inputs.items()})
        for _ in range(_PROFILED_RUNS):
            session.run(inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            layer = event["name"].removesuffix("_kernel_time")
            times[event["args"]["op_name"], layer].append(float(event["dur"]))
    medians = {key: statistics.median(values) for key, values in times.items()}
    total = sum(medians.values()) or 1.0
    return tuple(OperatorTime(kind, layer, time / total, time) for (kind, layer), time in medians.items())


class OnnxSession(Session):
    """A file in an InferenceSession.

    Args:
        file: the `.onnx` file.
        runtime: the row.
        threads: of one operator.
        profile: where its log of times begins, a path without suffix.
        keep_intermediates: whether `tensors` is asked for.
    """

    def __init__(
        self,
        file: Path,
        runtime: Runtime,
        *,
        threads: int,
        profile: Path | None = None,
        keep_intermediates: bool = False,
    ) -> None:
        self.runtime, self.threads, self._file = runtime, threads, file
        module = frameworks.load("onnxruntime")
        provider = PROVIDERS[runtime.name]
        if provider.name not in module.get_available_providers():
            raise UnavailableError(
                f"Expected an ONNX Runtime with its {provider.name}, got {module.__version__} with "
                f"{', '.join(module.get_available_providers())}. Try pip install {provider.package}."
            )
        self._refusals = _refusals()
        # What lies beside it is looked at before the runtime follows its paths.
        model = read_model(file)
        scales = quantizations(model)
        options = module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _QUIET
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        outputs = [value.name for value in model.graph.output]
        self._intermediates = Intermediates(model, file) if keep_intermediates else None
        source = str(file) if self._intermediates is None else self._intermediates.content
        try:
            self._session = module.InferenceSession(
                source, options, providers=list(dict.fromkeys((provider.name, CPU)))
            )
        except self._refusals as error:
            raise ModelError(
                f"{runtime.name} refused {file.name}: {_words(error)}. Expected an .onnx file that this runtime "
                "knows; try `edgeopt inspect`, a newer onnxruntime, or where its operator set is below 7, "
                "onnx.version_converter."
            ) from error
        given = self._session.get_inputs()
        if other := [f"{value.name!r} of {value.type}" for value in given if not _is_numeric(value.type)]:
            raise ModelError(
                f"Expected {file.name} to take tensors of numbers, got {', '.join(other)}. Try a file without what "
                "prepares texts or sequences, and prepare them before it."
            )
        self._declared = tuple(_spec(value, scales) for value in given)
        self.outputs = tuple(_spec(value, scales) for value in self._session.get_outputs() if value.name in outputs)
        self._batches: bool | None = None
        self._last: dict[str, np.ndarray] = {}
        self.inputs = tuple(
            replace(spec, shape=(*(n or 1 for n in spec.shape[:1]), *(n or FREE_SIZE for n in spec.shape[1:])))
            for spec in self._declared
        )
        if provider.name not in self._session.get_providers():
            raise UnavailableError(
                f"Expected {provider.name} to start here, got ONNX Runtime on the CPU in its place. Try --verbose, "
                f"which shows its own words, and what {provider.package} needs beside it."
            )
        if provider.name != CPU and profile is None:
            self._look_at_share(model, provider.name)

    @property
    def declared(self) -> tuple[TensorSpec, ...]:
        """See Session.declared."""
        return self._declared

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Session.run."""
        require_inputs(inputs, self.inputs)
        try:
            found = self._session.run([spec.name for spec in self.outputs], dict(inputs))
            self._last = dict(inputs)
        except self._refusals as error:
            raise ModelError(
                f"{self.runtime.name} could not run {self._file.name}: {_words(error)}. Expected a file that runs as "
                "well as it loads; try other shapes, or another scheme."
            ) from error
        return {spec.name: np.asarray(values) for spec, values in zip(self.outputs, found)}

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """See Session.invoke_ns. Inputs and outputs stay where they are, as in an app that binds them once."""
        require_inputs(inputs, self.inputs)
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for spec in self.outputs:
            binding.bind_output(spec.name)
        return times_ns(lambda: self._session.run_with_iobinding(binding), runs)

    def tensors(self) -> dict[str, np.ndarray]:
        """See Session.tensors: as real numbers, by the names of the file that it was made of where it was made here."""
        if self._intermediates is None:
            return super().tensors()
        names = self._intermediates.names
        return self._intermediates.told(dict(zip(names, self._session.run(list(names), self._last))))

    def resize(self, batch_size: int) -> bool:
        """See Session.resize."""
        if all(bool(spec.shape) and spec.shape[0] == batch_size for spec in self.inputs):
            return True
        if self._batches is False or any(not spec.shape or spec.shape[0] is not None for spec in self._declared):
            return False
        before = [spec.shape for spec in self.inputs]
        shapes = [(batch_size, *shape[1:]) for shape in before]
        if self._batches is None:
            self._batches = batch_is_its_samples(self, shapes, self._set, refusals=self._refusals)
        self._set(shapes if self._batches else before)
        return self._batches

    def reshape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """See Session.reshape."""
        for spec in self._declared:
            shape = shapes[spec.name]
            if len(shape) != len(spec.shape) or any(w not in (None, n) for n, w in zip(shape, spec.shape)):
                raise self.runtime.refuses_shape(spec, shapes)
        self._set([shapes[spec.name] for spec in self._declared])

    def end_profiling(self) -> str:
        """Ends the log of times, and returns its path."""
        return str(self._session.end_profiling())

    def close(self) -> None:
        """See Session.close."""
        self._session = None

    def _look_at_share(self, model: Any, provider: str) -> None:
        """Runs the file once to see what the provider takes of it.

        Raises:
            UnavailableError: it takes nothing.
        """
        with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
            session = OnnxSession(self._file, self.runtime, threads=self.threads, profile=Path(folder) / "profile")
            session.run(generated(session.inputs, seed=0))
            events = json.loads(Path(session.end_profiling()).read_text())
        operators = [node.op_type for node in model.graph.node if node.op_type != "Constant"]
        found = providers.taken(events, len(operators))
        self.delegated_share, self.undelegated = found.share, counted(found.left)
        if not found.share:
            raise UnavailableError(
                f"{provider} took none of the {len(operators)} operators of {self._file.name} "
                f"({', '.join(counted(operators))}): everything would run on the CPU. Try --runtime onnxruntime."
            )

    def _set(self, shapes: Sequence[tuple[int | None, ...]]) -> None:
        self.inputs = tuple(replace(spec, shape=tuple(shape)) for spec, shape in zip(self.inputs, shapes))


def _refusals() -> tuple[type[BaseException], ...]:
    """Returns what onnxruntime raises when it refuses a file or an input."""
    state = frameworks.load("onnxruntime").capi.onnxruntime_pybind11_state
    own = (getattr(state, name) for name in dir(state))
    return (*(one for one in own if isinstance(one, type) and issubclass(one, Exception)), ValueError, RuntimeError)


def _words(error: BaseException) -> str:
    """Returns what went wrong without what onnxruntime puts before it: "[ONNXRuntimeError] : 10 : INVALID_GRAPH : "."""
    return one_line(error).rpartition("[ONNXRuntimeError] : ")[2].split(" : ", 2)[-1].strip()


def _is_numeric(kind: str) -> bool:
    dtype = kind.removeprefix("tensor(").removesuffix(")")
    return kind.startswith("tensor(") and _DTYPES.get(dtype, dtype) in FED


def _spec(value: Any, scales: Mapping[str, Any]) -> TensorSpec:
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    return TensorSpec(value.name, shape, _DTYPES.get(dtype, dtype), scales.get(value.name))
