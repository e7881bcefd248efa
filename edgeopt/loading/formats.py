"""What kind of model a file holds: a path goes in, its format comes out, told by content and never by its extension."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from edgeopt.errors import ModelError

EXPECTED = "a Keras model (.keras or .h5), a SavedModel folder or a float .tflite"

# format -> what it is called in messages, and the extensions it goes by.
FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "keras3": ("a Keras 3 archive", (".keras",)),
    "keras2": ("a Keras 2 archive", (".keras",)),
    "keras3-h5": ("a Keras 3 HDF5 file", (".h5", ".hdf5")),
    "keras2-h5": ("a Keras 2 HDF5 file", (".h5", ".hdf5")),
    "savedmodel": ("a SavedModel", ("",)),
    "tflite": ("a .tflite file", (".tflite",)),
}


@dataclass(frozen=True)
class Source:
    """A model file whose format is known.

    Attributes:
        path: where it is.
        format: a key of FORMATS.
        version: of the Keras that wrote it, "" where the file does not say.
        config: the model's config as it stands in the file.
        compiled: whether it holds an optimizer or a loss.
        compile_config: what it says of them.
    """

    path: Path
    format: str
    version: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    compiled: bool = False
    compile_config: Any = None


def identify(path: Path) -> Source:
    """Returns what `path` holds.

    Raises:
        ModelError: there is nothing, or nothing that is a model.
    """
    if path.is_dir():
        return _folder(path)
    try:
        with path.open("rb") as content:
            head = content.read(512)
    except FileNotFoundError as error:
        raise ModelError(f"Expected {EXPECTED}, got {path}, which does not exist. Try checking the path.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}. Try checking its permissions.") from error
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return _archive(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(path)
    if head[4:8] == b"TFL3":
        return Source(path, "tflite")
    raise ModelError(f"Expected {EXPECTED}, got {path}, which {_looks_like(head)}. Try {_what_to_give(path)}.")


def extension_note(source: Source) -> tuple[str, ...]:
    """Returns a note where the file's extension says another format than its content."""
    said, extensions = FORMATS[source.format]
    suffix = source.path.suffix.lower()
    if source.format == "savedmodel" or suffix in extensions:
        return ()
    return (f"{source.path.name} holds {said}, whatever its extension says; {extensions[0]} would be its name",)


def _folder(path: Path) -> Source:
    if (path / "saved_model.pb").is_file():
        return Source(path, "savedmodel", compiled=False)
    if (path / "metadata.json").is_file() and (path / "config.json").is_file():
        raise ModelError(
            f"Expected {EXPECTED}, got the folder {path}, which is an unpacked .keras archive. "
            "Try the .keras file itself."
        )
    raise ModelError(
        f"Expected a SavedModel folder, got {path}, which holds no saved_model.pb. Try the folder above it."
    )


def _archive(path: Path) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            names = set(archive.namelist())
            if not {"metadata.json", "config.json"} <= names:
                raise ModelError(
                    f"Expected a .keras archive, got {path}, a zip file without metadata.json and config.json. "
                    "Try the file that model.save() wrote."
                )
            metadata, config = (json.loads(archive.read(name)) for name in ("metadata.json", "config.json"))
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path} is a damaged or truncated .keras archive ({error}). Try copying it again.") from error
    if not isinstance(metadata, dict) or not isinstance(config, dict):
        raise ModelError(f"{path} is a damaged .keras archive (its config is no object). Try saving it anew.")
    version = str(metadata.get("keras_version", ""))
    kind = "keras2" if version.startswith("2.") else "keras3"
    compiled = config.get("compile_config")
    return Source(path, kind, version, config, bool(compiled), compiled)


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises ModelError for an archive whose entries leave their folder or swell when unpacked."""
    entries = archive.infolist()
    for entry in entries:
        parts = Path(entry.filename.replace("\\", "/")).parts
        if ".." in parts or entry.filename.startswith(("/", "\\")) or ":" in entry.filename:
            raise ModelError(
                f"{path} holds the entry {entry.filename!r}, which points out of the archive: "
                "no Keras writes such a file. Try another source for this model."
            )
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if unpacked > 100e6 and unpacked > 100 * packed:
        raise ModelError(
            f"{path} would swell from {packed / 1e6:.1f} MB to {unpacked / 1e6:.0f} MB: no Keras writes such a file. "
            "Try another source for this model."
        )


def _hdf5(path: Path) -> Source:
    try:
        with h5py.File(path, "r") as content:
            wanted = ("model_config", "keras_version", "training_config")
            attributes = {key: content.attrs[key] for key in wanted if key in content.attrs}
            compiled = "training_config" in content.attrs or "optimizer_weights" in content
            weights_only = "layer_names" in content.attrs or "_layer_checkpoint_dependencies" in content
            weights_only = weights_only or "layers" in content
            _check_links(content, path)
    except (OSError, RuntimeError, KeyError) as error:
        raise ModelError(f"{path} is a damaged or truncated HDF5 file ({error}). Try copying it again.") from error
    if "model_config" not in attributes:
        what = "weights only, not the network they belong to" if weights_only else "no Keras model"
        raise ModelError(
            f"Expected a whole model, got {path}, which holds {what}. "
            "Try model.load_weights() on the model that your code builds, then model.save('model.keras')."
        )
    text, version, training = (_text(attributes.get(key, "")) for key in wanted)
    try:
        config = json.loads(text)
        compile_config = json.loads(training) if training else None
    except ValueError as error:
        raise ModelError(f"{path} holds a damaged model config ({error}). Try saving it anew.") from error
    kind = "keras3-h5" if version.startswith("3.") else "keras2-h5"
    return Source(path, kind, version, config, compiled, compile_config)


def _check_links(content: Any, path: Path) -> None:
    """Raises ModelError for data that lie in other files, or claim to be far larger than the file."""
    declared = 0

    def visit(group: Any) -> None:
        nonlocal declared
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ModelError(
                    f"{path} points to data in another file ({link.filename}). Try a file that holds them."
                )
            item = group[name] if isinstance(link, h5py.HardLink) else None
            if isinstance(item, h5py.Group):
                visit(item)
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise ModelError(f"{path} keeps {item.name} in another file. Try a file that holds all its data.")
                declared += item.nbytes

    visit(content)
    size = path.stat().st_size
    if declared > 100e6 and declared > 100 * size:
        raise ModelError(
            f"{path} claims {declared / 1e6:.0f} MB of weights in {size / 1e6:.1f} MB: no Keras writes such a file. "
            "Try another source for this model."
        )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _what_to_give(path: Path) -> str:
    if path.suffix.lower() == ".onnx":
        return (
            "the model that it was exported from; a PyTorch one comes in by `edgeopt import-torch`, and evaluate, "
            "benchmark, compare and inspect take the .onnx itself"
        )
    return "the file that model.save() wrote"


def _looks_like(head: bytes) -> str:
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer (git lfs pull fetches the file itself)"
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return "is no model format that is known here"
    return "is a text file" if text.isprintable() or "\n" in text else "is no model format that is known here"
