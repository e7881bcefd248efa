"""Results of another machine go into a report: rows by the SHA-256 of the file they were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeopt.errors import DataError
from edgeopt.report.model import Report
from edgeopt.vocabulary import RuntimeResult, Variant


def merged(report: Report, results: Mapping[str, Sequence[RuntimeResult]]) -> Report:
    """Returns the report with `results` in the variants whose files have those SHA-256.

    A result takes the place of one of the same file, runtime and version.

    Raises:
        DataError: no variant has one of the files.
    """
    artifacts = [artifact for variant in report.variants for artifact in variant.artifacts]
    if not any(artifact.sha256 in results for artifact in artifacts):
        known = ", ".join(artifact.file for artifact in artifacts)
        raise DataError(f"Expected files of the report, got none that is one of its own. Try {known or 'another'}.")
    return replace(report, variants=tuple(_with(variant, results) for variant in report.variants))


def _with(variant: Variant, results: Mapping[str, Sequence[RuntimeResult]]) -> Variant:
    new = tuple(
        replace(result, artifact=artifact.file)
        for artifact in variant.artifacts
        for result in results.get(artifact.sha256, ())
    )
    replaced = {_what_ran(result) for result in new}
    kept = tuple(result for result in variant.runtimes if _what_ran(result) not in replaced)
    return replace(variant, runtimes=(*kept, *new))


def _what_ran(result: RuntimeResult) -> tuple[str, str, str]:
    return result.name, result.version, result.artifact
