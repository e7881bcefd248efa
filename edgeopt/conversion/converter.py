"""A loaded model goes in; it in any number of schemes comes out, lowered and calibrated at most once."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt import data as datasets
from edgeopt import files, progress
from edgeopt.conversion import holding, quantizers
from edgeopt.conversion.calibrating import Calibrated, calibrate
from edgeopt.conversion.foreign import understood
from edgeopt.conversion.lowering import Floating, Graph, float_file_of, graph_of
from edgeopt.conversion.refusals import in_words, layer_in
from edgeopt.conversion.streaming import Streamed, streamed
from edgeopt.conversion.streaming.states import alike, noted
from edgeopt.conversion.unconvertible import unconvertible
from edgeopt.conversion.unrolling import unrolled
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.frameworks import load
from edgeopt.loading import proof
from edgeopt.schemes import scheme as scheme_named
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import compact
from edgeopt.tflite.weight_grid import TRAINED
from edgeopt.vocabulary import Scheme, Shape, TensorSpec

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.loading import LoadedModel

# Samples by input, and of each the model's outputs.
Answers = tuple[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], ...]


@dataclass(frozen=True)
class ConvertOptions:
    """What may be said about a conversion beside its scheme.

    Attributes:
        batch_size: the first dimension of every input; None leaves it free, which delegates do not like.
        calibration: the samples that set activation ranges.
        trust: code inside the model file may run.
        custom_objects: a Python file that defines the model's own layers.
        shapes: sizes that the model leaves free, by input, with the batch first; "" names the only input. What is
            not said is as the calibration samples are.
        stream: frames that the file reads at a time, 0 for as few as the model allows; None for whole samples.
        time_axis: of the frames, the batch is 0.
    """

    batch_size: int | None = 1
    calibration: Part | None = None
    custom_objects: Path | None = None
    trust: bool = False
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    stream: int | None = None
    time_axis: int = 1


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
    def rescaling(self) -> tuple[str, ...]:
        """The kinds of layers with which the model brings raw values to its own scale."""
        return tuple(kind for kind in ("Rescaling", "Normalization") if kind in self.layer_kinds)


class Converter:
    """Turns one loaded model into any number of schemes.

    Runs TensorFlow in this process; IsolatedConverter is the same in a worker.
    """

    def __init__(self, model: LoadedModel, options: ConvertOptions) -> None:
        self._model = model
        self._options = options
        self._as_it_is = _Form(model, options)
        if options.stream is not None:
            steps = streamed(model, step=options.stream, axis=options.time_axis)
            self._as_it_is = _Form(steps.model, options, notes=steps.notes, steps=steps)

    def summary(self) -> ModelSummary:
        """Returns what was loaded."""
        model = self._model
        return ModelSummary(
            model.path,
            model.source_format,
            model.inputs,
            model.outputs,
            model.notes,
            model.unbridged,
            model.layer_kinds,
        )

    def convert(self, scheme: Scheme | str, output: Path) -> tuple[str, ...]:
        """Writes the model in `scheme`, or the one of that name, to `output`; returns and raises as `to_bytes`."""
        content = self.to_bytes(scheme)
        scheme = self._wanted(scheme)
        files.atomic_write(output, content)
        return (*self._form_for(scheme).notes, *holding.remarks(content, scheme), *self._grown(content, scheme))

    def to_bytes(self, scheme: Scheme | str) -> bytes:
        """Returns the model in `scheme`, or the one of that name, as the bytes of a `.tflite` file.

        Raises:
            ConfigError: the scheme needs calibration data and none was given, or its maker cannot make it.
            ConversionError: the quantizer refused, or made something else than the scheme says.
        """
        scheme = _scheme(scheme)
        if scheme.needs_calibration and self._options.calibration is None:
            raise ConfigError(
                f"The scheme {scheme.name} sets activation ranges from real samples, and got none. "
                "Try --data FILE (a hundred or more typical inputs), or --scheme dynamic, which needs none."
            )
        if words := unconvertible(self._model.layer_kinds, scheme, dying=True):
            raise ConversionError(f"Expected layers that a .tflite in {scheme.name} can hold, got {words}.")
        scheme = self._wanted(scheme)
        with in_words(scheme):
            if scheme.weights.startswith("int"):
                holding.require_numbers(self._form_for(scheme).float_file)
            content = quantizers.quantize(self._form_for(scheme), scheme)
        content = content if scheme.weights == "float32" else compact(content)
        holding.require(content, scheme)
        steps = self._as_it_is.steps
        return content if steps is None else noted(content, steps.stream)

    def answers(self, sizes: Sequence[Shape], samples: Sequence[Mapping[str, np.ndarray]] | None = None) -> Answers:
        """Returns samples and what the model itself makes of each; of a `.tflite` it is not known.

        Args:
            sizes: of the inputs, the batch first; the model leaves them free.
            samples: by input; generated ones where None.
        """
        keras = self._model.keras if self._model.keras is not None else self._model.original
        if self._model.source_format == "tflite" or (samples is None and self._model.keras is None):
            return ()
        names = [spec.name for spec in self._model.inputs]
        if samples is None:
            samples = [dict(zip(names, proof.generated_inputs(keras, shapes=sizes)))]
        constant, function = load("tensorflow").constant, self._model.inference_function(None)
        found = []
        for sample in samples:
            outputs = function(*(constant(sample[spec.name], spec.dtype) for spec in self._model.inputs))
            found.append((sample, {name: np.asarray(value) for name, value in outputs.items()}))
        return tuple(found)

    def suspects(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns the layers that loop in the model's float file, and the names of all its operators."""
        main = read(self._as_it_is.float_file).main
        written = [main.tensors[o.outputs[0]].name for o in main.operators if o.name == "WHILE" and o.outputs]
        loops = dict.fromkeys(layer_in(name) for name in written)
        return tuple(loops), tuple(dict.fromkeys(operator.name for operator in main.operators))

    def simulate(self, output: Path) -> None:
        """Writes a fake-quantized model as a float file that rounds as it does, to trace what int8 makes of it.

        Raises:
            ConfigError: the model is not fake-quantized.
        """
        simulation = self._as_it_is.floating.simulation
        if simulation is None:
            raise ConfigError(
                f"Expected a fake-quantized model, got {self._model.path}, which rounds nothing. Try edgeopt qat first."
            )
        files.atomic_write(output, simulation)

    def _grown(self, content: bytes, scheme: Scheme) -> tuple[str, ...]:
        """Returns in words that a file is larger than the `.tflite` it was made of, where it is; empty elsewhere."""
        source = self._model.path
        if self._model.source_format != "tflite" or scheme.weights == "float32":
            return ()
        before = source.stat().st_size
        return (
            (f"larger than {source.name}, of {before:,} bytes, that it was made of",) if len(content) > before else ()
        )

    def _wanted(self, scheme: Scheme | str) -> Scheme:
        """Returns the scheme, below eight bits as the model was trained for it where it was."""
        scheme = _scheme(scheme)
        graph = self._as_it_is.graph if scheme.is_low_bit and not scheme.dynamic else None
        return replace(scheme, algorithm=TRAINED) if graph is not None and graph.rounds else scheme

    def _form_for(self, scheme: Scheme) -> _Form:
        """Returns the model in the form that the scheme's quantizer can take."""
        avoided = quantizers.maker_of(scheme).avoids
        return self._unrolled if avoided and avoided & self._as_it_is.operators else self._as_it_is

    @cached_property
    def _unrolled(self) -> _Form:
        """The model without loops, where it can be had."""
        model = unrolled(self._model)
        return self._as_it_is if model is None else _Form(model, self._options, notes=model.notes)


class _Form:
    """A loaded model as quantizers start from it: a graph, a float file, a calibrated one, each made when asked for."""

    def __init__(
        self,
        model: LoadedModel,
        options: ConvertOptions,
        notes: tuple[str, ...] = (),
        steps: Streamed | None = None,
    ) -> None:
        self.notes, self.steps = notes, steps
        self._model = model
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="edgeopt-")

    @cached_property
    def graph(self) -> Graph | None:
        if self._model.source_format == "tflite":
            return None
        return graph_of(self._model, Path(self._folder.name) / "graph", batch_size=self._options.batch_size)

    @cached_property
    def floating(self) -> Floating:
        if self.graph is None:
            return Floating(understood(self._model.path.read_bytes(), self._model.inputs))
        return float_file_of(self.graph)

    @cached_property
    def calibrated(self) -> Calibrated:
        assert self._options.calibration is not None
        part, batch_size = self._options.calibration, self._options.batch_size or 1
        if self.steps is None:
            return calibrate(self.floating, datasets.bind(part, self._model.inputs), batch_size=batch_size)
        samples = self.steps.calibration(datasets.bind(part, self.steps.whole.inputs))
        found = calibrate(self.floating, samples, batch_size=batch_size)
        return alike(found, self.steps.stream)

    @cached_property
    def operators(self) -> frozenset[str]:
        return frozenset(code.name for code in read(self.float_file).codes)

    @property
    def plain_graph(self) -> Path | None:
        return None if self.graph is None or self.graph.rounds else self.graph.folder

    @property
    def float_file(self) -> bytes:
        return self.floating.content


def _scheme(scheme: Scheme | str) -> Scheme:
    return scheme_named(scheme) if isinstance(scheme, str) else scheme


def open_converter(path: Path, options: ConvertOptions) -> Converter:
    """Loads the model at `path` in this process and returns its converter."""
    from edgeopt.loading import load_model
    from edgeopt.loading.sizes import with_sizes

    progress.tell("loading the model")
    model = load_model(path, custom_objects=options.custom_objects, trust=options.trust)
    return Converter(with_sizes(model, options.shapes, part=options.calibration), options)
