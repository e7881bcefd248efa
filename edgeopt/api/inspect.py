"""A `.tflite` file or a model of either Keras goes in, an Inspection comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeopt import workers
from edgeopt.api.models import as_path
from edgeopt.errors import ModelError
from edgeopt.inspection import Inspection, inspect_tflite
from edgeopt.tflite.reader import IDENTIFIER


def inspect(model: Any, *, custom_objects: Path | None = None, trust: bool = False) -> Inspection:
    """Returns what a `.tflite` file or a Keras model holds, and what each technique can do for it."""
    with as_path(model) as path:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(8)[4:] == IDENTIFIER or path.suffix == ".tflite":
                    return inspect_tflite(path)
        try:
            worker = workers.shared("tensorflow")
            return worker.call("edgeopt.inspection:inspect_file", path, custom_objects=custom_objects, trust=trust)
        except workers.WorkerCrashed as crash:
            raise ModelError(f"Loading {path} ended the process: {crash.reason}. Try saving the model anew.") from None
