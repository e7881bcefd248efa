"""`edgeopt qat`."""

from __future__ import annotations

from edgeopt.cli.techniques import technique_command

command = technique_command(
    "qat",
    """Train a model with simulated int8, so that its int8 file loses next to nothing.

    \b
      edgeopt qat model.keras --data data.npz -o model.tflite
    """,
)
