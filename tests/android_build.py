"""Builds exported Android modules on this machine, against stubs, and runs their classes on the JVM over LiteRT."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeopt import frameworks

STUBS = Path(__file__).parent / "stubs"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
_PACKAGES = {
    "javac": "openjdk-17-jdk-headless",
    "kotlinc": "kotlin",
    "gcc": "gcc",
    "aapt2": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "keytool": "openjdk-17-jdk-headless",
}


def require(*tools: str) -> None:
    """Skips the test where a tool is missing, and says what installs it."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt-get install {_PACKAGES[tool]}")


def run(*command: object, timeout: int = 300) -> str:
    """Returns what a command prints; fails the test with its words where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@dataclass(frozen=True)
class Classes:
    """Compiled classes of several exported modules, and the shim that gives them LiteRT.

    Attributes:
        paths: where classes are, of modules on LiteRT 2 and on LiteRT 1.
    """

    paths: Mapping[int, Sequence[Path]]
    shim: Path

    def tried(self, module: Path, name: str, samples: Sequence[Sequence[np.ndarray]]) -> dict[str, list[str]]:
        """Returns the lines that Try prints of com.example.`name`, by what they are about."""
        camel = name.capitalize()
        package = f"com.example.{name}"
        kotlin = any(module.rglob(f"{camel}CompiledModel.kt"))
        inputs = self.shim.parent / f"{name}.inputs"
        content = struct.pack(">ii", len(samples), len(samples[0]))
        for value in (value for sample in samples for value in sample):
            content += struct.pack(">i", value.size) + value.astype(">f4").tobytes()
        inputs.write_bytes(content)
        lines = run(
            "java",
            f"-Dshim={self.shim}",
            "-cp",
            ":".join(map(str, self.paths[_litert(module)])),
            "Try",
            f"{package}.{camel}Model",
            f"{package}.{camel}SelfTest",
            f"{package}.{camel}CompiledModel" if kotlin else "-",
            module / "src/main/assets",
            inputs,
        )
        found: dict[str, list[str]] = {}
        for line in lines.splitlines():
            key = next((key for key in _KEYS if line.startswith(key)), None)
            if key is not None:
                found.setdefault(key, []).append(line.removeprefix(key).strip(" :"))
        return found

    def written(self, module: Path, name: str, prompt: Sequence[int], count: int) -> dict[str, list[str]]:
        """Returns the lines that TryWriter prints of com.example.`name`, by what they are about."""
        camel = name.capitalize()
        lines = run(
            *("java", f"-Dshim={self.shim}", "-cp", ":".join(map(str, self.paths[2]))),
            *("TryWriter", f"com.example.{name}.{camel}Writer", f"com.example.{name}.{camel}SelfTest"),
            *(module / "src/main/assets", count, *prompt),
        )
        found: dict[str, list[str]] = {}
        for line in lines.splitlines():
            key, _, rest = line.partition(" ")
            found.setdefault(key, []).append(rest)
        return found


_KEYS = (
    *(
        f"{who} {what}"
        for who in ("java with a wrong value", "java", "kotlin with a wrong value", "kotlin")
        for what in ("ran on", "output", "went on", "passed", "said")
    ),
    *("preprocessed", "best", "label", "pixels", "NaN", "short", "none", "GPU REFUSE", "GPU CPU", "step"),
    *(f"delegate {handle} {policy}" for handle in (0, 1) for policy in ("REFUSE", "CPU")),
)


def compiled(projects: Sequence[Path], folder: Path) -> Classes:
    """Compiles the modules, apps and tests of `projects`, Java as of Android's oldest, with all warnings as errors."""
    require("javac", "kotlinc", "gcc")
    litert = Path(frameworks.load("litert").__file__).parent
    home = Path(shutil.which("javac") or "").resolve().parents[1]
    shim = folder / "shim.so"
    run(
        *("gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{home}/include", f"-I{home}/include/linux"),
        *(STUBS / "android/host/litert.c", "-o", shim, f"-L{litert}", "-l:libLiteRt.so", f"-Wl,-rpath,{litert}"),
    )
    stubs, classes, kotlin, harness = (folder / name for name in ("stubs", "classes", "kotlin.jar", "harness"))
    _javac(stubs, [], sorted((STUBS / "android").rglob("*.java")))
    _javac(harness, [stubs], sorted((STUBS / "android_harness").glob("*.java")))
    modules = [project / "model" for project in projects if _litert(project / "model") == 2]
    _javac(classes, [stubs], _sources(modules, "src/main"))
    kotlin_sources = [file for module in modules for file in sorted(module.rglob("*.kt"))]
    run("kotlinc", "-nowarn", "-include-runtime", "-cp", f"{stubs}:{classes}", "-d", kotlin, *kotlin_sources)
    _javac(classes, [stubs, classes, kotlin], _sources(modules, "src/androidTest", "../app"))
    paths = {2: [harness, classes, stubs, kotlin]}
    old = [project / "model" for project in projects if _litert(project / "model") == 1]
    if old:
        stubs1, classes1 = folder / "stubs1", folder / "classes1"
        _javac(stubs1, [stubs], sorted((STUBS / "android_litert1").rglob("*.java")))
        _javac(classes1, [stubs1, stubs], _sources(old, "src/main", "src/androidTest", "../app"))
        paths[1] = [harness, classes1, stubs1, stubs]
    return Classes(paths, shim)


def _litert(module: Path) -> int:
    """Returns the major version that the module's build asks for."""
    return 1 if "litert:litert:1." in (module / "build.gradle.kts").read_text() else 2


def _sources(modules: Sequence[Path], *folders: str) -> list[Path]:
    places = [module / folder for module in modules for folder in folders]
    return [file for place in places for file in sorted(place.rglob("*.java"))]


def _javac(output: Path, path: Sequence[Path], sources: Sequence[Path]) -> None:
    # Warnings are errors but for that of the bootstrap classes, which stubs stand in for.
    settings = ("-encoding", "UTF-8", "--release", "8", "-Xlint:all,-options", "-Werror", "-d", output)
    run("javac", *settings, *(("-cp", ":".join(map(str, path))) if path else ()), *sources)
