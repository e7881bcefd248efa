"""`edgeopt equalize`: a model and data go in; the same function with channels alike in range comes out."""

from __future__ import annotations

from edgeopt.cli.techniques import technique_command

command = technique_command(
    "equalize",
    """Equalize a model: scale channels so that one scale suits all weights of a layer, without training and labels.

    \b
      edgeopt equalize model.keras --data data.npz -o even.tflite --scheme int8-per-tensor
    """,
)
