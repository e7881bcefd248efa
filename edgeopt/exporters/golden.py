"""Golden vectors: samples and a runtime go in, the outputs that an exported self-test has to reproduce come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeopt import files, runtimes
from edgeopt.exporters.contract import Source

if TYPE_CHECKING:
    import numpy as np


def expected(source: Source, runtime: str) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of each of the source's samples on a runtime of `runtimes.RUNTIMES`, by output name.

    Raises:
        UnavailableError: the runtime is not installed.
        ModelError: it refuses the file.
    """
    with files.temporary(source.content, source.file.name) as file:
        session = runtimes.isolated(file, runtimes.parse(runtime).runtime)
        try:
            # Sizes that the file leaves free are what the samples have: the app has them fixed.
            session.reshape({name: array.shape for name, array in source.samples[0].items()})
            return [session.run(sample) for sample in source.samples]
        finally:
            session.close()
