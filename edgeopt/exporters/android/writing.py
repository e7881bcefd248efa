"""The files of an Android project that writes text: a Source and settings go in, a Project comes out."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.errors import ConfigError
from edgeopt.exporters.android import Android, layout, rendering
from edgeopt.exporters.android.layout import MODULE, Classes
from edgeopt.exporters.contract import Project, Source
from edgeopt.exporters.names import camel

# Of the tokens that the self-test writes: the rest may follow from one that was nearly as likely as another.
_LEAST_SHARE = 0.5
_CLASSES = Classes(
    "writer/README.md.j2",
    "writer/Writer.java.j2",
    "writer/SelfTest.java.j2",
    "writer/OnDevice.java.j2",
    "writer/MainActivity.java.j2",
)


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
        **layout.values(source, settings, model=f"{base}Writer", test=f"{base}SelfTest"),
        "kotlin": False,
        "delegates": False,
        "decoder": source.writes,
        "least": max(1, int(_LEAST_SHARE * len(source.writes.written))),
    }
    made = {path: rendering.render(template, values) for path, template in layout.templates(_CLASSES, values)}
    return Project(
        {**made, f"{MODULE}/src/main/assets/{source.name}.tflite": source.content},
        facts={
            "model_bytes": len(source.content),
            "remembers": source.writes.cache,
            "self_test_tokens": len(source.writes.written),
            "litert": values["litert"],
        },
        notes=tuple(_notes(source)),
        next_steps=layout.next_steps(settings),
    )


def _notes(source: Source) -> Iterator[str]:
    yield (
        "tokens go in and come out: the tokenizer is the app's; LiteRT-LM has one, and loads a .litertlm of edgeopt "
        "decoder"
    )
    if not source.from_data:
        yield "the self-test goes on from a generated prompt; --data DATA takes a real one"
