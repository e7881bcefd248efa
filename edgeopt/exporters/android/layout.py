"""What every Android project has around its classes: settings go in, paths with their templates come out."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.exporters.android import Android

LITERT, LITERT_BEFORE = "2.3.0", "1.4.2"
# The Gradle module of the model, and of the app around it.
MODULE, APP = "model", "app"


def around(*, library: bool) -> Iterator[tuple[str, str]]:
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
