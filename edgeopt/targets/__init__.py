"""What a device has and runs, and what a model costs there: a name and a model go in; facts and verdicts come out.

A target is one data file in this folder; nothing else has to be written to add one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeopt.errors import ConfigError, suggestion
from edgeopt.targets.assessing import Assessment, assess
from edgeopt.targets.estimating import Estimate, OperatorEstimate, compiled_for, estimate, how
from edgeopt.targets.fitting import Fit, Memory, fit, memory, require_fit
from edgeopt.targets.judging import Verdict, judge, refusal, refuse_scheme
from edgeopt.targets.model import LatencyModel, Source, Target
from edgeopt.targets.reading import FOLDER, read_target

__all__ = [
    "TARGETS",
    "Assessment",
    "Estimate",
    "Fit",
    "LatencyModel",
    "Memory",
    "OperatorEstimate",
    "Source",
    "Target",
    "Verdict",
    "assess",
    "compiled_for",
    "estimate",
    "fit",
    "how",
    "judge",
    "memory",
    "read_target",
    "refusal",
    "refuse_scheme",
    "require_fit",
    "target",
]


class _Targets(Mapping[str, Target]):
    """The data files by name, each read when it is asked for."""

    def __getitem__(self, name: str) -> Target:
        if name not in list(self):
            raise KeyError(name)
        return read_target(FOLDER / f"{name}.yaml")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in FOLDER.glob("*.yaml")))

    def __len__(self) -> int:
        return sum(1 for _ in self)


TARGETS: Mapping[str, Target] = _Targets()


def target(name: str) -> Target:
    """Returns the target of that name, or the one that the file `name`, ending in .yaml, describes.

    Raises:
        ConfigError: there is neither, or the file cannot be used; the message says where.
    """
    if name in TARGETS:
        return TARGETS[name]
    if name.endswith(".yaml") and Path(name).is_file():
        return read_target(Path(name))
    raise ConfigError(f"Expected a target, or FILE.yaml of one's own, got {name!r}.{suggestion(name, TARGETS)}")
