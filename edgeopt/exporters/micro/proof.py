"""The files of a C99 project go in, a sentence on its self-test on this machine comes out, or a refusal in words."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edgeopt import files
from edgeopt.errors import ModelError, UnavailableError

COMPILERS = ("cc", "gcc", "clang")
_COMPILE_S, _RUN_S = 600, 600


def prove(project: Mapping[str, bytes | str], name: str) -> str:
    """Compiles the project here and runs its self-test.

    Args:
        project: content by path in the project.
        name: of the model, for messages.

    Returns:
        What was proven: "3 samples, 0 outputs differ, compiled by cc"; or that no compiler is here to prove it.

    Raises:
        ModelError: outputs differ from the golden ones, or the program does not come to its end.
        UnavailableError: the compiler that is here does not compile it.
    """
    compiler = next((path for each in COMPILERS if (path := _working(each))), None)
    if compiler is None:
        return f"not run: none of {', '.join(COMPILERS)} works on this machine; ctest runs it where one does"
    with tempfile.TemporaryDirectory() as folder:
        for path, content in project.items():
            files.atomic_write(Path(folder, PurePosixPath(path)), content)
        _compile(compiler, Path(folder), name)
        said = _run(Path(folder), name)
    return f"{said}, compiled by {Path(compiler).name}"


def _working(compiler: str) -> str | None:
    """Returns its path; macOS has a `cc` that only asks for the developer tools to be installed."""
    path = shutil.which(compiler)
    if path is None or subprocess.run([path, "--version"], capture_output=True).returncode != 0:
        return None
    return path


def _compile(compiler: str, folder: Path, name: str) -> None:
    sources = sorted(
        str(path.relative_to(folder)) for part in ("src", "selftest") for path in folder.glob(f"{part}/*.c")
    )
    command = [compiler, "-std=c99", "-O1", "-Iinclude", "-Iselftest", *sources, "-lm", "-o", "program"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_COMPILE_S)
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            f"Expected the C of {name} compiled within {_COMPILE_S} s, got none from {compiler}. Try a faster machine."
        ) from None
    if done.returncode != 0:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[-200:])
        raise UnavailableError(
            f"{compiler} did not compile the C of {name}: {said}. Try another C99 compiler as {' or '.join(COMPILERS)}."
        )


def _run(folder: Path, name: str) -> str:
    """Returns what the self-test says of itself: "3 samples, 0 outputs differ"."""
    try:
        done = subprocess.run([folder / "program"], capture_output=True, text=True, errors="replace", timeout=_RUN_S)
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"Expected the self-test of {name} to end within {_RUN_S} s here, got no end. Try a smaller model."
        ) from None
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = f"{lines[-1]}: {lines[0]}" if lines else f"exit status {done.returncode}"
        raise ModelError(
            f"The generated C of {name} does not compute what its reference does ({said}). Expected equal outputs; try "
            "--runtime tflm, or the other --rounding."
        )
    return lines[-1].removeprefix(f"{name}: ")
