"""What puts a `.tflite` file into an app: a Source and settings go in, a project that builds comes out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PurePosixPath

from edgeopt import files
from edgeopt.errors import ConfigError, named
from edgeopt.exporters import android, micro, web
from edgeopt.exporters.contract import Exported, Exporter, Project, Source

__all__ = ["EXPORTERS", "Exported", "Exporter", "Project", "Source", "exporter", "write"]

EXPORTERS: dict[str, Exporter] = {
    row.name: row
    for row in (
        Exporter(
            "micro",
            "A microcontroller: a project around TensorFlow Lite Micro, or plain C99 of this model alone.",
            micro.Micro,
            micro.project,
            "edgeopt export micro model.int8.tflite -o firmware --runtime c99",
        ),
        Exporter(
            "android",
            "An Android app: a Gradle module with the model and its Java and Kotlin classes, and an app around it.",
            android.Android,
            android.project,
            "edgeopt export android model.int8.tflite -o app --classes labels.txt",
            takes_writers=True,
        ),
        Exporter(
            "web",
            "A web page that runs the model in the browser with LiteRT.js, on the CPU or through WebGPU.",
            web.Web,
            web.project,
            "edgeopt export web model.int8.tflite -o page --classes labels.txt",
        ),
    )
}

# Stands in every folder that we wrote, so that it may be written again: the exporter, and each file with its SHA-256.
MARKER = ".edgeopt-export"


def exporter(name: str) -> Exporter:
    """Returns the exporter called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    return named(EXPORTERS, name, "an exporter")


def write(project: Project, output: Path, *, exporter: str, force: bool = False) -> Exported:
    """Writes a project's files into the folder `output`, each whole or not at all; the marker comes last.

    What an export before wrote there and this one does not is removed; what the user added or changed stays.

    Raises:
        ConfigError: the folder holds somebody else's files and `force` is not given, or it cannot be written.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"Expected a folder to write the project into, got the file {output}. Try another name.")
    files.require_free(output, force=force, made_by_us=MARKER)
    kept = _clear(output, but=project.files)
    for name, content in project.files.items():
        files.atomic_write(output / PurePosixPath(name), content)
    written = [f"{files.sha256(output / PurePosixPath(name))}  {name}\n" for name in project.files]
    files.atomic_write(output / MARKER, "".join((f"{exporter}\n", *written)))
    if kept:
        project = replace(project, notes=(*project.notes, f"of the project before, changed since and kept: {kept}"))
    return Exported(output, exporter, tuple(project.files), project.facts, project.notes, project.next_steps)


def _clear(output: Path, *, but: Collection[str]) -> str:
    """Removes what an export before wrote here and this one does not, and returns what was changed since and stays."""
    marker = output / MARKER
    kept = []
    lines = marker.read_text("utf-8", "replace").splitlines()[1:] if marker.is_file() else []
    for digest, _, name in (line.partition("  ") for line in lines):
        path = PurePosixPath(name)
        file = output / path
        # The marker may have come with a folder from anywhere.
        if name in but or path.is_absolute() or ".." in path.parts or file.resolve() != output.resolve() / path:
            continue
        if not file.is_file():
            continue
        if files.sha256(file) != digest:
            kept.append(name)
            continue
        file.unlink()
        for folder in (output / parent for parent in path.parents if parent != PurePosixPath(".")):
            if any(folder.iterdir()):
                break
            folder.rmdir()
    return ", ".join(kept)
