"""A file of several signatures and samples go in, what LiteRT makes of them by one of its signatures comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeopt import frameworks
from edgeopt.errors import ModelError
from edgeopt.native_log import native_log


def run(file: Path, name: str, samples: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Returns the outputs, as they are stored, of samples that are so too, in this process.

    Raises:
        ModelError: LiteRT refuses the file.
    """
    litert = frameworks.load("litert")
    try:
        with native_log():
            interpreter = litert.Interpreter(model_path=str(file))
            runner = interpreter.get_signature_runner(name)
            return [runner(**sample) for sample in samples]
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"Expected a file that LiteRT runs by its signature {name}, got {file.name}: {error}. Try converting it "
            "again."
        ) from error
