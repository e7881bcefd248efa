"""A runtime as its author would write it: NumPy, for files of one ADD of a tensor with itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeopt.runtimes import Delegate, Runtime, Session
from edgeopt.runtimes.interpreter import times_ns
from edgeopt.tflite.reader import read

INSTALL = "pip install tiny"


class TinySession(Session):
    """A file of one ADD."""

    def __init__(self, file: Path, runtime: Runtime) -> None:
        model = read(file)
        self.runtime, self.inputs, self.outputs = runtime, model.inputs, model.outputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        (x,) = inputs.values()
        return {self.outputs[0].name: x + x}

    def resize(self, batch_size: int) -> bool:
        self.inputs = tuple(replace(spec, shape=(batch_size, *spec.shape[1:])) for spec in self.inputs)
        return True

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        return times_ns(lambda: self.run(inputs), runs)


def version() -> str:
    return "1.0"


def load() -> None:
    pass


def refusals(file: Path, version: str) -> tuple[str, ...]:
    return tuple(f"{o.name} is no ADD" for o in read(file).main.operators if o.name != "ADD")


def open(
    file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None, keep_intermediates: bool
) -> TinySession:
    return TinySession(file, runtime)
