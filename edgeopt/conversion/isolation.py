"""The path of a model goes in; its converter, in a worker process that may crash without us, comes out."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks, workers
from edgeopt.conversion.converter import Answers, Converter, ConvertOptions, ModelSummary, open_converter
from edgeopt.conversion.refusals import crash_in_words
from edgeopt.errors import ConversionError, EdgeoptError
from edgeopt.runtimes import Request, refusals
from edgeopt.vocabulary import Scheme, Shape

# TensorFlow 2.20 and 2.21 leak about 20 MB a conversion.
RENEW_AFTER = 50


def imported() -> None:
    """Imports what a converter will need in this process: seconds, which `workers.begin` takes beforehand."""
    for name in ("tensorflow", "keras", "tf_keras"):
        frameworks.load(name)


def opened(path: Path, options: ConvertOptions) -> Converter:
    """As `open_converter`, in a process that is there for this model alone."""
    converter = open_converter(path, options)
    # TensorFlow's converter collects garbage in every conversion: half its time, where all that is loaded is looked at.
    gc.collect()
    gc.freeze()
    return converter


class IsolatedConverter:
    """A Converter in a worker process, which a crash of the converter ends instead of us."""

    def __init__(self, path: Path, options: ConvertOptions) -> None:
        self._path = path
        self._options = options
        self._worker = workers.Worker("conversion")
        self._remote: workers.Remote | None = None
        self._summary: ModelSummary | None = None
        self._conversions = 0

    def __enter__(self) -> IsolatedConverter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker."""
        self._remote = None
        self._conversions = 0
        self._worker.close()

    def summary(self) -> ModelSummary:
        """Loads the model and returns what was loaded.

        Raises:
            ModelError: it cannot be read, or not safely.
        """
        if self._summary is None:
            self._summary = self._call("summary", doing=f"Loading {self._path}")
        return self._summary

    def convert(self, scheme: Scheme | str, output: Path) -> tuple[str, ...]:
        """As Converter.convert; a crash becomes a ConversionError that says what it was and what to try."""
        self.summary()
        if self._conversions == RENEW_AFTER:
            self.close()
        self._conversions += 1
        try:
            remarks: tuple[str, ...] = self._opened().call("convert", scheme, output)
            return remarks
        except workers.WorkerCrashed as crash:
            name = scheme if isinstance(scheme, str) else scheme.name
            loops, operators = self._suspects()
            raise ConversionError(crash_in_words(name, crash, loops=loops, operators=operators)) from None

    def simulate(self, output: Path) -> None:
        """As Converter.simulate; a crash becomes a ConversionError."""
        self._call("simulate", output, doing=f"Writing what {self._path} simulates")

    def answers(self, sizes: Sequence[Shape], samples: Sequence[Mapping[str, np.ndarray]] | None = None) -> Answers:
        """As Converter.answers; a crash becomes a ConversionError."""
        found: Answers = self._call("answers", sizes, samples, doing=f"Running {self._path}")
        return found

    def _suspects(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns, from a new worker, what of the model may have killed the converter; see Converter.suspects."""
        self.close()
        try:
            found: tuple[tuple[str, ...], tuple[str, ...]] = self._opened().call("suspects")
            return found
        except (workers.WorkerCrashed, EdgeoptError):
            self.close()
            return (), ()

    def _call(self, method: str, *args: Any, doing: str) -> Any:
        try:
            return self._opened().call(method, *args)
        except workers.WorkerCrashed as crash:
            self.close()
            raise ConversionError(f"{doing} ended the process: {crash.reason}.") from None

    def _opened(self) -> workers.Remote:
        if self._remote is None:
            self._remote = self._worker.create("edgeopt.conversion.isolation:opened", self._path, self._options)
        return self._remote


def convert_for(
    converter: IsolatedConverter, scheme: Scheme, output: Path, *, promises: Sequence[Request] = ()
) -> tuple[str, ...]:
    """Writes the model in `scheme` to `output` so that the promised runtimes accept it.

    Operator versions are read from the file. Where a promised runtime is too old for per-channel Dense weights, the
    model is converted again with one scale per Dense layer.

    Returns:
        What is worth saying of the file and what was done for the promises, in words. What a runtime still refuses is
        for `parity.check` to say.
    """
    remarks = converter.convert(scheme, output)
    lacking = {reason for request in promises for reason in refusals(output, request)}
    if not any("FULLY_CONNECTED" in reason for reason in lacking):
        return remarks
    remarks = converter.convert(replace(scheme, dense_granularity="tensor"), output)
    wanted = ", ".join(f"{r.runtime.name} {r.version or ''}".strip() for r in promises)
    return (*remarks, f"Dense layers have one scale for all their weights, not one per channel, because of {wanted}")
