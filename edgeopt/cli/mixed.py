"""`edgeopt mixed`."""

from __future__ import annotations

from edgeopt.cli.techniques import technique_command

command = technique_command(
    "mixed",
    """Give each layer of an integer file 4 or 8 bits: as few as cost little, within a budget.

    \b
      edgeopt mixed model.keras --data data.npz --scheme int8 --size 65% -o mixed.tflite
    """,
)
