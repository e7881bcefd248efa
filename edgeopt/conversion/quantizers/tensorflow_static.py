"""TensorFlow's calibrator and its quantizer of calibrated files: int8 throughout.

Run on a float file they give the integers of a conversion from Keras, bit for bit, in a tenth of the time.
"""

from __future__ import annotations

from edgeopt import frameworks
from edgeopt.conversion.quantizers.contract import Quantizer, Source
from edgeopt.tflite.interface import with_moved_integers
from edgeopt.vocabulary import Scheme


def make(source: Source, scheme: Scheme) -> bytes:
    """Returns the calibrated file in integers."""
    tf = frameworks.load("tensorflow")
    content = bytes(
        frameworks.load("tf_lite_convert").mlir_quantize(
            source.calibrated.content,
            disable_per_channel=scheme.granularity == "tensor",
            disable_per_channel_for_dense_layers=scheme.granularity_of_dense == "tensor",
            input_data_type=tf.as_dtype(scheme.inputs),
            output_data_type=tf.as_dtype(scheme.inputs),
        )
    )
    return content if scheme.inputs == "float32" else with_moved_integers(content)


QUANTIZER = Quantizer(
    "TensorFlow's quantizer, from the calibrated file",
    make,
    {
        "weights": ("int8",),
        "activations": ("int8",),
        "inputs": ("float32", "int8", "uint8"),
        "needs_calibration": (True,),
        "granularity": ("tensor", "channel"),
        "symmetric": (True,),
        "algorithm": ("min-max",),
    },
    avoids=frozenset({"WHILE"}),
)
