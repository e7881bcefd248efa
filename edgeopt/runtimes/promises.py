"""A file and a runtime of a certain version go in; why that runtime cannot load the file comes out, without it."""

from __future__ import annotations

from pathlib import Path

from edgeopt import frameworks
from edgeopt.runtimes import Request
from edgeopt.tflite.op_versions import unsupported_by
from edgeopt.tflite.reader import read


def refusals(file: Path, request: Request) -> tuple[str, ...]:
    """Returns the reasons by the operator versions in `file`; empty if they fit, or where no version is known.

    A request without a version means the installed one. A simulated runtime says for itself what it lacks.
    """
    if request.runtime.simulated:
        return ()
    distribution = frameworks.FRAMEWORKS[request.runtime.package].distribution
    version = request.version or frameworks.installed_version(request.runtime.package)
    return unsupported_by(read(file), distribution, version) if version else ()
