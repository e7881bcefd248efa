"""TensorFlow's older quantizer of calibrated files, which alone knows int16 activations."""

from __future__ import annotations

import numpy as np

from edgeopt.conversion.quantizers.contract import Quantizer, Source
from edgeopt.vocabulary import Scheme


def make(source: Source, scheme: Scheme) -> bytes:
    """Returns the calibrated file with int16 activations; biases are int64."""
    interface = np.dtype(scheme.inputs).num
    return bytes(
        source.calibrated.calibrator._calibrator.QuantizeModel(
            interface,
            interface,
            True,  # operators without a 16x8 kernel stay in float, and inspection names them
            np.dtype(np.int16).num,
            np.dtype(np.int64).num,
            scheme.granularity == "tensor",
            scheme.granularity_of_dense == "tensor",
        )
    )


QUANTIZER = Quantizer(
    "TensorFlow's older quantizer, from the calibrated file",
    make,
    {
        "weights": ("int8",),
        "activations": ("int16",),
        "inputs": ("float32", "int16"),
        "needs_calibration": (True,),
        "granularity": ("tensor", "channel"),
        "symmetric": (True,),
        "algorithm": ("min-max",),
    },
    avoids=frozenset({"WHILE", "UNIDIRECTIONAL_SEQUENCE_LSTM"}),
)
