"""The path of a model or a Keras model at hand goes in, a path comes out."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeopt.errors import ModelError
from edgeopt.graph import legal_name
from edgeopt.loading.archiving import archive


@contextlib.contextmanager
def as_path(model: Any) -> Iterator[Path]:
    """Yields the path of `model`; a model at hand is saved for as long as the block lasts, always as the same bytes."""
    if isinstance(model, (str, Path)):
        yield Path(model)
        return
    if not hasattr(model, "save"):
        raise ModelError(f"Expected the path of a model or a Keras model, got {type(model).__name__}.")
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        path = Path(folder) / f"{legal_name(getattr(model, 'name', 'model'))}.keras"
        archive(model, path)
        yield path
