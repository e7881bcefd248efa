"""In a real notebook kernel: progress is seen without being asked for, and results show themselves."""

from __future__ import annotations

from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="no notebook kernel here: install nbclient and ipykernel")
nbformat = pytest.importorskip("nbformat")


def outputs(*cells: str) -> list[list[Any]]:
    """Returns what each cell of a notebook shows after all have run."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()
    return [cell.outputs for cell in notebook.cells]


TOLD = """
import time
import edgeopt
from edgeopt import progress
edgeopt.Budgets
progress.foresee([progress.Stage("converting <b>", 1), progress.Stage("qat", 1, "training")])
for _ in progress.track(range(3), "converting <b>", 3):
    time.sleep(0.25)
progress.tell("qat", 1, 10, "epoch 1 of 10, loss 0.5")
"""


def test_a_cell_has_one_line_and_keeps_the_stages_that_are_done() -> None:
    shown, failed, quiet = outputs(
        TOLD,
        "progress.tell('counting', 1, 2); raise ValueError('of the user')",
        "with progress.listening(None):\n    progress.tell('counting', 1, 2)",
    )
    (line,) = shown
    assert line.output_type == "display_data"
    assert line.data["text/html"] == "converting &lt;b&gt; (0:01)<br>qat, epoch 1 of 10, loss 0.5 (0:00)"
    assert [one.output_type for one in failed] == ["display_data", "error"]
    assert failed[0].data["text/html"] == ""
    assert quiet == []


def test_a_report_shows_itself() -> None:
    (shown,) = outputs(
        "from edgeopt.report import Report, ModelFacts\n"
        "Report(edgeopt_version='0.1.0', created='2026-11-21T10:14:03+00:00', model=ModelFacts('m.keras'))"
    )
    assert shown[-1].data["text/html"].startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
