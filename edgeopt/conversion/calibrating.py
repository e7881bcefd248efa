"""A float `.tflite` and samples go in, once; the ranges of its activations come out, in TensorFlow's own form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import frameworks, progress
from edgeopt.conversion.lowering import Floating
from edgeopt.conversion.quantizers.tensorflow_graph import SIGNATURE
from edgeopt.errors import DataError
from edgeopt.tflite import rewrite, trained_ranges
from edgeopt.tflite.reader import read

if TYPE_CHECKING:
    from edgeopt.data import Part


# With it TensorFlow's quantizer leaves every weight in floats, and says nothing. litert-torch writes it.
_UNQUANTIZED_MARKS = frozenset({"keep_stablehlo_constant"})
# Which input of an LSTM its cells are.
_CELL = 19


@dataclass(frozen=True)
class Calibrated:
    """What calibration found.

    Attributes:
        calibrator: TensorFlow's, fed with every sample. Its native part points into the bytes that its Python part
            holds, so that the two may not be parted.
        content: the float file with the ranges in it, trained ones in place of those that were found.
    """

    calibrator: Any
    content: bytes = field(repr=False)


def calibrate(floating: Floating, samples: Part, *, batch_size: int) -> Calibrated:
    """Feeds every sample to the float file and notes what range each tensor has.

    Args:
        samples: bound to the model's inputs.
        batch_size: of the file.

    Raises:
        DataError: there are fewer samples than one batch takes.
    """
    if len(samples) < batch_size:
        raise DataError(
            f"Expected at least one batch of {batch_size} samples to calibrate with, got {len(samples)}. "
            "Try a larger --calibration-samples, or a smaller --batch-size."
        )
    calibration = frameworks.load("tf_calibrator")
    calibrator = calibration.Calibrator(calibration.add_intermediate_tensors(floating.content))
    as_fed = _feeder(floating.content)

    def feed() -> Iterator[Any]:
        batches = samples.batches(batch_size, drop_remainder=True)
        for batch in progress.track(batches, "calibrating", len(samples) // batch_size):
            yield as_fed({name: np.ascontiguousarray(values) for name, values in batch.inputs.items()})

    calibrator._feed_tensors(feed, True)
    found = rewrite.without_marks(calibrator._calibrator.Calibrate(), _UNQUANTIZED_MARKS)
    return Calibrated(calibrator, _with_whole_cells(trained_ranges.with_ranges(found, floating.ranges)))


def _with_whole_cells(content: bytes) -> bytes:
    """Returns a calibrated file in which cells of LSTM layers reach from -1 to 1 at least.

    Their integer kernels look tanh of a cell up with as many bits before the point as its scale leaves of 16, and
    compute anything where that is fewer than none (`ApplyTanh`, tensorflow/lite/kernels/internal).
    """
    cells = [
        (graph.index, operator.inputs[_CELL])
        for graph in read(content).subgraphs
        for operator in graph.operators
        if operator.name == "UNIDIRECTIONAL_SEQUENCE_LSTM"
    ]

    def change(model: Any, schema: Any) -> None:
        for place, index in cells:
            found = model.subgraphs[place].tensors[index].quantization
            if found is not None and found.min is not None and len(found.min):
                found.min = [np.float32(min(float(found.min[0]), -1.0))]
                found.max = [np.float32(max(float(found.max[0]), 1.0))]

    return rewrite.changed(content, change) if cells else content


def _feeder(content: bytes) -> Callable[[Mapping[str, np.ndarray]], Any]:
    """Returns what makes of inputs by name what the calibrator takes: by signature where the file has one."""
    interpreter = frameworks.load("litert").Interpreter(model_content=content)
    signatures = interpreter.get_signature_list()
    if signatures:
        key = SIGNATURE if SIGNATURE in signatures else next(iter(signatures))
        return lambda sample: (key, dict(sample))
    order = [detail["name"] for detail in interpreter.get_input_details()]
    return lambda sample: [sample[name] for name in order]
