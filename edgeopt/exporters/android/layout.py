"""What every Android project has: a Source and settings go in, templates and what fills them come out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from edgeopt.exporters.android import COMPILED_MODEL_SDK, Android
from edgeopt.exporters.contract import Source

LITERT, LITERT_BEFORE = "2.3.0", "1.4.2"
# The Gradle module of the model, and of the app around it.
MODULE, APP = "model", "app"


@dataclass(frozen=True)
class Classes:
    """The templates of a project's README and classes: of the model, its self-test, that on a device, and the app."""

    readme: str
    model: str
    test: str
    on_device: str
    activity: str


def values(source: Source, settings: Android, *, model: str, test: str) -> dict[str, object]:
    """Returns what the templates of every project are filled with; `model` and `test` name its classes."""
    return {
        "package": settings.package or f"com.example.{source.name}",
        "name": source.name,
        "model": model,
        "test": test,
        "module": MODULE,
        "app": APP,
        "litert": LITERT if settings.min_sdk >= COMPILED_MODEL_SDK else LITERT_BEFORE,
        "library": settings.library,
        "min_sdk": settings.min_sdk,
        "file": source.file.name,
        "from_data": source.from_data,
    }


def sources(filled: dict[str, object]) -> str:
    """Returns the folder of a project's classes, by its values."""
    return f"{MODULE}/src/main/java/{_folder(filled)}"


def templates(classes: Classes, filled: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Yields the path of each file that every project has, with its template."""
    folder = _folder(filled)
    yield "README.md", classes.readme
    yield f"{sources(filled)}/{filled['model']}.java", classes.model
    yield f"{sources(filled)}/{filled['test']}.java", classes.test
    yield f"{MODULE}/src/androidTest/java/{folder}/{filled['test']}OnDevice.java", classes.on_device
    if not filled["library"]:
        yield f"{APP}/src/main/java/{folder}/app/MainActivity.java", classes.activity
    yield from _around(library=bool(filled["library"]))


def _folder(filled: dict[str, object]) -> PurePosixPath:
    return PurePosixPath(*str(filled["package"]).split("."))


def _around(*, library: bool) -> Iterator[tuple[str, str]]:
    """Yields the path of each file that builds, with its template."""
    yield f"{MODULE}/build.gradle.kts", "model/build.gradle.kts.j2"
    yield f"{MODULE}/consumer-rules.pro", "model/consumer-rules.pro.j2"
    yield f"{MODULE}/src/main/AndroidManifest.xml", "model/AndroidManifest.xml.j2"
    if not library:
        yield "settings.gradle.kts", "settings.gradle.kts.j2"
        yield "build.gradle.kts", "build.gradle.kts.j2"
        yield "gradle.properties", "gradle.properties.j2"
        yield "gradle/wrapper/gradle-wrapper.properties", "gradle-wrapper.properties.j2"
        yield f"{APP}/build.gradle.kts", "app/build.gradle.kts.j2"
        yield f"{APP}/src/main/AndroidManifest.xml", "app/AndroidManifest.xml.j2"


def next_steps(settings: Android) -> tuple[str, ...]:
    """Returns the commands that build and test a project, in its folder."""
    if settings.library:
        return (f'add include(":{MODULE}") to the settings.gradle.kts of the app, and this folder\'s {MODULE}/ to it',)
    return (
        "gradle wrapper",
        f"./gradlew :{APP}:installDebug",
        f"./gradlew :{MODULE}:connectedDebugAndroidTest",
    )
