"""A Keras model at hand goes in; a `.keras` file of it, the same bytes whenever it is the same model, comes out.

Keras writes the time into each archive. Work is kept by the content of the model file: without the time, a notebook
that is run again finds what it did.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

# The earliest time that a zip archive can say.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def archive(model: Any, path: Path) -> None:
    """Writes `model`, of either Keras, to `path`, which ends in `.keras`."""
    model.save(path)
    with zipfile.ZipFile(path) as written:
        entries = {name: written.read(name) for name in sorted(written.namelist())}
    metadata = json.loads(entries["metadata.json"])
    metadata.pop("date_saved", None)
    entries["metadata.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as steady:
        for name, content in entries.items():
            steady.writestr(zipfile.ZipInfo(name, _NO_TIME), content)
