"""The files of a page: a Source and settings go in, a Project comes out.

The page is static; all that it knows of the model stands in model.json, so that no text of users becomes code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.data.preprocessing import preprocess
from edgeopt.errors import ConfigError, ModelError, setting
from edgeopt.exporters.contract import Project, Source
from edgeopt.exporters.edges import picture
from edgeopt.exporters.shipped import Golden, golden
from edgeopt.exporters.web import Web
from edgeopt.runtimes import FAMILIES
from edgeopt.runtimes.state import state
from edgeopt.tflite import rewrite
from edgeopt.tflite.model import printable
from edgeopt.vocabulary import Preprocessing

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# What LiteRT.js has typed arrays for.
SUPPORTED = ("float32", "int32", "uint8")
# As package.json of the page asks for it, and package-lock.json pins it.
LITERT_JS = "2.5.3"
_PAGE = resources.files("edgeopt.exporters.web") / "page"
# Of @litertjs, in node_modules → in the page. Threads need headers that static servers do not send.
_COPIED = {
    "core/dist/index.js": "index.js",
    "wasm-utils/dist/index.js": "wasm-utils.js",
    **{
        f"core/wasm/litert_wasm_{kind}internal.{suffix}": f"litert_wasm_{kind}internal.{suffix}"
        for kind in ("", "compat_", "jspi_")
        for suffix in ("js", "wasm")
    },
}
_NPM = ("package.json", "package-lock.json", "vendor.js")
_PEAKS = {"picture": 255.0, "sound": 1.0, "numbers": 1.0}
# Data that span less than this share of what the page gives, or this many times more, are scaled otherwise.
_MOST_APART = 20.0


def project(source: Source, settings: Web) -> Project:
    """Returns the page around `source`; raises as `web.project`."""
    kept = state(source.model)
    if kept.tensors or kept.resources:
        raise ModelError(
            f"Expected a model without a memory for the web, got {printable(source.file.name)}, which goes on from its "
            "last call: LiteRT.js has no way to reset it. Try edgeopt export android or micro."
        )
    kind = _kind(source, settings)
    peak = settings.peak or _PEAKS[kind]
    sound = _sound(source, settings) if kind == "sound" else None
    library = {} if settings.litert_js is None else _litert_js(Path(settings.litert_js))
    made = golden(source, "float32", supported=SUPPORTED)
    # Written anew, its names are those that are shown, and nothing lies behind the flatbuffer.
    content = rewrite.changed(made.content, lambda model, schema: None)
    described = _described(source, made, kind=kind, peak=peak, sound=sound)
    static = _static(kind, npm=settings.litert_js is None)
    return Project(
        {
            **static,
            **library,
            "model.json": json.dumps(described, indent=1, allow_nan=False) + "\n",
            "model.tflite": content,
            "model.golden": made.packed,
        },
        facts={
            "model_bytes": len(content),
            "page_takes": kind,
            **({"classes": len(source.classes)} if source.classes else {}),
            "self_test_samples": len(source.samples),
            "litert_js": LITERT_JS,
        },
        notes=tuple(_notes(source, settings, made, kind=kind, peak=peak)),
        next_steps=(
            *(("npm install",) if settings.litert_js is None else ()),
            "python3 -m http.server --bind 127.0.0.1 8000",
        ),
    )


def _shapes(source: Source) -> list[tuple[int, ...]]:
    """Returns the shapes of the inputs, free dimensions as the file stores them."""
    return [source.model.main.tensors[index].shape for index in source.model.main.inputs]


def _kind(source: Source, settings: Web) -> str:
    """Returns "picture", "sound" or "numbers".

    Raises:
        ConfigError: the model has no such input.
    """
    if settings.input == "auto":
        return "picture" if picture(source, source.model) else "numbers"
    shape = _shapes(source)[0]
    fits = {
        "picture": len(shape) == 4 and shape[0] == 1 and shape[3] in (1, 3),
        "sound": shape[0] == 1 and len(shape) in (2, 3, 4),
        "numbers": True,
    }[settings.input]
    if not fits or (settings.input != "numbers" and len(_shapes(source)) > 1):
        shapes = ", ".join("x".join(map(str, shape)) for shape in _shapes(source))
        raise ConfigError(
            f"Expected a model with one input that is a {settings.input}, got {shapes}. "
            f"Try {setting('input', 'numbers')}."
        )
    return settings.input


def _sound(source: Source, settings: Web) -> dict[str, Any]:
    """Returns what the page must know to make the model's input of a waveform.

    Raises:
        ConfigError: the input has another shape than such features.
    """
    assert settings.sample_rate is not None  # checked by Web
    shape = [size for size in _shapes(source)[0] if size != 1]
    wanted = 1 if settings.features == "waveform" else 2
    if len(shape) != wanted:
        what = "samples" if wanted == 1 else "frames and bands"
        raise ConfigError(
            f"Expected an input of {what} for {setting('features', settings.features)}, got one of shape "
            f"{'x'.join(map(str, _shapes(source)[0]))}. "
            f"Try {setting('features', 'log-mel' if wanted == 1 else 'waveform')}."
        )
    rate = settings.sample_rate
    if settings.features == "waveform":
        return {"rate": rate, "samples": shape[0], "features": "waveform"}
    frames, bands = shape
    window, hop = (max(1, round(rate * ms / 1000)) for ms in (settings.window_ms, settings.hop_ms))
    if settings.features == "mfcc" and bands > settings.mel_bands:
        raise ConfigError(
            f"Expected at least as many mel bands as MFCCs, {bands}, got {settings.mel_bands}. "
            f"Try {setting('mel_bands', bands)}."
        )
    return {
        "rate": rate,
        "samples": (frames - 1) * hop + window,
        "features": settings.features,
        "window": window,
        "hop": hop,
        "frames": frames,
        "mels": bands if settings.features == "log-mel" else settings.mel_bands,
        "coefficients": bands,
        "low": settings.mel_low,
        "high": settings.mel_high or rate / 2,
        "spectrum": settings.spectrum,
        "log": settings.log,
    }


def _described(
    source: Source, made: Golden, *, kind: str, peak: float, sound: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns model.json."""
    steps = source.preprocessing
    return {
        "name": source.name,
        "file": printable(source.file.name),
        "input": kind,
        "peak": peak,
        "sound": sound,
        "inputs": [{"name": t.name, "dtype": t.dtype, "shape": t.shape, "elements": t.elements} for t in made.inputs],
        "outputs": [
            {"name": t.name, "dtype": t.dtype, "shape": t.shape, "elements": t.elements, "tolerance": tolerance}
            for t, tolerance in zip(made.outputs, _tolerances(made))
        ],
        "labels": source.classes,
        "preprocessing": {"scale": steps.scale, "mean": steps.mean, "std": steps.std},
        "real_samples": source.from_data,
    }


def _tolerances(made: Golden) -> Iterator[dict[str, float]]:
    """Yields by how much each output may be off on the CPU and on a GPU, which computes integers in floats."""
    quantized = any(tensor.quantization is not None for tensor in made.model.main.tensors)
    family = FAMILIES["gpu"]
    share = family.quantized_tolerance if quantized else family.float_tolerance
    for place, on_cpu in enumerate(made.tolerances):
        values = np.concatenate([sample[place] for sample in made.expected])
        values = values[np.isfinite(values)]
        spread = float(np.ptp(values)) if values.size else 0.0
        yield {"wasm": on_cpu, "webgpu": max(on_cpu, share * spread)}


def _static(kind: str, *, npm: bool) -> dict[str, bytes]:
    """Returns the files that are the same for every model with such an input."""
    skipped = {f"inputs/{other}.js" for other in _PEAKS if other != kind}
    skipped |= set() if kind == "sound" else {"features.js"}
    skipped |= {"preprocess.js"} if kind == "numbers" else set()
    skipped |= set() if npm else set(_NPM)
    return {name: file.read_bytes() for name, file in _files(_PAGE) if name not in skipped}


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry


def _litert_js(folder: Path) -> dict[str, bytes]:
    """Returns the files of LiteRT.js that a page needs.

    Raises:
        ConfigError: it is not there, or another version.
    """
    try:
        version = json.loads((folder / "@litertjs/core/package.json").read_text("utf-8"))["version"]
        found = {f"litert/{to}": (folder / "@litertjs" / name).read_bytes() for name, to in _COPIED.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"Expected a node_modules folder with @litertjs/core as {setting('litert_js')}, got {folder}: {error}. "
            f"Try: npm install @litertjs/core@{LITERT_JS}."
        ) from error
    if version != LITERT_JS:
        raise ConfigError(
            f"Expected LiteRT.js {LITERT_JS} as {setting('litert_js')}, got {printable(str(version))} in {folder}. "
            f"Try: npm install @litertjs/core@{LITERT_JS}."
        )
    return found


def _notes(source: Source, settings: Web, made: Golden, *, kind: str, peak: float) -> Iterator[str]:
    if not source.from_data:
        yield "the self-test runs on generated inputs; --data DATA takes real ones"
    for spec in source.model.inputs:
        if None in spec.shape[1:]:
            sizes = " x ".join("?" if size is None else str(size) for size in spec.shape)
            yield f"free sizes of {spec.name!r}, {sizes}, are fixed as the file stores them: better convert fixed ones"
    if kind == "picture" and source.from_data:
        steps = source.preprocessing
        ends = preprocess(
            np.array([[0.0], [peak]], np.float32).repeat(made.inputs[0].shape[-1], axis=1),
            Preprocessing(None, steps.scale, steps.mean, steps.std),
        )
        given, wanted = float(np.ptp(ends)), max(float(np.ptp(sample[0])) for sample in made.samples)
        if wanted and not 1 / _MOST_APART < given / wanted < _MOST_APART:
            yield (
                f"samples of the data span {wanted:.3g}, a picture from black to white {given:.3g} on the page: "
                "--peak says what white is in the data"
            )
    if settings.input == "auto" and kind == "numbers" and len(made.inputs) == 1 and len(made.inputs[0].shape) > 2:
        yield "the page takes numbers; --input picture or --input sound gives it a drop zone or a microphone"
