"""A model, data and a target go in; what to apply, in which order, and what it will bring come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgeopt import advising, targets
from edgeopt import data as datasets
from edgeopt.advising import Guide
from edgeopt.api.models import as_path
from edgeopt.workspace import Conditions, Workspace


def advise(
    model: Any,
    data: Any = None,
    *,
    target: str | None = None,
    metric: str | None = None,
    tasks: Mapping[str, str] | None = None,
    output_name: str | None = None,
    given: Sequence[str] | None = None,
    folder: Path | None = None,
    custom_objects: Path | None = None,
    trust: bool = False,
) -> Guide:
    """Returns what to apply to a model, in which order, what it will bring, and what not to bother with.

    Args:
        model: a path, or a Keras model at hand.
        data: a Dataset, or what `edgeopt.load_data` takes; None where there are none.
        target: a name of `targets.TARGETS`, or a data file of one's own.
        metric, tasks, output_name: how scores are measured; see `Conditions`.
        given: options that name data and code in the command that the guide ends with; `--data` alone if None.
        folder: what is measured is kept there, and shared with an `optimize` in the same folder.
        custom_objects, trust: see `loading.load_model`.

    Raises:
        ConfigError: there is no such target.
        DataError: the data do not fit the model.
        ModelError: the model cannot be read.
    """
    device = None if target is None else targets.target(target)
    conditions = Conditions(
        metric=metric, output_name=output_name, tasks=tasks or {}, custom_objects=custom_objects, trust=trust
    )
    dataset = None if data is None else datasets.load(data)
    words = () if data is None else ("--data", str(data) if isinstance(data, (str, Path)) else "DATA")
    with (
        as_path(model) as path,
        TemporaryDirectory(prefix="edgeopt-") as temporary,
        Workspace(path, dataset, folder or Path(temporary), conditions) as workspace,
    ):
        return advising.advise(
            workspace,
            device,
            given=words if given is None else tuple(given),
            for_target=() if target is None else ("--target", target),
        )
