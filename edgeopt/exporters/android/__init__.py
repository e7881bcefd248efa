"""A `.tflite` for an Android app: the model and its labels go in, a Gradle project with a self-test comes out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.choices import Choices, option
from edgeopt.errors import ConfigError
from edgeopt.exporters import streaming
from edgeopt.exporters.names import is_keyword

if TYPE_CHECKING:
    from edgeopt.exporters.contract import Project, Source

# From LiteRT 2.3 on its AARs ask for 24; below that the last release of the 1.x line, which has no CompiledModel.
COMPILED_MODEL_SDK = 24


@dataclass(frozen=True, kw_only=True)
class Android(Choices):
    """What may be said of an Android project.

    Attributes:
        library: only the Gradle module with the model, for an app that is there already.
        io: dtype of the model's inputs and outputs in the app: "file" keeps those of the file.
        package: of the generated classes; com.example.NAME if None.
        min_sdk: the oldest Android that the app installs on.

    Raises:
        ConfigError: `package` is no name of a Java package.
    """

    library: bool = option(False, "Only the module to drop into an app.")
    io: str = option(
        "float32", "Inputs and outputs of the model; file keeps those it has.", choices=("float32", "uint8", "file")
    )
    package: str | None = option(None, "Of the classes; com.example.NAME if not given.", metavar="NAME")
    min_sdk: int = option(
        COMPILED_MODEL_SDK, "The oldest Android API level; from 24 on with LiteRT's CompiledModel.", low=21, high=36
    )
    streaming: bool = option(False, streaming.HELP)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.package is not None and not _is_package(self.package):
            raise ConfigError(
                f"Expected a Java package of at least two names as package, got {self.package!r}. Try com.example.app."
            )


def project(source: Source, settings: Android) -> Project:
    """Returns the project around `source`.

    Raises:
        ConfigError: it is to stream and remembers nothing, or a setting does not go with a file that writes.
        ModelError: the app cannot fill an input or read an output of its dtype, or has no scale for the dtype asked.
        UnavailableError: LiteRT, which computes the golden outputs, is not installed.
    """
    from edgeopt.exporters.android import files, writing

    return files.project(source, settings) if source.writes is None else writing.project(source, settings)


def _is_package(text: str) -> bool:
    parts = text.split(".")
    plain = all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", part) for part in parts)
    return plain and len(parts) > 1 and not any(is_keyword(part) for part in parts)
