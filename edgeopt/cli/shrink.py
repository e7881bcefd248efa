"""`edgeopt shrink`."""

from __future__ import annotations

from edgeopt.cli.techniques import technique_command

command = technique_command(
    "shrink",
    """Shrink a model: cut the channels, heads or blocks that matter least out of it, and let it recover.

    \b
      edgeopt shrink model.keras --data data.npz -o small.keras --macs 0.5
    """,
)
