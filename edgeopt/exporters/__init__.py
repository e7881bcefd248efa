"""What puts a `.tflite` file into an app: a Source and settings go in, a project that builds comes out."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from edgeopt import files
from edgeopt.errors import ConfigError, named
from edgeopt.exporters import android, micro
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
        ),
    )
}

# Stands in every folder that we wrote, so that it may be written again.
MARKER = ".edgeopt-export"


def exporter(name: str) -> Exporter:
    """Returns the exporter called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    return named(EXPORTERS, name, "an exporter")


def write(project: Project, output: Path, *, exporter: str, force: bool = False) -> Exported:
    """Writes a project's files into the folder `output`, each whole or not at all; the marker comes last.

    Raises:
        ConfigError: the folder holds somebody else's files and `force` is not given, or it cannot be written.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"Expected a folder to write the project into, got the file {output}. Try another name.")
    files.require_free(output, force=force, made_by_us=MARKER)
    for name, content in project.files.items():
        files.atomic_write(output / PurePosixPath(name), content)
    files.atomic_write(output / MARKER, f"{exporter}\n")
    return Exported(output, exporter, tuple(project.files), project.facts, project.notes, project.next_steps)
