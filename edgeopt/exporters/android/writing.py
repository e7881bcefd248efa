"""The files of an Android project that writes text: a Source and settings go in, a Project comes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from edgeopt.errors import ConfigError
from edgeopt.exporters.android import COMPILED_MODEL_SDK, Android, rendering
from edgeopt.exporters.android.layout import APP, LITERT, LITERT_BEFORE, MODULE, around, next_steps
from edgeopt.exporters.contract import Project, Source
from edgeopt.exporters.names import camel

# Of the tokens that the self-test writes: the rest may follow from one that was nearly as likely as another.
_LEAST_SHARE = 0.5


def project(source: Source, settings: Android) -> Project:
    """Returns the project around a file that writes token by token.

    Raises:
        ConfigError: a setting is for what computes once.
    """
    assert source.writes is not None
    if settings.streaming or settings.io == "uint8":
        said = "streaming" if settings.streaming else "io uint8"
        raise ConfigError(
            f"Expected no {said} for {source.file.name}, a decoder that takes tokens and keeps what it has read. "
            "Try it without."
        )
    base = camel(source.name).removesuffix("Model")
    values = {
        "package": settings.package or f"com.example.{source.name}",
        "name": source.name,
        "model": f"{base}Writer",
        "test": f"{base}SelfTest",
        "module": MODULE,
        "app": APP,
        "litert": LITERT if settings.min_sdk >= COMPILED_MODEL_SDK else LITERT_BEFORE,
        "kotlin": False,
        "delegates": False,
        "library": settings.library,
        "min_sdk": settings.min_sdk,
        "file": source.file.name,
        "decoder": source.writes,
        "least": max(1, int(_LEAST_SHARE * len(source.writes.written))),
        "from_data": source.from_data,
    }
    made = {path: rendering.render(template, values) for path, template in _templates(settings, values)}
    return Project(
        {**made, f"{MODULE}/src/main/assets/{source.name}.tflite": source.content},
        facts={
            "model_bytes": len(source.content),
            "remembers": source.writes.cache,
            "self_test_tokens": len(source.writes.written),
            "litert": values["litert"],
        },
        notes=tuple(_notes(source)),
        next_steps=next_steps(settings),
    )


def _templates(settings: Android, values: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Yields the path of each generated file with its template."""
    folder = PurePosixPath(*str(values["package"]).split("."))
    sources = f"{MODULE}/src/main/java/{folder}"
    yield "README.md", "writer/README.md.j2"
    yield f"{sources}/{values['model']}.java", "writer/Writer.java.j2"
    yield f"{sources}/{values['test']}.java", "writer/SelfTest.java.j2"
    yield f"{MODULE}/src/androidTest/java/{folder}/{values['test']}OnDevice.java", "writer/OnDevice.java.j2"
    if not settings.library:
        yield f"{APP}/src/main/java/{folder}/app/MainActivity.java", "writer/MainActivity.java.j2"
    yield from around(library=settings.library)


def _notes(source: Source) -> Iterator[str]:
    yield (
        "tokens go in and come out: the tokenizer is the app's; LiteRT-LM has one, and loads a .litertlm of edgeopt "
        "decoder"
    )
    if not source.from_data:
        yield "the self-test goes on from a generated prompt; --data DATA takes a real one"
