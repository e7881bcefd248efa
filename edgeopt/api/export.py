"""A `.tflite` file and what an app has to know of it go in, a project that builds comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import data as datasets
from edgeopt import files, formats, runtimes, workers
from edgeopt.choices import from_mapping
from edgeopt.data import Part
from edgeopt.errors import ConfigError, ModelError
from edgeopt.exporters import EXPORTERS, MARKER, Exported, Source, exporter, write
from edgeopt.exporters.contract import Writes
from edgeopt.exporters.edges import require_callable
from edgeopt.exporters.names import identifier
from edgeopt.language import generating
from edgeopt.runtimes import samples
from edgeopt.tflite.model import printable
from edgeopt.tflite.reader import read, read_once
from edgeopt.tflite.rewrite import without_marks
from edgeopt.tflite.stream import ENTRY, stream_of
from edgeopt.vocabulary import Preprocessing

# Enough for a self-test to tell a wrong kernel from a right one, few enough for a microcontroller's flash.
_SAMPLES = 3
# Tokens that a self-test reads and writes.
_PROMPT, _WRITTEN = 16, 16
_BUNDLE = ".litertlm"


def export(
    kind: str,
    file: Path | str,
    output: Path | str,
    *,
    name: str | None = None,
    classes: Sequence[str] = (),
    data: Any = None,
    preprocessing: Preprocessing | None = None,
    force: bool = False,
    **settings: Any,
) -> Exported:
    """Writes an app project around a `.tflite` file.

    Args:
        kind: a row of `exporters.EXPORTERS`: "micro", "android", "web".
        file: the `.tflite`.
        output: the project's folder.
        name: what the model is called in the code; the file's name if None.
        classes: names of the classes; those of the data if not given.
        data: a Dataset, or what `edgeopt.load_data` takes: its samples become the self-test's, its preprocessing the
            app's. Without it the self-test runs on generated inputs.
        preprocessing: of the app, where no data say it.
        force: write into a folder that holds other files.
        settings: the fields of the exporter's own settings.

    Raises:
        ConfigError: a setting cannot be used, or `output` holds somebody's files.
        ModelError: the file is no `.tflite`, or the exporter has no use for what it holds.
    """
    row, file, output = exporter(kind), Path(file), Path(output)
    chosen = from_mapping(row.settings, settings, f"export {kind}")
    files.require_free(output, force=force, made_by_us=MARKER)
    if file.suffix == _BUNDLE:
        raise ModelError(
            f"Expected a .tflite to make an app of, got the bundle {file}, which LiteRT-LM's own Android library loads "
            "(com.google.ai.edge.litertlm:litertlm-android). Try that, or: edgeopt decoder MODEL -o "
            f"{file.stem}.tflite, of which edgeopt export android makes a project that writes tokens."
        )
    if formats.is_converted(file) and formats.format_of(file).name != "tflite":
        raise ModelError(
            f"Expected a .tflite to make an app of, got {file}. Try: edgeopt convert MODEL -o {file.stem}.tflite."
        )
    model, stream = read_once(file), stream_of(read_once(file))
    if stream is not None:  # the app hands its states on by itself
        model = read(without_marks(model.content.tobytes(), {ENTRY}))
    require_callable(model, printable(file.name))
    part = None if data is None else datasets.load(data).validation
    writes = _writes(file, part) if generating.writes(model) else None
    if writes is not None and not row.takes_writers:
        raise ModelError(
            f"Expected a file that gives its outputs at once, got {file.name}, a decoder that writes token by token. "
            f"Try edgeopt export {next(name for name, one in EXPORTERS.items() if one.takes_writers)}."
        )
    if writes is not None:
        taken = []
    elif stream is not None:
        taken = _steps(file, part)
    elif part is None:
        indices = formats.facts(file).indices
        taken = [samples.generated(model.inputs, seed=seed, indices=indices) for seed in range(_SAMPLES)]
    else:
        taken = samples.from_data(part, model.inputs, count=_SAMPLES)
    if part is not None:
        classes, preprocessing = classes or part.class_names, part.preprocessing
    _require_classes(classes, model.outputs[0].shape if model.outputs else ())
    source = Source(
        file,
        model.content.tobytes(),
        model,
        identifier(name or file.name.removesuffix(".tflite")),
        tuple(classes),
        preprocessing or Preprocessing(),
        tuple(taken),
        from_data=bool(part),
        stream=stream,
        writes=writes,
    )
    return write(row.project(source, chosen), output, exporter=kind, force=force)


def _writes(file: Path, part: Part | None) -> Writes:
    """Returns how a decoder is called, and what it writes after a prompt: the first tokens of the data, or others."""
    opened = generating.open_generator(file)
    count = min(_PROMPT, opened.cache)
    if not part:
        prompt = np.random.default_rng(0).integers(0, opened.vocabulary, count)
    else:
        prompt = next(iter(part.head(1).arrays().inputs.values())).reshape(-1)[:count]
    tokens = [int(token) for token in prompt]
    return Writes(
        opened.cache,
        opened.piece,
        opened.vocabulary,
        opened.kept_bytes,
        tuple(tokens),
        tuple(opened.generate(tokens, _WRITTEN)),
    )


def _steps(file: Path, part: Part | None) -> list[dict[str, np.ndarray]]:
    """Returns the inputs of some steps of a sample, with the states that come before them."""
    runtime = runtimes.RUNTIMES["litert"]
    function = "edgeopt.runtimes.streaming:steps_of"
    steps: list[dict[str, np.ndarray]] = workers.shared(runtime.package).call(function, file, runtime, part)
    chosen = np.unique(np.linspace(0, len(steps) - 1, _SAMPLES).round().astype(int))
    return [steps[number] for number in chosen]


def _require_classes(classes: Sequence[str], shape: Sequence[int | None]) -> None:
    if classes and shape and shape[-1] not in (None, len(classes)):
        raise ConfigError(
            f"Expected {shape[-1]} class names, one for each output, got {len(classes)}. "
            "Try a file with one name on each line, in the order of the outputs."
        )
