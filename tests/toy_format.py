"""A format of converted files for tests: lines of "operator weights", each weight one byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeopt.formats.contract import FileFacts, OperatorFacts
from edgeopt.vocabulary import StoredWeight, TensorSpec


def facts(path: Path) -> FileFacts:
    """Returns what the lines say."""
    lines = [line.split() for line in path.read_text().splitlines()[1:]]
    weights = [
        StoredWeight(f"w{i}", (1, int(count)), "int8", 8, "weights", name, int(count), int(count), 0, 1, 1, 1, "")
        for i, (name, count) in enumerate(lines)
    ]
    operators = tuple(
        OperatorFacts(w.operator, f"y{i}", (1,), False, w.elements, (w,), kind="dense") for i, w in enumerate(weights)
    )
    spec = TensorSpec("x", (1, 4), "int8")
    return FileFacts(
        format="toy",
        inputs=(spec,),
        outputs=(spec,),
        operators=operators,
        weights=tuple(weights),
        macs=sum(operator.macs for operator in operators),
        bytes_by_kind={"weights": path.stat().st_size},
        size_bytes=path.stat().st_size,
        read=lambda weight: np.ones(weight.shape, np.int8),
        is_quantized=True,
        computes="full toy",
    )
