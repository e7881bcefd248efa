"""A converted file or a model of either Keras goes in, an Inspection comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeopt import delegates, formats, targets, workers
from edgeopt.advice import advice
from edgeopt.api.models import as_path
from edgeopt.errors import ConfigError, ModelError
from edgeopt.formats import signatures
from edgeopt.inspection import Inspection, inspect_converted
from edgeopt.loading.formats import FORMATS as SOURCES
from edgeopt.tflite.reader import read_once


def inspect(
    model: Any,
    *,
    target: str | None = None,
    delegate: str | None = None,
    signature: str | None = None,
    custom_objects: Path | None = None,
    trust: bool = False,
) -> Inspection:
    """Returns what a converted file or a Keras model holds, and what each technique can do for it.

    Args:
        model: a path, or a Keras model at hand.
        delegate: one of `delegates.DELEGATES`: what it leaves on the CPU, and why, comes along among the verdicts.
        signature: of a `.tflite` that has several; that of its main graph when None.
        target: a name of `targets.TARGETS` or a data file of one's own: what the `.tflite` costs there comes along.
        custom_objects, trust: see `loading.load_model`.

    Raises:
        ConfigError: there is no such target, or the model is no `.tflite`, which alone has a cost.
        ModelError: the model cannot be read.
    """
    device = None if target is None else targets.target(target)
    with as_path(model) as path:
        if formats.is_converted(path):
            with signatures.of(path, signature) as (file, notes):
                found = _of_converted(file, device, delegate)
            return replace(found, path=str(path), notes=(*notes, *found.notes))
        if signature is not None:
            _require_tflite(path, "", "--signature", signature)
        if delegate is not None:
            _require_tflite(path, "", "--delegate", delegate)
        if device is not None:
            raise ConfigError(
                f"Expected a .tflite with --target, got {path}: the file that ships is what has a cost. "
                f"Try: edgeopt convert {path} -o {path.stem}.tflite --scheme {device.best_scheme} --target {target}."
            )
        try:
            worker = workers.shared("tensorflow")
            found = worker.call("edgeopt.inspection:inspect_file", path, custom_objects=custom_objects, trust=trust)
            return replace(found, advice=advice(found.facts))
        except workers.WorkerCrashed as crash:
            raise ModelError(f"Loading {path} ended the process: {crash.reason}. Try saving the model anew.") from None


def _of_converted(path: Path, device: targets.Target | None, delegate: str | None) -> Inspection:
    """Returns what a file holds, and what it costs on a device.

    Raises:
        ConfigError: it is no `.tflite`, which alone has a cost.
        ModelError: it cannot be read.
    """
    found = inspect_converted(path)
    if found.format in SOURCES:
        found = replace(found, advice=advice(found.facts))
    if delegate is not None:
        _require_tflite(path, found.format, "--delegate", delegate)
        if unknown := delegates.unknown(delegate):
            found = replace(found, notes=(*found.notes, unknown))
        else:
            left = delegates.verdict(read_once(path), delegate)
            found = replace(found, verdicts={**found.verdicts, f"{delegate} delegate": left})
    if device is None:
        return found
    if found.format != "tflite":
        raise ConfigError(
            f"Expected a .tflite with --target, got {path}: it is what runs on {device.name}. "
            f"Try: edgeopt convert MODEL -o {path.stem}.tflite --scheme {device.best_scheme} --target "
            f"{device.name}."
        )
    costs = targets.assess(device, read_once(path))
    return replace(found, target=costs, verdicts={**found.verdicts, device.name: costs.problems})


def _require_tflite(path: Path, form: str, option: str, value: str) -> None:
    if form != "tflite":
        raise ConfigError(
            f"Expected a .tflite with {option} {value}, got {path}: it says something of the file that ships. "
            f"Try: edgeopt convert MODEL -o {path.stem}.tflite."
        )
