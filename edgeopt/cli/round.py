"""`edgeopt round`."""

from __future__ import annotations

from edgeopt.cli.techniques import technique_command

command = technique_command(
    "round",
    """Round the weights of a quantized file by what its layers compute, without labels or training.

    \b
      edgeopt round model.keras --data data.npz --scheme int4 -o rounded.tflite
    """,
)
