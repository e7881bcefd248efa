"""`edgeopt distill`."""

from __future__ import annotations

from edgeopt.cli.techniques import technique_command

command = technique_command(
    "distill",
    """Train a smaller student on what a trained model, its teacher, answers.

    \b
      edgeopt distill teacher.keras --data data.npz -o student.keras --width 0.5
    """,
    argument="TEACHER",
)
