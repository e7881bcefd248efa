"""A loaded model and a scheme go in, the bytes of a `.tflite` come out.

A model is lowered once, to a float file with a signature and a fixed batch. Post-training integer schemes start from
that file and share one calibration: the converter's own calibrator and quantizer run on it directly, which gives the
same integers as a conversion from Keras, in a tenth of the time. float16 and dynamic range come from the same
lowered graph; for a model that arrived as `.tflite`, where there is no graph, ai-edge-quantizer makes them.

A fake-quantized model is one more float file once its rounding is taken out: int8 then takes the trained ranges where
there are some and calibrated ones elsewhere, so that no operator stays in float for want of a range. In float schemes
it computes with its rounded weights and without the rounding of activations.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import data as datasets
from edgeopt import files, frameworks, progress, workers
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.runtimes import Request
from edgeopt.runtimes.promises import refusals
from edgeopt.schemes import scheme as scheme_named
from edgeopt.tflite import trained_ranges
from edgeopt.tflite.rewrite import compact, with_truthful_versions
from edgeopt.vocabulary import Scheme, TensorSpec

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.loading import LoadedModel

SIGNATURE = "serving_default"


@dataclass(frozen=True)
class ConvertOptions:
    """What may be said about a conversion beside its scheme.

    Attributes:
        batch_size: the first dimension of every input; None leaves it free, which delegates do not like.
        calibration: the samples that set activation ranges.
        trust: code inside the model file may run.
        custom_objects: a Python file that defines the model's own layers.
    """

    batch_size: int | None = 1
    calibration: Part | None = None
    custom_objects: Path | None = None
    trust: bool = False


@dataclass(frozen=True)
class ModelSummary:
    """What is worth saying of a model that was loaded, without the model."""

    path: Path
    source_format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...] = ()
    unbridged: tuple[tuple[str, str], ...] = ()
    layer_kinds: tuple[str, ...] = ()

    @property
    def rescales(self) -> bool:
        """Whether the model brings raw values to its own scale."""
        return not {"Rescaling", "Normalization"}.isdisjoint(self.layer_kinds)


class Converter:
    """Turns one loaded model into any number of schemes; lowers and calibrates it at most once.

    Runs TensorFlow in this process; IsolatedConverter is the same in a worker.
    """

    def __init__(self, model: LoadedModel, options: ConvertOptions) -> None:
        self._model = model
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="edgeopt-")
        self._saved_model: Path | None = None
        self._float: bytes | None = None
        self._rounds = False
        self._simulation: bytes | None = None
        self._ranges: trained_ranges.Ranges = {}
        self._calibrated: tuple[Any, bytes] | None = None

    def summary(self) -> ModelSummary:
        """Returns what was loaded."""
        model = self._model
        source = model.keras if model.keras is not None else model.original
        kinds = sorted({type(layer).__name__ for layer in getattr(source, "layers", ())})
        return ModelSummary(
            model.path, model.source_format, model.inputs, model.outputs, model.notes, model.unbridged, tuple(kinds)
        )

    def convert(self, name: str, output: Path, *, per_tensor_dense: bool = False) -> None:
        """Writes the model in the scheme called `name` to `output`.

        Args:
            name: key of SCHEMES.
            output: the file to write.
            per_tensor_dense: one scale for all of a Dense layer's weights: older runtimes know no other.

        Raises:
            ConfigError: the scheme needs calibration data and none was given.
            ConversionError: the converter refused.
        """
        files.atomic_write(output, self.to_bytes(scheme_named(name), per_tensor_dense=per_tensor_dense))

    def to_bytes(self, scheme: Scheme, *, per_tensor_dense: bool = False) -> bytes:
        """Returns the model in `scheme` as the bytes of a `.tflite` file; arguments and errors as `convert`."""
        if scheme.needs_calibration and self._options.calibration is None:
            raise ConfigError(
                f"The scheme {scheme.name} sets activation ranges from real samples, and got none. "
                "Try --data FILE (a hundred or more typical inputs), or --scheme dynamic, which needs none."
            )
        with _refusals_as_conversion_errors(scheme):
            return (
                self._lowered() if scheme.weights == "float32" else compact(self._quantized(scheme, per_tensor_dense))
            )

    def simulate(self, output: Path) -> None:
        """Writes a fake-quantized model as a float file that rounds as it does, to trace what int8 makes of it.

        Raises:
            ConfigError: the model is not fake-quantized.
        """
        self._lowered()
        if self._simulation is None:
            raise ConfigError(
                f"Expected a fake-quantized model, got {self._model.path}, which rounds nothing. Try edgeopt qat first."
            )
        files.atomic_write(output, self._simulation)

    def _graph(self) -> Path | None:
        if self._model.source_format == "tflite":
            return None
        if self._saved_model is None:
            tf = frameworks.load("tensorflow")
            progress.tell("lowering the model")
            function = self._model.inference_function(self._options.batch_size)
            self._rounds = _rounds(function)
            module = tf.Module()
            module.variables_of_the_graph = list(function.variables)
            self._saved_model = Path(self._folder.name) / "saved_model"
            tf.saved_model.save(module, str(self._saved_model), signatures={SIGNATURE: function})
        return self._saved_model

    def _lowered(self) -> bytes:
        if self._float is None:
            graph = self._graph()
            lowered = self._model.path.read_bytes() if graph is None else self._from_graph(scheme_named("float32"))
            if self._rounds:
                self._simulation = trained_ranges.simulation(lowered)
                lowered, self._ranges = trained_ranges.separated(lowered)
            self._float = lowered
        return self._float

    def _quantized(self, scheme: Scheme, per_tensor_dense: bool) -> bytes:
        if scheme.needs_calibration:
            return self._static(scheme, per_tensor_dense)
        make = self._from_float if self._graph() is None or self._rounds else self._from_graph
        return make(scheme, per_tensor_dense)

    def _from_graph(self, scheme: Scheme, per_tensor_dense: bool = False) -> bytes:
        tf = frameworks.load("tensorflow")
        converter = tf.lite.TFLiteConverter.from_saved_model(str(self._graph()), signature_keys=[SIGNATURE])
        if scheme.weights != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if scheme.weights == "float16":
            converter.target_spec.supported_types = [tf.float16]
        converter._experimental_disable_per_channel_quantization_for_dense_layers = per_tensor_dense
        return bytes(converter.convert())

    def _from_float(self, scheme: Scheme, per_tensor_dense: bool) -> bytes:
        work = frameworks.load("ai_edge_quantizer").Quantizer(self._lowered())
        if scheme.weights == "float16":
            work.load_quantization_recipe([_recipe_rule("*", "CHANNELWISE", "FLOAT", 16)])
        else:
            rules = [_recipe_rule("*", "CHANNELWISE", "INT", 8)]
            if per_tensor_dense:
                rules.append(_recipe_rule("FULLY_CONNECTED", "TENSORWISE", "INT", 8))
            work.load_quantization_recipe(rules)
        # ai-edge-quantizer writes version 1 for every operator, and a runtime that is too old for the file would
        # compute garbage instead of refusing it.
        return with_truthful_versions(bytes(work.quantize().quantized_model))

    def _static(self, scheme: Scheme, per_tensor_dense: bool) -> bytes:
        tf = frameworks.load("tensorflow")
        calibrator, calibrated = self._calibration()
        if scheme.activations == "int16":
            io_type = tf.as_dtype(scheme.inputs).as_numpy_dtype
            return bytes(
                calibrator._calibrator.QuantizeModel(
                    np.dtype(io_type).num,
                    np.dtype(io_type).num,
                    True,  # operators without a 16x8 kernel stay in float, and inspection names them
                    np.dtype(np.int16).num,
                    np.dtype(np.int64).num,
                    False,
                    per_tensor_dense,
                )
            )
        return bytes(
            frameworks.load("tf_lite_convert").mlir_quantize(
                calibrated,
                input_data_type=tf.as_dtype(scheme.inputs),
                output_data_type=tf.as_dtype(scheme.inputs),
                disable_per_channel_for_dense_layers=per_tensor_dense,
            )
        )

    def _calibration(self) -> tuple[Any, bytes]:
        """Returns the calibrator, fed once with every sample, and the float file with the ranges it saw."""
        if self._calibrated is None:
            calibration = frameworks.load("tf_calibrator")
            feeder = calibration.Calibrator(calibration.add_intermediate_tensors(self._lowered()))
            feeder._feed_tensors(self._representative_dataset(), True)
            # The native part points into the bytes that the feeder holds: it may not outlive it.
            self._calibrated = feeder, trained_ranges.with_ranges(feeder._calibrator.Calibrate(), self._ranges)
        return self._calibrated

    def _representative_dataset(self) -> Callable[[], Iterator[Any]]:
        """Returns a generator function as TFLiteConverter takes it: one sample a step, by signature name."""
        part = self._options.calibration
        assert part is not None
        bound = datasets.bind(part, self._model.inputs)
        as_fed = self._feeder()
        batch_size = self._options.batch_size or 1

        def samples() -> Iterator[Any]:
            batches = bound.batches(batch_size, drop_remainder=True)
            for batch in progress.track(batches, "calibrating", len(bound) // batch_size):
                yield as_fed({name: np.ascontiguousarray(values) for name, values in batch.inputs.items()})

        return samples

    def _feeder(self) -> Callable[[Mapping[str, np.ndarray]], Any]:
        """Returns what makes of inputs by name what the calibrator takes: by signature where the file has one."""
        interpreter = frameworks.load("litert").Interpreter(model_content=self._lowered())
        signatures = interpreter.get_signature_list()
        if signatures:
            key = SIGNATURE if SIGNATURE in signatures else next(iter(signatures))
            return lambda sample: (key, dict(sample))
        order = [detail["name"] for detail in interpreter.get_input_details()]
        return lambda sample: [sample[name] for name in order]


def _rounds(function: Any) -> bool:
    """Whether a concrete function simulates integers."""
    definition = function.graph.as_graph_def()
    nodes = (node for part in (definition.node, *(f.node_def for f in definition.library.function)) for node in part)
    return any(node.op.startswith("FakeQuant") for node in nodes)


def _recipe_rule(operation: str, granularity: str, dtype: str, bits: int) -> dict[str, Any]:
    """Returns one rule of an ai-edge-quantizer recipe, set as TFLiteConverter does: small tensors stay as they are."""
    floating = dtype == "FLOAT"
    return {
        "regex": ".*",
        "operation": operation,
        "algorithm_key": "float_casting" if floating else "min_max_uniform_quantize",
        "op_config": {
            "weight_tensor_config": {
                "num_bits": bits,
                "symmetric": True,
                "granularity": granularity,
                "dtype": dtype,
                "block_size": 0,
            },
            "compute_precision": "FLOAT" if floating else "INTEGER",
            "explicit_dequantize": floating,
            "skip_checks": False,
            "min_weight_elements": 0 if floating else 1024,
        },
    }


def open_converter(path: Path, options: ConvertOptions) -> Converter:
    """Loads the model at `path` in this process and returns its converter."""
    from edgeopt.loading import load_model

    progress.tell("loading the model")
    return Converter(load_model(path, custom_objects=options.custom_objects, trust=options.trust), options)


class IsolatedConverter:
    """A Converter in a worker process, which a crash of the converter ends instead of us."""

    def __init__(self, path: Path, options: ConvertOptions) -> None:
        self._path = path
        self._options = options
        self._worker = workers.Worker("conversion")
        self._remote: workers.Remote | None = None
        self._summary: ModelSummary | None = None

    def __enter__(self) -> IsolatedConverter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker."""
        self._worker.close()

    def summary(self) -> ModelSummary:
        """Loads the model and returns what was loaded.

        Raises:
            ModelError: it cannot be read, or not safely.
        """
        if self._summary is None:
            self._summary = self._call("summary", doing=f"Loading {self._path}")
        return self._summary

    def convert(self, name: str, output: Path, *, per_tensor_dense: bool = False) -> None:
        """As Converter.convert; a crash becomes a ConversionError that says what it was and what to try."""
        summary = self.summary()
        try:
            self._opened().call("convert", name, output, per_tensor_dense=per_tensor_dense)
        except workers.WorkerCrashed as crash:
            self._remote = None
            raise ConversionError(_crash_in_words(name, summary, crash)) from None

    def simulate(self, output: Path) -> None:
        """As Converter.simulate; a crash becomes a ConversionError."""
        self._call("simulate", output, doing=f"Writing what {self._path} simulates")

    def _call(self, method: str, *args: Any, doing: str) -> Any:
        try:
            return self._opened().call(method, *args)
        except workers.WorkerCrashed as crash:
            self._remote = None
            raise ConversionError(f"{doing} ended the process: {crash.reason}.") from None

    def _opened(self) -> workers.Remote:
        if self._remote is None:
            self._remote = self._worker.create("edgeopt.conversion:open_converter", self._path, self._options)
        return self._remote


# Layers whose loops kill TensorFlow's quantizer, and the way round.
_LOOPING_LAYERS = ("GRU", "LSTM", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "TimeDistributed")


def _crash_in_words(name: str, summary: ModelSummary, crash: workers.WorkerCrashed) -> str:
    loops = [kind for kind in summary.layer_kinds if kind in _LOOPING_LAYERS]
    if loops:
        cause = f"The model has {', '.join(loops)}, whose loop it cannot quantize"
        remedy = f"build {loops[0]} with unroll=True, or --scheme float16"
    else:
        cause = f"Its layers are {', '.join(summary.layer_kinds)}" if summary.layer_kinds else "Its graph gives no hint"
        remedy = "--scheme dynamic or float16"
    log = f" Its last words: {crash.log.splitlines()[-1]}" if crash.log else ""
    return f"TensorFlow's converter died ({crash.reason}) making {name}. {cause}. Try: {remedy}.{log}"


@contextlib.contextmanager
def _refusals_as_conversion_errors(scheme: Scheme) -> Iterator[None]:
    refusals = (
        RuntimeError,
        ValueError,
        NotImplementedError,
        frameworks.load("tf_lite_convert").ConverterError,
        frameworks.load("tensorflow").errors.OpError,  # as when the disk is full
    )
    try:
        yield
    except refusals as error:
        raise ConversionError(f"TensorFlow's converter refused to make {scheme.name}: {_gist(error)}") from error


def _gist(error: Exception) -> str:
    """Returns the lines of a converter's complaint that a person can use."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if "error:" in line or "op:" in line or "not supported" in line] or lines
    return " ".join(useful[:3])[:600]


def convert_for(
    converter: IsolatedConverter, name: str, output: Path, *, promises: Sequence[Request] = ()
) -> tuple[str, ...]:
    """Writes the model in the scheme called `name` to `output` so that the promised runtimes accept it.

    Operator versions are read from the file. Where a promised runtime is too old for per-channel Dense weights, the
    model is converted again with one scale per Dense layer.

    Returns:
        What was done for the promises, in words. What a runtime still refuses is for `parity.check` to say.
    """
    converter.convert(name, output)
    lacking = {reason for request in promises for reason in refusals(output, request)}
    if not any(reason.startswith("FULLY_CONNECTED") for reason in lacking):
        return ()
    converter.convert(name, output, per_tensor_dense=True)
    wanted = ", ".join(f"{r.runtime.name} {r.version or ''}".strip() for r in promises)
    return (f"Dense layers have one scale for all their weights, not one per channel, because of {wanted}",)
