"""`edgeopt prune`."""

from __future__ import annotations

from edgeopt.cli.techniques import technique_command

command = technique_command(
    "prune",
    """Prune a model: set its smallest weights to zero while it trains on, and let it recover.

    \b
      edgeopt prune model.keras --data data.npz -o pruned.keras --sparsity 0.8
    """,
)
