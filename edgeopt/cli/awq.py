"""`edgeopt awq`: a model and data go in; the same function with weights that lose less in few bits comes out."""

from __future__ import annotations

from edgeopt.cli.techniques import technique_command

command = technique_command(
    "awq",
    """Scale the weights of a language model by the activations that they meet (AWQ), without training and labels.

    \b
      edgeopt awq decoder.keras --data text.npz -o scaled.tflite --scheme int4-block32
    """,
)
