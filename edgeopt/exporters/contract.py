"""What every exporter is made of: a `.tflite` file and what an app must know of it go in, a project comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.choices import Choices
from edgeopt.vocabulary import Preprocessing

if TYPE_CHECKING:
    import numpy as np

    from edgeopt.tflite.model import TFLiteModel
    from edgeopt.tflite.stream import Stream


@dataclass(frozen=True)
class Writes:
    """How a file writes token by token: by its signatures `prefill` and `decode`.

    Attributes:
        cache, piece, vocabulary: tokens that it remembers, reads at once, and tells apart.
        kept: name and bytes of what goes from one call to the next.
        prompt, written: tokens of the self-test, and those that LiteRT writes after them, the most likely each time.
    """

    cache: int
    piece: int
    vocabulary: int
    kept: tuple[tuple[str, int], ...]
    prompt: tuple[int, ...]
    written: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        file: the `.tflite`, as the user named it.
        content: the bytes that are exported.
        model: the same, read.
        name: what the user calls it, as an identifier of C, Java and Kotlin in lower case: "keyword_spotting".
        classes: names of the classes as the user wrote them: any text.
        preprocessing: what the app does to raw samples.
        samples: inputs of the self-test, each a batch of one in the dtypes of the file, by input name.
        stream: how the file reads a sample step by step; None where it takes it whole.
        from_data: whether the samples are the user's; they are generated otherwise.
        writes: how it writes text; None where it does not. It has no samples then.
    """

    file: Path
    content: bytes
    model: TFLiteModel
    name: str
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    samples: tuple[Mapping[str, np.ndarray], ...] = ()
    from_data: bool = False
    stream: Stream | None = None
    writes: Writes | None = None


@dataclass(frozen=True)
class Project:
    """A project before it is on the disk.

    Attributes:
        files: content by path relative to the project's folder, with forward slashes.
        facts: what was measured or counted: "arena_bytes", "flash_bytes" …
        notes: what its user should know.
        next_steps: the commands that build and test it, in the folder.
    """

    files: Mapping[str, bytes | str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """A project that was written.

    Attributes:
        output: its folder.
        files: relative to it.
        facts, notes, next_steps: as in Project.
    """

    output: Path
    exporter: str
    files: tuple[str, ...]
    facts: Mapping[str, Any]
    notes: tuple[str, ...]
    next_steps: tuple[str, ...]


# project(source, settings) makes all files in memory.
Make = Callable[[Source, Any], Project]


@dataclass(frozen=True)
class Exporter:
    """A row of EXPORTERS.

    Attributes:
        name: subcommand and module.
        summary: one line for help texts and docs.
        settings: the dataclass of its choices.
        project: see Make.
        example: a real command line, for the help text.
        takes_writers: whether it makes something of a file that writes token by token.
    """

    name: str
    summary: str
    settings: type[Choices]
    project: Make
    example: str
    takes_writers: bool = False
